//! Objects in a directory or a bucket, through the `object_store` crate.

use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, TryStreamExt};
use gantry_seams::blobs::{BlobError, Blobs, Paths};
use object_store::path::Path as Location;
use object_store::{GetResultPayload, MultipartUpload, ObjectStore, ObjectStoreExt};
use tokio::io::{AsyncRead, AsyncReadExt, BufReader};
use tokio_util::io::StreamReader;
use tracing::warn;

use crate::error::blob_error;
use crate::storage_url::Cloud;

/// The part size of a multipart upload, in bytes: the minimum of S3.
const PIECE: u64 = 5 << 20;
/// The buffer size for reading a file, in bytes.
const READ: usize = 128 << 10;

/// An object store in a directory or a bucket.
#[derive(Debug, Clone)]
pub struct ObjectBlobs {
    pub(crate) store: Arc<dyn ObjectStore>,
    /// The location, for messages.
    pub(crate) place: String,
    pub(crate) cloud: Option<Cloud>,
}

impl ObjectBlobs {
    pub(crate) fn new(store: Arc<dyn ObjectStore>, place: String, cloud: Option<Cloud>) -> Self {
        Self { store, place, cloud }
    }
}

#[async_trait]
impl Blobs for ObjectBlobs {
    async fn put(&self, path: &str, bytes: Bytes) -> Result<(), BlobError> {
        let location = location(path)?;
        self.store.put(&location, bytes.into()).await.map_err(|error| blob_error(path, &error))?;
        Ok(())
    }

    async fn put_stream(
        &self,
        path: &str,
        reader: Pin<Box<dyn AsyncRead + Send>>,
        most: u64,
    ) -> Result<u64, BlobError> {
        let location = location(path)?;
        let mut pieces = Pieces { path, reader, most, total: 0 };
        let first = pieces.next().await?;
        if first.is_last {
            self.put(path, first.bytes).await?;
            return Ok(pieces.total);
        }
        let failed = |error| blob_error(path, &error);
        let mut upload = self.store.put_multipart(&location).await.map_err(failed)?;
        if let Err(error) = send(&mut *upload, first, &mut pieces).await {
            if let Err(abort) = upload.abort().await {
                warn!("the unfinished upload of {path} could not be removed: {abort}");
            }
            return Err(error);
        }
        upload.complete().await.map_err(failed)?;
        Ok(pieces.total)
    }

    async fn get(&self, path: &str) -> Result<Bytes, BlobError> {
        let location = location(path)?;
        let failed = |error| blob_error(path, &error);
        self.store.get(&location).await.map_err(failed)?.bytes().await.map_err(failed)
    }

    async fn get_range(&self, path: &str, range: Range<u64>) -> Result<Bytes, BlobError> {
        let location = location(path)?;
        self.store.get_range(&location, range).await.map_err(|error| blob_error(path, &error))
    }

    async fn get_stream(&self, path: &str) -> Result<Pin<Box<dyn AsyncRead + Send>>, BlobError> {
        let location = location(path)?;
        let found = self.store.get(&location).await.map_err(|error| blob_error(path, &error))?;
        Ok(match found.payload {
            // As a stream it would come in chunks of 8 KiB, each through another thread.
            GetResultPayload::File(file, _) => {
                Box::pin(BufReader::with_capacity(READ, tokio::fs::File::from_std(file)))
            }
            GetResultPayload::Stream(stream) => {
                Box::pin(StreamReader::new(stream.map_err(io::Error::other)))
            }
        })
    }

    async fn delete(&self, path: &str) -> Result<(), BlobError> {
        let location = location(path)?;
        deleted(path, self.store.delete(&location).await)
    }

    async fn delete_all(&self, prefix: &str) -> Result<(), BlobError> {
        let location = location(prefix)?;
        let found = self.store.list(Some(&location)).map_ok(|object| object.location).boxed();
        let mut removed = self.store.delete_stream(found);
        while let Some(result) = removed.next().await {
            deleted(prefix, result.map(drop))?;
        }
        Ok(())
    }

    async fn free_bytes(&self) -> Option<u64> {
        if self.cloud.is_some() {
            return None;
        }
        let stat = rustix::fs::statvfs(self.place.as_str()).ok()?;
        Some(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn list(&self, prefix: &str) -> Result<Paths, BlobError> {
        let location = if prefix.is_empty() { None } else { Some(location(prefix)?) };
        let prefix = prefix.to_owned();
        let found = self.store.list(location.as_ref());
        Ok(Box::pin(found.map(move |object| match object {
            Ok(object) => Ok(object.location.to_string()),
            Err(error) => Err(blob_error(&prefix, &error)),
        })))
    }
}

fn deleted(path: &str, result: object_store::Result<()>) -> Result<(), BlobError> {
    match result {
        Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
        Err(error) => Err(blob_error(path, &error)),
    }
}

/// Splits a reader into parts; all but the last have [`PIECE`] bytes.
struct Pieces<'a> {
    path: &'a str,
    reader: Pin<Box<dyn AsyncRead + Send>>,
    most: u64,
    /// The number of bytes read so far.
    total: u64,
}

struct Piece {
    bytes: Bytes,
    is_last: bool,
}

impl Pieces<'_> {
    /// Reads at most one byte more than allowed, to detect an object that is too large.
    async fn next(&mut self) -> Result<Piece, BlobError> {
        let path = self.path;
        let mut bytes = BytesMut::new();
        let mut piece =
            (&mut self.reader).take(PIECE.min((self.most - self.total).saturating_add(1)));
        while piece.limit() > 0 {
            bytes.reserve(READ);
            let read = piece.read_buf(&mut bytes).await;
            if read.map_err(|source| BlobError::Source { path: path.to_owned(), source })? == 0 {
                break;
            }
        }
        let is_last = piece.limit() > 0;
        self.total += bytes.len() as u64;
        if self.total > self.most {
            return Err(BlobError::TooLarge { path: path.to_owned(), most: self.most });
        }
        Ok(Piece { bytes: bytes.freeze(), is_last })
    }
}

/// Reads a part while the previous one is sent, so two are in memory.
async fn send(
    upload: &mut dyn MultipartUpload,
    first: Piece,
    pieces: &mut Pieces<'_>,
) -> Result<(), BlobError> {
    let mut piece = first;
    while !piece.is_last {
        let path = pieces.path;
        let sent = upload.put_part(piece.bytes.into());
        let sent = async { sent.await.map_err(|error| blob_error(path, &error)) };
        ((), piece) = tokio::try_join!(sent, pieces.next())?;
    }
    if !piece.bytes.is_empty() {
        let sent = upload.put_part(piece.bytes.into()).await;
        sent.map_err(|error| blob_error(pieces.path, &error))?;
    }
    Ok(())
}

/// The location of an object. Gantry makes all paths, so one that is not in normal form is refused.
fn location(path: &str) -> Result<Location, BlobError> {
    // In a directory, a name with `#` is an unfinished object.
    let plain = !path.starts_with('/') && !path.ends_with('/') && !path.contains('#');
    match Location::parse(path) {
        Ok(location) if plain && !location.as_ref().is_empty() => Ok(location),
        Ok(_) | Err(_) => Err(BlobError::Refused { path: path.to_owned() }),
    }
}
