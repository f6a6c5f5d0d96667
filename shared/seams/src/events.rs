//! Events: recorded undecided, decided once.

use std::time::Duration;

use gantry_domain::event::Event;
use gantry_domain::id::{EventId, TaskId};
use gantry_domain::timestamp::Timestamp;
use serde::{Deserialize, Serialize};

use crate::codec::{self, Versioned};
use crate::store::{Batch, CommitError, From, Index, Key, Kind, Store, StoreError};

/// An event and the progress of its decision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecordedEvent {
    /// The event.
    #[serde(flatten)]
    pub event: Event,
    /// How often its decision was postponed because the code host did not answer.
    #[serde(default)]
    pub tries: u32,
    /// The last candidate task that was decided, if they do not fit one commit: the next commit continues after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<TaskId>,
}

pub(crate) fn key(event: &EventId) -> Key {
    Key::new(Kind::Event, event)
}

/// Adds a new, undecided event to a batch.
pub(crate) fn record(batch: &mut Batch, event: &Event) -> Result<(), StoreError> {
    record_in(batch, event)?;
    batch.index(undecided_index(), event.received.as_millis(), &event.id);
    Ok(())
}

/// Adds an event that is decided in the same batch.
pub(crate) fn record_decided(batch: &mut Batch, event: &Event) -> Result<(), StoreError> {
    record_in(batch, event)
}

fn record_in(batch: &mut Batch, event: &Event) -> Result<(), StoreError> {
    let key = key(&event.id);
    let recorded = RecordedEvent { event: event.clone(), tries: 0, cursor: None };
    batch.create(key.clone(), codec::encode(&key, &recorded)?);
    batch.index(by_age(), event.received.as_millis(), &event.id);
    Ok(())
}

/// Records an undecided event of gantry's own, like a moved base image. Returns `false` if it is recorded already.
///
/// # Errors
/// [`StoreError`].
pub async fn notice(store: &dyn Store, event: &Event) -> Result<bool, StoreError> {
    let mut batch = Batch::default();
    record(&mut batch, event)?;
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
pub async fn find(
    store: &dyn Store,
    event: &EventId,
) -> Result<Option<Versioned<RecordedEvent>>, StoreError> {
    codec::load(store, &key(event)).await
}

/// Undecided events that are due at `now`, oldest first.
///
/// # Errors
/// [`StoreError`].
pub async fn undecided(
    store: &dyn Store,
    now: Timestamp,
    limit: usize,
) -> Result<Vec<EventId>, StoreError> {
    let entries = store.range(&undecided_index(), From::Start, limit).await?;
    Ok(entries
        .into_iter()
        .take_while(|entry| entry.score <= now.as_millis())
        .filter_map(|entry| entry.member.parse().ok())
        .collect())
}

/// Marks an event as decided. The batch conflicts if the event has changed since it was found.
pub(crate) fn close(batch: &mut Batch, found: &Versioned<RecordedEvent>) {
    let event = &found.value.event.id;
    batch.expect.push((key(event), crate::store::Expect::Version(found.version)));
    batch.unindex(undecided_index(), event);
}

/// Marks an event as decided up to a candidate. The batch conflicts if the event has changed since it was found.
pub(crate) fn move_cursor(
    batch: &mut Batch,
    found: &Versioned<RecordedEvent>,
    last: TaskId,
) -> Result<(), StoreError> {
    let mut next = found.clone();
    next.value.cursor = Some(last);
    next.replace_in(batch, key(&found.value.event.id))
}

/// Postpones an event for `pause`, since the code host did not answer. If another scheduler decides it meanwhile, that
/// decision stands.
///
/// # Errors
/// [`StoreError`].
pub async fn put_off(
    store: &dyn Store,
    found: &Versioned<RecordedEvent>,
    pause: Duration,
) -> Result<(), StoreError> {
    let mut next = found.clone();
    next.value.tries += 1;
    let event = &found.value.event.id;
    let mut batch = Batch::default();
    next.replace_in(&mut batch, key(event))?;
    // The score is the time from which the event is due: postponing it moves it behind those that are due now.
    batch.index(undecided_index(), store.now().await?.after(pause).as_millis(), event);
    match store.commit(batch).await {
        Ok(()) | Err(CommitError::Conflict { .. }) => Ok(()),
        Err(CommitError::Store(error)) => Err(error),
    }
}

/// Removes an event that does not decode from the undecided ones, where it would be read again on every tick.
///
/// # Errors
/// [`StoreError`].
pub async fn set_aside(store: &dyn Store, event: &EventId) -> Result<(), StoreError> {
    let mut batch = Batch::default();
    batch.unindex(undecided_index(), event);
    crate::collection::commit_unconditional(store, batch).await
}

fn undecided_index() -> Index {
    Index::new("events/undecided")
}

/// Every event, oldest first.
pub(crate) fn by_age() -> Index {
    Index::new("events/age")
}
