//! The store in one SQLite file, for embedded installations.
//!
//! One writer thread commits all waiting batches together, with one fsync. A few read-only connections answer reads,
//! off the async threads. Also the lock that limits a data directory to one process.

#![warn(missing_docs)]

mod clock;
mod copy;
mod data_dir;
mod database;
mod error;
mod private;
mod readers;
mod store;
mod walk;
mod writer;

pub use copy::{CopyError, copy};
pub use data_dir::{DataDir, Holder, LockError};
pub use database::OpenError;
pub use store::{Options, SqliteStore};
