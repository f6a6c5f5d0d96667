//! The contract of every engine, and tests of real ones.
//!
//! The real engines are the default one at `GANTRY_TEST_DOCKER_HOST` (`unix:///var/run/docker.sock`), and one with the
//! containerd image store at `GANTRY_TEST_CONTAINERD_DOCKER_HOST`. The registry is at `GANTRY_TEST_REGISTRY`, and must
//! contain `busybox:1`. Without these servers the tests fail: `make test` starts all three.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, and its helpers with it"
)]

mod broken_report;
mod contract;
mod differential;
mod docker;
#[path = "../../../tests/src/own_engine.rs"]
#[allow(unreachable_pub, dead_code, reason = "it is a module of the tests' own crate as well")]
mod engine;
mod made;
mod own_engine;
mod refusing;
mod rig;
mod scripted;
mod slow {
    mod large_context;
}
mod tested;
