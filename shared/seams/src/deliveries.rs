//! The ledger of verified deliveries: stored with their events before they are answered.

use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use gantry_domain::delivery::{Delivery, Verdict};
use gantry_domain::event::Event;
use gantry_domain::hook::{Hook, Provider};
use gantry_domain::id::{DeliveryId, HookId, RunPrefix};
use gantry_domain::timestamp::Timestamp;
use sha2::{Digest as _, Sha256};

use crate::blobs::{BlobError, Blobs};
use crate::codec;
use crate::events;
use crate::store::{Batch, CommitError, Entry, From, Index, Key, Kind, Store, StoreError};

/// A body of at least this size goes to the object store, and is announced first: Redis serves nobody while it writes a
/// large value.
pub const LARGE_BODY: usize = 512 << 10;

/// The result of [`accept`].
#[derive(Debug, Clone, PartialEq)]
pub enum AcceptedDelivery {
    /// It is new, and stored with its events.
    New,
    /// The same delivery was accepted before, as this one.
    Repeat(Delivery),
    /// Another body was accepted under the same id before, as this one. It stands, and the new one is recorded as a
    /// conflict.
    Conflict(Delivery),
}

fn member(provider: Provider, hook: &HookId, id: &str) -> String {
    format!("{provider}/{hook}/{id}")
}

fn member_of(delivery: &Delivery) -> String {
    member(delivery.provider, &delivery.hook, delivery.id.as_str())
}

fn key(member: &str) -> Key {
    Key::new(Kind::Delivery, member)
}

fn body_key(member: &str) -> Key {
    Key::new(Kind::DeliveryBody, member)
}

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

/// Says that the large body of a delivery may come into the object store, before its first byte does. Should nobody
/// live to accept the delivery, [`announced_before`] tells of the body all the same; [`accept`] ends the announcement.
///
/// # Errors
/// [`StoreError`].
pub async fn announce_body(store: &dyn Store, delivery: &Delivery) -> Result<(), StoreError> {
    let mut batch = Batch::default();
    batch.index(announced(), delivery.received.as_millis(), blob_name(delivery));
    crate::collection::commit_unconditional(store, batch).await
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
        Ok(crate::collection::commit_unconditional(store, batch).await?)
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

/// Stores a delivery, its body if it is not in the object store, and its events in one commit. A second call with the
/// same id stores nothing new.
///
/// # Errors
/// [`StoreError`]: it was not accepted, and must not be answered as if it was.
pub async fn accept(
    store: &dyn Store,
    delivery: &Delivery,
    body: Option<Bytes>,
    events: &[Event],
) -> Result<AcceptedDelivery, StoreError> {
    let member = member_of(delivery);
    match store.commit(acceptance(&member, delivery, body, events)?).await {
        Ok(()) => Ok(AcceptedDelivery::New),
        Err(CommitError::Store(error)) => Err(error),
        Err(CommitError::Conflict { .. }) => {
            let earlier = match codec::load::<Delivery>(store, &key(&member)).await {
                // It came before, with its events: refused, it would stand in the way of all that its sender says
                // later.
                Err(StoreError::Undecodable { .. }) => {
                    return Ok(AcceptedDelivery::Repeat(delivery.clone()));
                }
                earlier => earlier?,
            };
            let Some(earlier) = earlier else {
                return Err(StoreError::Unavailable {
                    message: format!("delivery {member} appeared and vanished"),
                });
            };
            let earlier = earlier.value;
            if earlier.body_sha256 == delivery.body_sha256 {
                return Ok(AcceptedDelivery::Repeat(earlier));
            }
            record_conflict(store, delivery).await?;
            Ok(AcceptedDelivery::Conflict(earlier))
        }
    }
}

fn acceptance(
    member: &str,
    delivery: &Delivery,
    body: Option<Bytes>,
    events: &[Event],
) -> Result<Batch, StoreError> {
    let mut batch = Batch::default();
    let key = key(member);
    batch.create(key.clone(), codec::encode(&key, delivery)?);
    let received = delivery.received.as_millis();
    let was_announced = body.as_ref().is_none_or(|body| body.len() >= LARGE_BODY);
    match body {
        Some(body) => {
            batch.put(body_key(member), body);
            batch.index(with_body(), received, member);
        }
        None => batch.index(without_body(), received, member),
    }
    if was_announced {
        batch.unindex(announced(), blob_name(delivery));
    }
    for list in lists_of(delivery) {
        batch.index(list.index(), -received, member);
    }
    for event in events {
        events::record(&mut batch, event)?;
    }
    Ok(batch)
}

/// Records a conflicting delivery under its id and the beginning of its body's hash: once, however often it comes.
async fn record_conflict(store: &dyn Store, delivery: &Delivery) -> Result<(), StoreError> {
    let hash = delivery.body_sha256.get(..12).unwrap_or_default();
    let Ok(id) = format!("{}.conflict-{hash}", delivery.id).parse::<DeliveryId>() else {
        return Ok(());
    };
    let conflict =
        Delivery { id, verdict: Verdict::Conflict, events: Vec::new(), ..delivery.clone() };
    let member = member_of(&conflict);
    match store.commit(acceptance(&member, &conflict, None, &[])?).await {
        Ok(()) | Err(CommitError::Conflict { .. }) => Ok(()),
        Err(CommitError::Store(error)) => Err(error),
    }
}

/// Reads a delivery.
///
/// # Errors
/// [`StoreError`].
pub async fn find(
    store: &dyn Store,
    provider: Provider,
    hook: &HookId,
    id: &DeliveryId,
) -> Result<Option<Delivery>, StoreError> {
    let member = member(provider, hook, id.as_str());
    Ok(codec::load(store, &key(&member)).await?.map(|found| found.value))
}

/// The deliveries of this id that came by any of these hooks.
///
/// # Errors
/// [`StoreError`].
pub async fn with_id(
    store: &dyn Store,
    hooks: &[Hook],
    id: &DeliveryId,
) -> Result<Vec<Delivery>, StoreError> {
    let keys: Vec<Key> =
        hooks.iter().map(|hook| key(&member(hook.provider, &hook.id, id.as_str()))).collect();
    Ok(codec::load_all(store, &keys).await?.into_iter().map(|found| found.value).collect())
}

/// Reads a delivery's body while it is in the store; `None` once it moved to the object store, and for a conflict,
/// which has none.
///
/// # Errors
/// [`StoreError`].
pub async fn find_body(
    store: &dyn Store,
    delivery: &Delivery,
) -> Result<Option<Bytes>, StoreError> {
    if delivery.verdict == Verdict::Conflict {
        return Ok(None);
    }
    let found = store.load(&[body_key(&member_of(delivery))]).await?.pop().flatten();
    Ok(found.map(|record| record.bytes))
}

/// A list of deliveries, from the newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum List<'a> {
    /// Of the installation.
    All,
    /// Of the registry of this prefix.
    Registry(RunPrefix),
    /// Of one hook.
    Hook(&'a HookId),
}

impl List<'_> {
    fn index(self) -> Index {
        match self {
            Self::All => Index::new("deliveries/all"),
            Self::Registry(registry) => Index::new(format!("deliveries/registry/{registry}")),
            Self::Hook(hook) => Index::new(format!("deliveries/hook/{hook}")),
        }
    }
}

/// Every list that has the delivery.
fn lists_of(delivery: &Delivery) -> [List<'_>; 3] {
    [List::All, List::Registry(delivery.prefix), List::Hook(&delivery.hook)]
}

/// Deliveries of these lists from the newest, after `after`. The lists must not overlap.
///
/// # Errors
/// [`StoreError`].
pub async fn list(
    store: &dyn Store,
    lists: &[List<'_>],
    after: Option<&Delivery>,
    limit: usize,
) -> Result<Vec<Delivery>, StoreError> {
    let indexes: Vec<Index> = lists.iter().map(|list| list.index()).collect();
    let from = after.map_or(From::Start, |delivery| {
        let score = -delivery.received.as_millis();
        From::After(Entry { score, member: member_of(delivery) })
    });
    codec::load_merged(store, &indexes, from, limit, |entry| Some(key(&entry.member))).await
}

/// Deliveries whose body came before `before` and is still in the store, oldest first.
///
/// # Errors
/// [`StoreError`].
pub async fn with_body_before(
    store: &dyn Store,
    before: Timestamp,
    limit: usize,
) -> Result<Vec<Delivery>, StoreError> {
    let mut entries = store.range(&with_body(), From::Start, limit).await?;
    entries.retain(|entry| entry.score < before.as_millis());
    load(store, entries).await
}

/// The body of a delivery stands in the object store now, or is not kept any longer.
///
/// # Errors
/// [`StoreError`].
pub async fn drop_body(store: &dyn Store, delivery: &Delivery) -> Result<(), StoreError> {
    let member = member_of(delivery);
    let mut batch = Batch::default();
    batch.delete.push(body_key(&member));
    batch.unindex(with_body(), &member);
    batch.index(without_body(), delivery.received.as_millis(), &member);
    crate::collection::commit_unconditional(store, batch).await
}

/// Deliveries without body that came before `before`, oldest first.
///
/// # Errors
/// [`StoreError`].
pub async fn without_body_before(
    store: &dyn Store,
    before: Timestamp,
    limit: usize,
) -> Result<Vec<Delivery>, StoreError> {
    let mut entries = store.range(&without_body(), From::Start, limit).await?;
    entries.retain(|entry| entry.score < before.as_millis());
    load(store, entries).await
}

/// Forgets a delivery.
///
/// # Errors
/// [`StoreError`].
pub async fn delete(store: &dyn Store, delivery: &Delivery) -> Result<(), StoreError> {
    let member = member_of(delivery);
    let mut batch = Batch::default();
    batch.delete.push(key(&member));
    batch.delete.push(body_key(&member));
    let lists = lists_of(delivery).map(List::index);
    for index in lists.into_iter().chain([with_body(), without_body()]) {
        batch.unindex(index, &member);
    }
    crate::collection::commit_unconditional(store, batch).await
}

async fn load(store: &dyn Store, entries: Vec<Entry>) -> Result<Vec<Delivery>, StoreError> {
    let keys: Vec<Key> = entries.iter().map(|entry| key(&entry.member)).collect();
    Ok(codec::load_all(store, &keys).await?.into_iter().map(|found| found.value).collect())
}

/// From the oldest.
fn with_body() -> Index {
    Index::new("deliveries/with-body")
}

/// From the oldest, by the names of objects.
fn announced() -> Index {
    Index::new("deliveries/announced-bodies")
}

/// From the oldest.
fn without_body() -> Index {
    Index::new("deliveries/without-body")
}
