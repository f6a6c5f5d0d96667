//! Helpers for tests and benches of the whole system.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot be set up has failed"
)]

pub mod backend;
pub mod broken_host;
pub mod crash;
pub mod doubles;
pub mod engine_images;
pub mod faulty_registry;
pub mod fuzz;
pub mod git_server;
pub mod github;
pub mod hosts;
pub mod installation;
pub mod kept_registry;
pub mod narrow_engine;
pub mod own_engine;
pub mod pipeline;
pub mod process;
pub mod proxy;
pub mod pulled;
pub mod real;
pub mod registries;
pub mod role;
pub mod scripted;
pub mod servers;
pub mod small_disk;
pub mod ssh_server;
pub mod stepped_clock;
