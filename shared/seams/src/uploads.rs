//! Uploaded archives: who uploaded them, and how long they are kept. Their bytes are in the object store.

use gantry_domain::id::{RegistryName, TokenId, UploadId};
use gantry_domain::image::Digest;
use gantry_domain::timestamp::Timestamp;
use serde::{Deserialize, Serialize};

use crate::collection::{Collection, CreateError, commit_unconditional};
use crate::store::{Batch, From, Index, Kind, Store, StoreError};

const ALL: Collection<Upload> = Collection::new(Kind::Upload);

/// How many index entries are read at once to add up sizes.
const PAGE: usize = 1000;

/// An uploaded archive.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Upload {
    /// Random and not guessable.
    pub id: UploadId,
    /// The registry whose runs may read it.
    pub registry: RegistryName,
    /// The token it was uploaded with.
    pub by: TokenId,
    /// Its length in bytes.
    pub bytes: u64,
    /// The digest of its bytes.
    pub digest: Digest,
    /// When it was uploaded.
    pub created: Timestamp,
}

/// The path of an upload's bytes in the object store.
#[must_use]
pub fn blob_path(id: &UploadId) -> String {
    format!("uploads/{id}")
}

/// An upload that takes up room. It may have no record, if it was announced but not completed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields without a comment explain themselves")]
pub struct Kept {
    /// The registry whose room it takes.
    pub registry: RegistryName,
    pub id: UploadId,
}

/// Announces up to `bytes` under this id before any of them are stored, so that [`older_than`] finds the upload even if
/// the process dies before it records or removes it. A second call raises the announced size. Returns the bytes of all
/// uploads of the registry, with this one.
///
/// # Errors
/// [`StoreError`].
pub async fn announce(
    store: &dyn Store,
    kept: &Kept,
    bytes: u64,
    now: Timestamp,
) -> Result<u64, StoreError> {
    let mut batch = Batch::default();
    kept.index_in(&mut batch, bytes, now);
    commit_unconditional(store, batch).await?;
    // Read after the write: of two concurrent uploads, at least the later one counts both.
    bytes_of(store, &kept.registry).await
}

/// The bytes of all uploads of a registry, with the announced ones.
///
/// # Errors
/// [`StoreError`].
pub async fn bytes_of(store: &dyn Store, registry: &RegistryName) -> Result<u64, StoreError> {
    let (mut total, mut from) = (0, From::Start);
    loop {
        let entries = store.range(&of_registry(registry), from, PAGE).await?;
        total += entries.iter().map(|entry| entry.score.unsigned_abs()).sum::<u64>();
        match entries.into_iter().nth(PAGE - 1) {
            Some(last) => from = From::After(last),
            None => return Ok(total),
        }
    }
}

/// Records an upload whose bytes are stored.
///
/// # Errors
/// [`CreateError::Exists`].
pub async fn create(store: &dyn Store, upload: &Upload) -> Result<(), CreateError> {
    let mut batch = Batch::default();
    ALL.create_in(&mut batch, upload.id.as_str(), upload)?;
    let kept = Kept { registry: upload.registry.clone(), id: upload.id.clone() };
    kept.index_in(&mut batch, upload.bytes, upload.created);
    Ok(store.commit(batch).await?)
}

/// Adds to the batch that a run builds from an upload, which is then kept as long as used uploads are.
pub(crate) fn used_in(batch: &mut Batch, registry: &RegistryName, id: &UploadId) {
    let kept = Kept { registry: registry.clone(), id: id.clone() };
    batch.unindex(unused(), kept.member());
}

/// Reads an upload's record.
///
/// # Errors
/// [`StoreError`].
pub async fn find(store: &dyn Store, id: &UploadId) -> Result<Option<Upload>, StoreError> {
    ALL.find(store, id.as_str()).await
}

/// Uploads recorded or announced before `before`, oldest first.
///
/// # Errors
/// [`StoreError`].
pub async fn older_than(
    store: &dyn Store,
    before: Timestamp,
    limit: usize,
) -> Result<Vec<Kept>, StoreError> {
    oldest(store, &by_age(), before, limit).await
}

/// Like [`older_than`], for uploads that no run was started from.
///
/// # Errors
/// [`StoreError`].
pub async fn unused_since(
    store: &dyn Store,
    before: Timestamp,
    limit: usize,
) -> Result<Vec<Kept>, StoreError> {
    oldest(store, &unused(), before, limit).await
}

async fn oldest(
    store: &dyn Store,
    index: &Index,
    before: Timestamp,
    limit: usize,
) -> Result<Vec<Kept>, StoreError> {
    let entries = store.range(index, From::Start, limit).await?;
    Ok(entries
        .into_iter()
        .take_while(|entry| entry.score < before.as_millis())
        .filter_map(|entry| Kept::parse(&entry.member))
        .collect())
}

/// Removes an upload's record and index entries, once its bytes are removed or never arrived.
///
/// # Errors
/// [`StoreError`].
pub async fn delete(store: &dyn Store, kept: &Kept) -> Result<(), StoreError> {
    let mut batch = Batch::default();
    ALL.delete_in(&mut batch, kept.id.as_str());
    for index in [by_age(), unused()] {
        batch.unindex(index, kept.member());
    }
    batch.unindex(of_registry(&kept.registry), &kept.id);
    commit_unconditional(store, batch).await
}

impl Kept {
    fn member(&self) -> String {
        format!("{}/{}", self.registry, self.id)
    }

    fn parse(member: &str) -> Option<Self> {
        let (registry, id) = member.split_once('/')?;
        Some(Self { registry: registry.parse().ok()?, id: id.parse().ok()? })
    }

    fn index_in(&self, batch: &mut Batch, bytes: u64, since: Timestamp) {
        for index in [by_age(), unused()] {
            batch.index(index, since.as_millis(), self.member());
        }
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        batch.index(of_registry(&self.registry), bytes, &self.id);
    }
}

fn by_age() -> Index {
    Index::new("uploads/age")
}

/// Uploads that no run was started from, scored by age.
fn unused() -> Index {
    Index::new("uploads/unused")
}

/// Scored by length in bytes.
fn of_registry(registry: &RegistryName) -> Index {
    Index::new(format!("uploads/registry/{registry}"))
}
