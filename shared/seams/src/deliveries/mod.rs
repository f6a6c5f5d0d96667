//! The ledger of verified deliveries: stored with their events before they are answered.
//!
//! A sender waits for [`accept`], so it writes little: one record that holds the delivery, its events and its body, one
//! index entry for the ledger and one for each undecided event. Both indexes have members that begin with the time, so
//! that new entries go to the end of what the store keeps in order.

use bytes::Bytes;
use gantry_domain::delivery::{Delivery, Verdict};
use gantry_domain::hook::Hook;
use gantry_domain::id::{DeliveryId, HookId};

use crate::codec::{self, Versioned};
use crate::retry::{self, Plan};
use crate::store::{Batch, CommitError, Key, Kind, Store, StoreError};
use crate::{decisions, events};

mod body;
mod ledger;

pub use body::{
    RemoveError, UnownedBody, announce_body, announced_before, body_blob_path, delete_packed_body,
    find_packed_body, put_body,
};
pub use ledger::{Ledger, MOST_READ, Page, Part, Place, forget_ledger, ledgers, list, older_than};
pub(crate) use ledger::{close_ledger, open_ledger, sortable};

/// A body of at least this size goes to the object store, and is announced first. In the store it would be read with
/// every page of the ledger, and Redis serves nobody while it writes a large value.
pub const LARGE_BODY: usize = 128 << 10;

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

fn key(hook: &HookId, id: &DeliveryId) -> Key {
    Key::new(Kind::Delivery, format_args!("{hook}/{id}"))
}

fn key_of(delivery: &Delivery) -> Key {
    key(&delivery.hook, &delivery.id)
}

/// A large body that the object store did not take.
fn body_key(delivery: &Delivery) -> Key {
    Key::new(Kind::DeliveryBody, format_args!("{}/{}", delivery.hook, delivery.id))
}

/// Stores a delivery, its events, and its body if that is not in the object store, in one commit. A second call with
/// the same id stores nothing new.
///
/// # Errors
/// [`StoreError`]: it was not accepted, and must not be answered as if it was.
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
                // It came before, with its events. Refused, it would block everything that its sender sends later.
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
        events::await_decision(&mut batch, &event, delivery.received, delivery.received);
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

/// The deliveries of this id that came by any of these hooks.
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
    let mut found = store.load(&[key_of(delivery), body_key(delivery)]).await?.into_iter();
    let (own, apart) = (found.next().flatten(), found.next().flatten());
    Ok(own.and_then(|record| codec::body_of(&record)).or_else(|| apart.map(|record| record.bytes)))
}

/// Takes the body of a delivery out of the store: it is in the object store now, or is not kept any longer. A second
/// call changes nothing, and neither does one for a delivery that was deleted.
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

/// Deletes a delivery with its events and what was decided for them, and answers whether it is gone: while one of its
/// events is undecided it stays.
///
/// # Errors
/// [`StoreError`].
pub async fn delete(store: &dyn Store, delivery: &Delivery) -> Result<bool, StoreError> {
    let mut batch = Batch::default();
    for event in delivery.event_ids() {
        if !decisions::is_settled(store, &event).await? {
            return Ok(false);
        }
        batch.delete.push(decisions::key(&event));
        events::close(&mut batch, &event, delivery.received);
    }
    batch.delete.push(key_of(delivery));
    batch.delete.push(body_key(delivery));
    ledger::leave(&mut batch, delivery);
    crate::collection::commit_unconditional(store, batch).await?;
    Ok(true)
}
