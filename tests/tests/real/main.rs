//! The specification on real parts alone: engine, registry, git, and the program as a user has it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a step of a test that cannot be done has failed"
)]

mod builds;
mod push;
mod roles;
mod service;
