//! The object store, for large data: uploaded contexts, log segments, old bodies.

use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use tokio::io::AsyncRead;

/// An object store.
#[async_trait]
pub trait Blobs: Send + Sync {
    /// Stores `bytes` under `path`, durably and atomically, replacing what was there.
    ///
    /// # Errors
    /// [`BlobError`].
    async fn put(&self, path: &str, bytes: Bytes) -> Result<(), BlobError>;

    /// Stores what `reader` yields, and returns its length in bytes. Nothing appears under `path` before the end, and
    /// nothing at all if the reader fails or yields more than `most` bytes.
    ///
    /// # Errors
    /// [`BlobError`].
    async fn put_stream(
        &self,
        path: &str,
        reader: Pin<Box<dyn AsyncRead + Send>>,
        most: u64,
    ) -> Result<u64, BlobError>;

    /// Reads a whole object; for objects known to be small.
    ///
    /// # Errors
    /// [`BlobError`].
    async fn get(&self, path: &str) -> Result<Bytes, BlobError>;

    /// Reads these bytes of an object. They must be few, and lie within it.
    ///
    /// # Errors
    /// [`BlobError`].
    async fn get_range(&self, path: &str, range: Range<u64>) -> Result<Bytes, BlobError>;

    /// Reads an object as a stream.
    ///
    /// # Errors
    /// [`BlobError`].
    async fn get_stream(&self, path: &str) -> Result<Pin<Box<dyn AsyncRead + Send>>, BlobError>;

    /// Removes an object; a missing object is no error.
    ///
    /// # Errors
    /// [`BlobError`].
    async fn delete(&self, path: &str) -> Result<(), BlobError>;

    /// Removes all objects whose path begins with `prefix` and a slash.
    ///
    /// # Errors
    /// [`BlobError`].
    async fn delete_all(&self, prefix: &str) -> Result<(), BlobError>;

    /// The free bytes where the objects are stored; `None` if that is unknown, as for a bucket.
    async fn free_bytes(&self) -> Option<u64> {
        None
    }

    /// The paths of all objects below `prefix`, in no particular order. An empty prefix lists everything.
    ///
    /// # Errors
    /// [`BlobError::Refused`]. Other errors are items of the stream.
    fn list(&self, prefix: &str) -> Result<Paths, BlobError>;
}

/// A stream of object paths.
pub type Paths = BoxStream<'static, Result<String, BlobError>>;

/// A shared handle to the object store.
pub type SharedBlobs = Arc<dyn Blobs>;

/// An operation of the object store failed.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the fields without a comment explain themselves")]
pub enum BlobError {
    /// The path is invalid: it must be plain names with single slashes between them.
    #[error(
        "`{path}` cannot be the path of an object: use plain names with single slashes between them"
    )]
    Refused { path: String },
    /// There is no object under this path.
    #[error("there is no object {path}")]
    Absent { path: String },
    /// The object is larger than allowed.
    #[error("{path} is larger than {most} bytes")]
    TooLarge {
        path: String,
        /// The limit in bytes.
        most: u64,
    },
    /// The source of the upload failed.
    #[error("the upload of {path} was cut off")]
    Source {
        path: String,
        /// The reader's error.
        source: std::io::Error,
    },
    /// The object store is full.
    #[error("the object store is full: {message}")]
    Full {
        /// Details from the object store.
        message: String,
    },
    /// The object store does not answer.
    #[error("the object store does not answer: {message}")]
    Unavailable {
        /// Details from the object store.
        message: String,
    },
}
