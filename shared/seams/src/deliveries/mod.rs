//! Verified deliveries: each is stored with its events before it is answered.
//!
//! The sender waits for [`accept`], so it writes little: one record with the delivery, its events and its body, one
//! ledger entry, and one index entry for each undecided event. Members of both indexes begin with the time, so that new
//! entries are appended where the store keeps them sorted.

use bytes::Bytes;
use gantry_domain::delivery::{Delivery, Verdict};
use gantry_domain::hook::Hook;
use gantry_domain::id::{DeliveryId, HookId};

use crate::blobs::Blobs;
use crate::codec::{self, Versioned};
use crate::retry::{self, Plan};
use crate::store::{Batch, CommitError, Key, Kind, Store, StoreError};
use crate::{decisions, due};

mod body;
mod ledger;

pub use body::{
    RemoveError, UnownedBody, announce_body, announced_before, body_blob_path, find_packed_body,
    put_body,
};
pub use ledger::{Ledger, MOST_READ, Page, Part, Place, forget_ledger, ledgers, list, older_than};
pub(crate) use ledger::{close_ledger, open_ledger};

/// A body of at least this size goes to the object store, and is announced first. In the store, every page of the
/// ledger would read it, and Redis blocks all other clients while it writes a large value.
pub const LARGE_BODY: usize = 128 << 10;

/// The result of [`accept`].
#[derive(Debug, Clone, PartialEq)]
pub enum AcceptedDelivery {
    /// The delivery is new, and is stored with its events.
    New,
    /// It was accepted before, as this delivery.
    Repeat(Delivery),
    /// This delivery with the same id and another body was accepted before. It is unchanged, and the new one is
    /// recorded as a conflict.
    Conflict(Delivery),
}

fn key(hook: &HookId, id: &DeliveryId) -> Key {
    Key::new(Kind::Delivery, format_args!("{hook}/{id}"))
}

fn key_of(delivery: &Delivery) -> Key {
    key(&delivery.hook, &delivery.id)
}

/// The record of a large body that the object store did not accept.
fn body_key(delivery: &Delivery) -> Key {
    Key::new(Kind::DeliveryBody, format_args!("{}/{}", delivery.hook, delivery.id))
}

/// Stores a delivery, its events, and its body if that is not in the object store, in one commit. A second call with
/// the same id stores nothing new.
///
/// # Errors
/// [`StoreError`]: the delivery was not accepted, so its sender must get an error.
pub async fn accept(
    store: &dyn Store,
    delivery: &Delivery,
    body: Option<Bytes>,
) -> Result<AcceptedDelivery, StoreError> {
    match store.commit(acceptance(delivery, body)?).await {
        Ok(()) => Ok(AcceptedDelivery::New),
        Err(CommitError::Store(error)) => Err(error),
        Err(CommitError::Conflict { .. }) => {
            let earlier = match find(store, &delivery.hook, &delivery.id).await {
                // It was accepted before, with its events. An error would make the sender repeat it forever, and could
                // block later deliveries.
                Err(StoreError::Undecodable { .. }) => {
                    return Ok(AcceptedDelivery::Repeat(delivery.clone()));
                }
                earlier => earlier?,
            };
            let Some(earlier) = earlier else {
                return Err(StoreError::Unavailable {
                    message: format!("{} appeared and vanished", key_of(delivery)),
                });
            };
            if earlier.body_sha256 == delivery.body_sha256 {
                return Ok(AcceptedDelivery::Repeat(earlier));
            }
            record_conflict(store, delivery).await?;
            Ok(AcceptedDelivery::Conflict(earlier))
        }
    }
}

fn acceptance(delivery: &Delivery, body: Option<Bytes>) -> Result<Batch, StoreError> {
    let mut batch = Batch::default();
    let key = key_of(delivery);
    let is_large = body.as_ref().is_none_or(|body| body.len() >= LARGE_BODY);
    let part = if body.is_some() { Part::WithBody } else { Part::WithoutBody };
    ledger::enter(&mut batch, delivery, part);
    match body {
        Some(body) if !is_large => {
            batch.create(key.clone(), codec::encode_with_body(&key, delivery, &body)?);
        }
        body => {
            batch.create(key.clone(), codec::encode(&key, delivery)?);
            if let Some(body) = body {
                batch.put(body_key(delivery), body);
            }
            body::end_announcement(&mut batch, delivery);
        }
    }
    for event in delivery.event_ids() {
        due::await_decision(&mut batch, &event, delivery.received, delivery.received);
    }
    Ok(batch)
}

/// Records a conflicting delivery under its id and the start of its body's hash, so repetitions are recorded only once.
async fn record_conflict(store: &dyn Store, delivery: &Delivery) -> Result<(), StoreError> {
    let hash = delivery.body_sha256.get(..12).unwrap_or_default();
    let Ok(id) = format!("{}.conflict-{hash}", delivery.id).parse::<DeliveryId>() else {
        return Ok(());
    };
    let conflict =
        Delivery { id, verdict: Verdict::Conflict, meaning: Vec::new(), ..delivery.clone() };
    match store.commit(acceptance(&conflict, None)?).await {
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
    hook: &HookId,
    id: &DeliveryId,
) -> Result<Option<Delivery>, StoreError> {
    Ok(codec::load(store, &key(hook, id)).await?.map(|found| found.value))
}

/// The deliveries with this id to any of these hooks.
///
/// # Errors
/// [`StoreError`].
pub async fn with_id(
    store: &dyn Store,
    hooks: &[Hook],
    id: &DeliveryId,
) -> Result<Vec<Delivery>, StoreError> {
    let keys: Vec<Key> = hooks.iter().map(|hook| key(&hook.id, id)).collect();
    Ok(codec::load_all(store, &keys).await?.into_iter().map(|found| found.value).collect())
}

/// Reads a delivery's body from the store; `None` if it is in the object store, and for a conflict, whose body is not
/// kept.
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
    let mut found = store.load(&[key_of(delivery), body_key(delivery)]).await?.into_iter();
    let (own, apart) = (found.next().flatten(), found.next().flatten());
    Ok(own.and_then(|record| codec::body_of(&record)).or_else(|| apart.map(|record| record.bytes)))
}

/// Removes the body of a delivery from the store, after it was copied to the object store. A second call changes
/// nothing, and neither does a call for a deleted delivery.
///
/// # Errors
/// [`StoreError`].
pub async fn drop_body(store: &dyn Store, delivery: &Delivery) -> Result<(), StoreError> {
    let key = key_of(delivery);
    retry::commit(store, &key, || async {
        let found: Option<Versioned<Delivery>> = codec::load(store, &key).await?;
        let mut batch = Batch::default();
        let Some(found) = found else { return Ok(Plan::Answer(())) };
        found.replace_in(&mut batch, key.clone())?;
        batch.delete.push(body_key(delivery));
        ledger::lose_body(&mut batch, delivery);
        Ok(Plan::Commit(batch, ()))
    })
    .await
}

/// Deletes a delivery with its body, its events and what was decided for them. Returns whether it is gone: while one of
/// its events is undecided it stays, with its body.
///
/// # Errors
/// [`RemoveError`]: it stays, and a second call goes on.
pub async fn delete(
    store: &dyn Store,
    blobs: &dyn Blobs,
    delivery: &Delivery,
) -> Result<bool, RemoveError> {
    let mut batch = Batch::default();
    for event in delivery.event_ids() {
        if !decisions::is_settled(store, &event).await? {
            return Ok(false);
        }
        batch.delete.push(decisions::key(&event));
        due::close(&mut batch, &event, delivery.received);
    }
    // The object first: only the record names it.
    body::delete_packed_body(blobs, delivery).await?;
    batch.delete.push(key_of(delivery));
    batch.delete.push(body_key(delivery));
    ledger::leave(&mut batch, delivery);
    crate::collection::commit_unconditional(store, batch).await?;
    Ok(true)
}
