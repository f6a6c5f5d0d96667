//! Large bytes: uploaded contexts, log segments, old bodies.

use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use tokio::io::AsyncRead;

/// An object store.
#[async_trait]
pub trait Blobs: Send + Sync {
    /// Stores `bytes` whole under `path`, durably, over what was there.
    ///
    /// # Errors
    /// [`BlobError`].
    async fn put(&self, path: &str, bytes: Bytes) -> Result<(), BlobError>;

    /// Stores what `reader` gives, and tells how many bytes it was. Nothing appears under `path` before the end, and
    /// nothing at all when the reader fails or gives more than `most` bytes.
    ///
    /// # Errors
    /// [`BlobError`].
    async fn put_stream(
        &self,
        path: &str,
        reader: Pin<Box<dyn AsyncRead + Send>>,
        most: u64,
    ) -> Result<u64, BlobError>;

    /// All of it; for objects known to be small.
    ///
    /// # Errors
    /// [`BlobError`].
    async fn get(&self, path: &str) -> Result<Bytes, BlobError>;

    /// All of it, piece by piece.
    ///
    /// # Errors
    /// [`BlobError`].
    async fn get_stream(&self, path: &str) -> Result<Pin<Box<dyn AsyncRead + Send>>, BlobError>;

    /// Removes it; one that is not there is no error.
    ///
    /// # Errors
    /// [`BlobError`].
    async fn delete(&self, path: &str) -> Result<(), BlobError>;

    /// Removes everything whose path begins with `prefix` and a slash.
    ///
    /// # Errors
    /// [`BlobError`].
    async fn delete_all(&self, prefix: &str) -> Result<(), BlobError>;

    /// How many bytes are free where the objects are; `None` where nobody can tell, as of a bucket.
    async fn free_bytes(&self) -> Option<u64> {
        None
    }

    /// The paths of everything below `prefix`, or of everything if it is empty, in no order.
    ///
    /// # Errors
    /// [`BlobError::Refused`]; the rest comes with the paths.
    fn list(&self, prefix: &str) -> Result<Paths, BlobError>;
}

/// Paths of objects, one after the other.
pub type Paths = BoxStream<'static, Result<String, BlobError>>;

/// The object store as everyone holds it.
pub type SharedBlobs = Arc<dyn Blobs>;

/// The object store could not do it.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the fields without a comment explain themselves")]
pub enum BlobError {
    /// The path is not one of an object: plain names with single slashes between them.
    #[error(
        "`{path}` cannot be the path of an object: use plain names with single slashes between them"
    )]
    Refused { path: String },
    /// There is nothing under this path.
    #[error("there is no object {path}")]
    Absent { path: String },
    /// What was to be stored is larger than it may be.
    #[error("{path} is larger than {most} bytes")]
    TooLarge {
        path: String,
        /// What it may be.
        most: u64,
    },
    /// What was to be stored could not be read.
    #[error("what was to be stored as {path} broke off")]
    Source {
        path: String,
        /// What the reader said.
        source: std::io::Error,
    },
    /// It has no room.
    #[error("the object store is full: {message}")]
    Full {
        /// What it said.
        message: String,
    },
    /// It is away.
    #[error("the object store does not answer: {message}")]
    Unavailable {
        /// What it said.
        message: String,
    },
}
