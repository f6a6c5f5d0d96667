//! Doorbells within one process, and objects in a directory: what an installation on one machine needs beside its store.

#![warn(missing_docs)]

mod blobs;
mod queue;
mod unfinished;

pub use blobs::{ObjectBlobs, OpenError};
pub use queue::{LocalFanout, LocalJobs, LocalQueue, queues};
