//! Uploaded archives: who brought them, and until when they are kept. Their bytes are in the object store.

use gantry_domain::id::{RegistryName, TokenId, UploadId};
use gantry_domain::image::Digest;
use gantry_domain::timestamp::Timestamp;
use serde::{Deserialize, Serialize};

use crate::collection::{Collection, CreateError, commit_unconditional};
use crate::store::{Batch, From, Index, Kind, Store, StoreError};

const ALL: Collection<Upload> = Collection::new(Kind::Upload);

/// An uploaded archive.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Upload {
    /// Unguessable.
    pub id: UploadId,
    /// The registry whose runs may read it.
    pub registry: RegistryName,
    /// With which token it came.
    pub by: TokenId,
    /// Its length in bytes.
    pub bytes: u64,
    /// Of its bytes.
    pub digest: Digest,
    /// When it came.
    pub created: Timestamp,
}

/// Where an upload's bytes are in the object store.
#[must_use]
pub fn blob_path(id: &UploadId) -> String {
    format!("uploads/{id}")
}

/// Says that bytes are about to come under this id, before the first of them is stored: should nobody live to record the
/// upload, or to remove what came of it, [`older_than`] tells of it all the same.
///
/// # Errors
/// [`StoreError`].
pub async fn announce(store: &dyn Store, id: &UploadId, now: Timestamp) -> Result<(), StoreError> {
    let mut batch = Batch::default();
    batch.index(by_age(), now.as_millis(), id);
    commit_unconditional(store, batch).await
}

/// Records an upload whose bytes are there.
///
/// # Errors
/// [`CreateError::Exists`].
pub async fn create(store: &dyn Store, upload: &Upload) -> Result<(), CreateError> {
    let mut batch = Batch::default();
    ALL.create_in(&mut batch, upload.id.as_str(), upload)?;
    batch.index(by_age(), upload.created.as_millis(), &upload.id);
    Ok(store.commit(batch).await?)
}

/// Reads an upload's record.
///
/// # Errors
/// [`StoreError`].
pub async fn find(store: &dyn Store, id: &UploadId) -> Result<Option<Upload>, StoreError> {
    ALL.find(store, id.as_str()).await
}

/// Uploads that came, or were to come, before `before`, oldest first.
///
/// # Errors
/// [`StoreError`].
pub async fn older_than(
    store: &dyn Store,
    before: Timestamp,
    limit: usize,
) -> Result<Vec<UploadId>, StoreError> {
    let entries = store.range(&by_age(), From::Start, limit).await?;
    Ok(entries
        .into_iter()
        .take_while(|entry| entry.score < before.as_millis())
        .filter_map(|entry| entry.member.parse().ok())
        .collect())
}

/// Forgets an upload whose bytes were removed, or never came.
///
/// # Errors
/// [`StoreError`].
pub async fn delete(store: &dyn Store, id: &UploadId) -> Result<(), StoreError> {
    let mut batch = Batch::default();
    ALL.delete_in(&mut batch, id.as_str());
    batch.unindex(by_age(), id);
    commit_unconditional(store, batch).await
}

fn by_age() -> Index {
    Index::new("uploads/age")
}
