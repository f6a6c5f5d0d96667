//! Bodies in the object store: large ones on arrival, all others when they are about a day old.

use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use gantry_domain::delivery::{Delivery, Verdict};
use gantry_domain::timestamp::Timestamp;
use sha2::{Digest as _, Sha256};

use crate::blobs::{BlobError, Blobs};
use crate::collection::commit_unconditional;
use crate::store::{Batch, From, Index, Store, StoreError};

/// The path of a delivery's compressed body in the object store; `None` for a conflict, whose body is not kept.
#[must_use]
pub fn body_blob_path(delivery: &Delivery) -> Option<String> {
    (delivery.verdict != Verdict::Conflict).then(|| own_blob_path(delivery))
}

fn own_blob_path(delivery: &Delivery) -> String {
    blob_path(&blob_name(delivery))
}

fn blob_path(name: &str) -> String {
    format!("deliveries/{name}")
}

/// The name depends on the body's hash and the time, so that a later request with the same delivery id cannot overwrite
/// the accepted body. It is hashed because a listing of the object store must not reveal the addresses of hooks.
fn blob_name(delivery: &Delivery) -> String {
    let Delivery { provider, hook, id, body_sha256: hash, received, .. } = delivery;
    let received = received.as_millis();
    hex::encode(Sha256::digest(format!("{provider}/{hook}/{id}/{hash}/{received}")))
}

/// Records that a large body is about to be put into the object store. If the process dies before the delivery is
/// accepted, [`announced_before`] still finds the body; [`super::accept`] ends the announcement.
///
/// # Errors
/// [`StoreError`].
pub async fn announce_body(store: &dyn Store, delivery: &Delivery) -> Result<(), StoreError> {
    let mut batch = Batch::default();
    batch.index(announced(), delivery.received.as_millis(), blob_name(delivery));
    commit_unconditional(store, batch).await
}

/// A body that was announced and whose delivery was not accepted. The object may not exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnownedBody {
    name: String,
}

impl UnownedBody {
    /// The body of `delivery`, unless it is the same object as that of `stands`, the accepted delivery with this id.
    #[must_use]
    pub fn of(delivery: &Delivery, stands: &Delivery) -> Option<Self> {
        let name = blob_name(delivery);
        (name != blob_name(stands)).then_some(Self { name })
    }

    /// Removes the body. A second call does nothing.
    ///
    /// # Errors
    /// [`RemoveError`]: the body stays announced.
    pub async fn remove(&self, store: &dyn Store, blobs: &dyn Blobs) -> Result<(), RemoveError> {
        blobs.delete(&blob_path(&self.name)).await?;
        let mut batch = Batch::default();
        batch.unindex(announced(), &self.name);
        Ok(commit_unconditional(store, batch).await?)
    }
}

/// Why a body was not removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// An error from the object store.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// An error from the store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Bodies that were announced before `before` and whose delivery is not accepted, oldest first.
///
/// # Errors
/// [`StoreError`].
pub async fn announced_before(
    store: &dyn Store,
    before: Timestamp,
    limit: usize,
) -> Result<Vec<UnownedBody>, StoreError> {
    let entries = store.range(&announced(), From::Start, limit).await?;
    Ok(entries
        .into_iter()
        .take_while(|entry| entry.score < before.as_millis())
        .map(|entry| UnownedBody { name: entry.member })
        .collect())
}

/// Compresses the body of a delivery with gzip and puts it into the object store. A second call writes the same again.
///
/// # Errors
/// [`BlobError`].
pub async fn put_body(
    blobs: &dyn Blobs,
    delivery: &Delivery,
    body: Bytes,
) -> Result<(), BlobError> {
    let Some(path) = body_blob_path(delivery) else { return Ok(()) };
    let packed = tokio::task::spawn_blocking(move || pack(&body)).await;
    match packed.map_err(std::io::Error::other).and_then(|packed| packed) {
        Ok(packed) => blobs.put(&path, packed).await,
        Err(source) => Err(BlobError::Source { path, source }),
    }
}

/// Reads the compressed body of a delivery from the object store; `None` if it is not there.
///
/// # Errors
/// [`BlobError`].
pub async fn find_packed_body(
    blobs: &dyn Blobs,
    delivery: &Delivery,
) -> Result<Option<Bytes>, BlobError> {
    let Some(path) = body_blob_path(delivery) else { return Ok(None) };
    match blobs.get(&path).await {
        Ok(packed) => Ok(Some(packed)),
        Err(BlobError::Absent { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes the body of a delivery from the object store. A second call does nothing.
///
/// # Errors
/// [`BlobError`].
pub(super) async fn delete_packed_body(
    blobs: &dyn Blobs,
    delivery: &Delivery,
) -> Result<(), BlobError> {
    match body_blob_path(delivery) {
        Some(path) => blobs.delete(&path).await,
        None => Ok(()),
    }
}

fn pack(body: &[u8]) -> std::io::Result<Bytes> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body)?;
    encoder.finish().map(Bytes::from)
}

/// Ends the announcement of a body: its delivery is accepted with this batch.
pub(super) fn end_announcement(batch: &mut Batch, delivery: &Delivery) {
    batch.unindex(announced(), blob_name(delivery));
}

/// The names of announced objects, oldest first.
fn announced() -> Index {
    Index::new("deliveries/announced-bodies")
}
