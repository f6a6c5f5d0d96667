//! Doorbells within one process.

#![warn(missing_docs)]

mod queue;

pub use queue::{LocalFanout, LocalJobs, LocalQueue, queues};
