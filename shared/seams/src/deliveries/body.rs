//! Bodies in the object store: large ones from the beginning, all others once they are a day old.

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

/// Where the body of an old delivery is in the object store, gzip'd. `None` for a conflict, which has none of its own.
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

/// The body's hash and the time keep what comes later under the same delivery id from overwriting the body that was
/// accepted. All of it is hashed, because whoever may list the object store must not learn the addresses of hooks.
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

/// A body in the object store whose delivery was not accepted: it was announced, and may never have come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnownedBody {
    name: String,
}

impl UnownedBody {
    /// The body that `delivery` brought, unless it is the body of `stands`, the delivery of this id that was accepted.
    #[must_use]
    pub fn of(delivery: &Delivery, stands: &Delivery) -> Option<Self> {
        let name = blob_name(delivery);
        (name != blob_name(stands)).then_some(Self { name })
    }

    /// Removes it. A second call finds nothing to do.
    ///
    /// # Errors
    /// [`BlobError`], [`StoreError`]: it stays announced.
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
    /// The object store's reason.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// The store's reason.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Bodies that were announced before `before` and not accepted since, oldest first.
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

/// Puts the body of a delivery into the object store, gzip'd. A second call puts the same again.
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

/// Reads the body of a delivery from the object store, gzip'd; `None` if it has none there.
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

/// Removes the body of a delivery from the object store. A second call finds nothing to do.
///
/// # Errors
/// [`BlobError`].
pub async fn delete_packed_body(blobs: &dyn Blobs, delivery: &Delivery) -> Result<(), BlobError> {
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

/// The delivery is accepted, and owns what was announced for it.
pub(super) fn end_announcement(batch: &mut Batch, delivery: &Delivery) {
    batch.unindex(announced(), blob_name(delivery));
}

/// From the oldest, by the names of objects.
fn announced() -> Index {
    Index::new("deliveries/announced-bodies")
}
