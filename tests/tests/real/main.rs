//! The specification with only real parts: engine, registry, git, and the program as users run it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a step of a test that cannot be done has failed"
)]

mod artifacts;
mod backup;
mod base_images;
mod builds;
mod credentials;
mod declared;
mod engine_faults;
mod images;
mod platforms;
mod power_cut;
mod push;
mod registry_faults;
mod roles;
mod samples;
mod scaled;
mod second_upload;
mod service;
mod shared_engine;
mod task_files;
