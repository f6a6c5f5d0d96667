//! What holds of every engine, and what holds of a real one.
//!
//! The real engines are the default one at `GANTRY_TEST_DOCKER_HOST` (`unix:///var/run/docker.sock`) and one with the
//! containerd image store at `GANTRY_TEST_CONTAINERD_DOCKER_HOST`; the registry, with `busybox:1` in it, is the one at
//! `GANTRY_TEST_REGISTRY`. Without them these tests fail: `make test` starts all three.

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
