//! Large bytes where every machine of an installation reaches them: a directory, S3, Azure Blob or Google Cloud Storage.

#![warn(missing_docs)]

mod blobs;
mod client;
mod copy;
mod error;
mod open;
mod place;
mod probe;
mod unfinished;

pub use blobs::ObjectBlobs;
pub use copy::{copy_folder, keep_only};
pub use open::{ObjectsOptions, OpenError};
pub use place::InvalidPlace;
pub use probe::ProbeError;
