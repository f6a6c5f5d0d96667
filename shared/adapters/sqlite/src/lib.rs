//! The store in one SQLite file: the whole truth of an embedded installation.
//!
//! One writer thread takes all the batches that wait and commits them together, with one fsync; a few read-only
//! connections answer reads, off the async threads. Beside it, the lock that keeps a data directory to one process.

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
