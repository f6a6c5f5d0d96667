//! Events: each is recorded as undecided and decided once.
//!
//! The events of a delivery are stored in its record, and are found there by their ids; any other event has a record of
//! its own. Events never change: the state of their decision is in [`crate::decisions`].

use gantry_domain::event::Event;
use gantry_domain::id::EventId;
use gantry_domain::timestamp::Timestamp;

use crate::codec::{self, Versioned};
use crate::decisions::{self, Undecided};
use crate::store::{Batch, From, Index, Key, Kind, Store, StoreError};
use crate::{deliveries, due, retry};

fn key(event: &EventId) -> Key {
    Key::new(Kind::Event, event)
}

/// Adds an event to a batch; for events that are not from a delivery.
pub(crate) fn record(batch: &mut Batch, event: &Event) -> Result<(), StoreError> {
    let key = key(&event.id);
    batch.create(key.clone(), codec::encode(&key, event)?);
    batch.index(by_age(), event.received.as_millis(), &event.id);
    Ok(())
}

/// Like [`record`], for an event that is still to be decided.
pub(crate) fn record_undecided(batch: &mut Batch, event: &Event) -> Result<(), StoreError> {
    record(batch, event)?;
    due::await_decision(batch, &event.id, event.received, event.received);
    Ok(())
}

/// Adds to a batch an undecided event that gantry itself observed, together with what it is about.
///
/// # Errors
/// [`StoreError`].
pub fn observe(batch: &mut Batch, event: &Event) -> Result<(), StoreError> {
    record_undecided(batch, event)
}

/// Records an undecided event that gantry itself observed, like a moved base image. Returns `false` if it is already
/// recorded.
///
/// # Errors
/// [`StoreError`].
pub async fn notice(store: &dyn Store, event: &Event) -> Result<bool, StoreError> {
    let mut batch = Batch::default();
    record_undecided(&mut batch, event)?;
    retry::once(store, batch).await
}

/// Reads an event.
///
/// # Errors
/// [`StoreError`].
pub async fn find(store: &dyn Store, id: &EventId) -> Result<Option<Event>, StoreError> {
    if let Some((hook, delivery, place)) = id.delivery()
        && let Some(delivery) = deliveries::find(store, &hook, &delivery).await?
    {
        return Ok(delivery.events().nth(place));
    }
    Ok(codec::load(store, &key(id)).await?.map(|found: Versioned<Event>| found.value))
}

/// Reads an event that is still to be decided; `None` if it is gone or decided.
///
/// # Errors
/// [`StoreError`].
pub async fn find_undecided(
    store: &dyn Store,
    id: &EventId,
) -> Result<Option<Undecided>, StoreError> {
    let (event, so_far) = tokio::try_join!(find(store, id), decisions::load(store, id))?;
    Ok(event.and_then(|event| Undecided::of(event, so_far)))
}

/// Deletes up to `limit` decided events that are older than `before`, with their decisions, and returns how many.
/// Events of deliveries are not included: [`crate::deliveries::delete`] deletes those.
///
/// # Errors
/// [`StoreError`].
pub async fn forget(
    store: &dyn Store,
    before: Timestamp,
    limit: usize,
) -> Result<usize, StoreError> {
    let entries = store.range(&by_age(), From::Start, limit).await?;
    let mut batch = Batch::default();
    let mut count = 0;
    for entry in entries.iter().take_while(|entry| entry.score < before.as_millis()) {
        let Ok(event) = entry.member.parse::<EventId>() else {
            continue;
        };
        if !decisions::is_settled(store, &event).await? {
            continue;
        }
        batch.delete.push(key(&event));
        batch.delete.push(decisions::key(&event));
        batch.unindex(by_age(), &event);
        count += 1;
    }
    if !batch.is_empty() {
        crate::collection::commit_unconditional(store, batch).await?;
    }
    Ok(count)
}

/// All events with a record of their own, oldest first.
fn by_age() -> Index {
    Index::new("events/age")
}
