//! The undecided events, ordered by when their decision is due.

use gantry_domain::id::EventId;
use gantry_domain::timestamp::Timestamp;

use crate::collection::commit_unconditional;
use crate::store::{Batch, From, Index, Store, StoreError};

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
    let entries = store.range(&index(), From::Start, limit).await?;
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
    batch.index(index(), due.as_millis(), member(event, received));
}

/// Removes an event from the undecided ones.
pub(crate) fn close(batch: &mut Batch, event: &EventId, received: Timestamp) {
    batch.unindex(index(), member(event, received));
}

/// Removes an event that is gone, decided or undecodable from the undecided ones, where every tick would read it again.
///
/// # Errors
/// [`StoreError`].
pub async fn set_aside(store: &dyn Store, due: &Due) -> Result<(), StoreError> {
    let mut batch = Batch::default();
    close(&mut batch, &due.event, due.received);
    commit_unconditional(store, batch).await
}

/// The time comes first, so that new members are next to each other in the store.
fn member(event: &EventId, received: Timestamp) -> String {
    format!("{}/{event}", sortable(received.as_millis()))
}

fn index() -> Index {
    Index::new("events/undecided")
}

/// Formats a time so that texts sort like the times, until the year 2286.
pub(crate) fn sortable(millis: i64) -> String {
    format!("{millis:013}")
}
