//! Events: recorded undecided, decided once.
//!
//! An event of a delivery is in the delivery's record, and found by its id; any other has a record of its own. Neither
//! changes: what its decision has come to is in [`crate::decisions`].

use gantry_domain::event::Event;
use gantry_domain::id::EventId;
use gantry_domain::timestamp::Timestamp;

use crate::codec::{self, Versioned};
use crate::deliveries::{self, sortable};
use crate::store::{Batch, CommitError, From, Index, Key, Kind, Store, StoreError};

pub(crate) fn key(event: &EventId) -> Key {
    Key::new(Kind::Event, event)
}

/// Adds an event that no delivery brought to a batch.
pub(crate) fn record(batch: &mut Batch, event: &Event) -> Result<(), StoreError> {
    let key = key(&event.id);
    batch.create(key.clone(), codec::encode(&key, event)?);
    batch.index(by_age(), event.received.as_millis(), &event.id);
    Ok(())
}

/// The same, of one that is to be decided.
pub(crate) fn record_undecided(batch: &mut Batch, event: &Event) -> Result<(), StoreError> {
    record(batch, event)?;
    await_decision(batch, &event.id, event.received, event.received);
    Ok(())
}

/// Records an undecided event of gantry's own, like a moved base image. Returns `false` if it is recorded already.
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

/// An event is to be decided at `due` or later. One that was to be decided already moves there.
pub(crate) fn await_decision(
    batch: &mut Batch,
    event: &EventId,
    received: Timestamp,
    due: Timestamp,
) {
    batch.index(undecided_index(), due.as_millis(), member(event, received));
}

/// An event is not to be decided any more.
pub(crate) fn close(batch: &mut Batch, event: &EventId, received: Timestamp) {
    batch.unindex(undecided_index(), member(event, received));
}

/// Removes an event from the undecided ones that is gone, decided or does not decode. It would be read again with every
/// tick.
///
/// # Errors
/// [`StoreError`].
pub async fn set_aside(store: &dyn Store, due: &Due) -> Result<(), StoreError> {
    let mut batch = Batch::default();
    close(&mut batch, &due.event, due.received);
    crate::collection::commit_unconditional(store, batch).await
}

/// The time comes first so that new members are neighbours in the store.
fn member(event: &EventId, received: Timestamp) -> String {
    format!("{}/{event}", sortable(received.as_millis()))
}

fn undecided_index() -> Index {
    Index::new("events/undecided")
}

/// Every event that has a record of its own, oldest first.
pub(crate) fn by_age() -> Index {
    Index::new("events/age")
}
