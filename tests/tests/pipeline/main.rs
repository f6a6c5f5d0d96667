//! The specification of the pipeline: from an event to an image, on every part but a real engine and a real registry.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a step of a test that cannot be done has failed"
)]

mod admission;
mod architecture;
mod causes;
mod keeping;
mod leases;
mod logs;
mod pools;
mod pushes;
mod workers;
