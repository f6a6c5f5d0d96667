//! Large objects, in a directory, S3, Azure Blob or Google Cloud Storage.

#![warn(missing_docs)]

mod blobs;
mod client;
mod copy;
mod error;
mod open;
mod probe;
mod storage_url;
mod unfinished;

pub use blobs::ObjectBlobs;
pub use copy::{copy_folder, keep_only};
pub use open::{ObjectsOptions, OpenError};
pub use probe::ProbeError;
pub use storage_url::InvalidStorageUrl;
