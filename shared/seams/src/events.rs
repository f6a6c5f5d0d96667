//! Events: each is recorded as undecided and decided once.
//!
//! The events of a delivery are stored in its record, and are found there by their ids; any other event has a record of
//! its own. Events never change: the state of their decision is in [`crate::decisions`].

use gantry_domain::event::Event;
use gantry_domain::id::EventId;
use gantry_domain::timestamp::Timestamp;

use crate::codec::{self, Versioned};
use crate::deliveries::{self, sortable};
use crate::store::{Batch, CommitError, From, Index, Key, Kind, Store, StoreError};

pub(crate) fn key(event: &EventId) -> Key {
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
    await_decision(batch, &event.id, event.received, event.received);
    Ok(())
}

/// Records an undecided event that gantry itself observed, like a moved base image. Returns `false` if it is already
/// recorded.
///
/// # Errors
/// [`StoreError`].
pub async fn notice(store: &dyn Store, event: &Event) -> Result<bool, StoreError> {
    let mut batch = Batch::default();
    record_undecided(&mut batch, event)?;
    match store.commit(batch).await {
        Ok(()) => Ok(true),
        Err(CommitError::Conflict { .. }) => Ok(false),
        Err(CommitError::Store(error)) => Err(error),
    }
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

/// An undecided event that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// The event.
    pub event: EventId,
    received: Timestamp,
}

/// Undecided events that are due at `now`, oldest first.
///
/// # Errors
/// [`StoreError`].
pub async fn undecided(
    store: &dyn Store,
    now: Timestamp,
    limit: usize,
) -> Result<Vec<Due>, StoreError> {
    let entries = store.range(&undecided_index(), From::Start, limit).await?;
    Ok(entries
        .into_iter()
        .take_while(|entry| entry.score <= now.as_millis())
        .filter_map(|entry| {
            let (received, event) = entry.member.split_once('/')?;
            let received = Timestamp::from_millis(received.parse().ok()?);
            Some(Due { event: event.parse().ok()?, received })
        })
        .collect())
}

/// Schedules an event's decision at `due` or later. An earlier schedule is replaced.
pub(crate) fn await_decision(
    batch: &mut Batch,
    event: &EventId,
    received: Timestamp,
    due: Timestamp,
) {
    batch.index(undecided_index(), due.as_millis(), member(event, received));
}

/// Removes an event from the undecided ones.
pub(crate) fn close(batch: &mut Batch, event: &EventId, received: Timestamp) {
    batch.unindex(undecided_index(), member(event, received));
}

/// Removes an event that is gone, decided or undecodable from the undecided ones, where every tick would read it again.
///
/// # Errors
/// [`StoreError`].
pub async fn set_aside(store: &dyn Store, due: &Due) -> Result<(), StoreError> {
    let mut batch = Batch::default();
    close(&mut batch, &due.event, due.received);
    crate::collection::commit_unconditional(store, batch).await
}

/// The time comes first, so that new members are next to each other in the store.
fn member(event: &EventId, received: Timestamp) -> String {
    format!("{}/{event}", sortable(received.as_millis()))
}

fn undecided_index() -> Index {
    Index::new("events/undecided")
}

/// All events with a record of their own, oldest first.
pub(crate) fn by_age() -> Index {
    Index::new("events/age")
}
