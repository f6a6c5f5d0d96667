//! Decisions: one for each event, with its reasons.
//!
//! The record of a decision also holds its progress, so all schedulers that decide an event write the same record: of
//! two concurrent commits the second conflicts.

use std::time::Duration;

use gantry_domain::decide::{Candidate, Decision, Rule};
use gantry_domain::event::Event;
use gantry_domain::id::{EventId, TaskId};
use gantry_domain::timestamp::Timestamp;
use serde::{Deserialize, Serialize};

use crate::codec::{self, Versioned};
use crate::due;
use crate::store::{Batch, CommitError, Key, Kind, Store, StoreError};

/// A decision and its progress.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecordedDecision {
    /// The decision.
    #[serde(flatten)]
    pub decision: Decision,
    /// Whether all candidates are decided.
    pub is_final: bool,
    /// How often it was postponed.
    #[serde(default)]
    tries: u32,
    /// The last candidate task that was decided, if not all fit into one commit: the next commit continues after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cursor: Option<TaskId>,
}

impl RecordedDecision {
    fn none_yet(event: &EventId, now: Timestamp) -> Self {
        let decision =
            Decision { event: event.clone(), at: now, candidates: Vec::new(), nothing: None };
        Self { decision, is_final: false, tries: 0, cursor: None }
    }
}

/// An event that is not decided, or not for all its candidates.
#[derive(Debug, Clone, PartialEq)]
pub struct Undecided {
    /// The event.
    pub event: Event,
    so_far: Option<Versioned<RecordedDecision>>,
}

impl Undecided {
    /// `None` if the decision is final.
    pub(crate) fn of(event: Event, so_far: Option<Versioned<RecordedDecision>>) -> Option<Self> {
        let is_final = so_far.as_ref().is_some_and(|found| found.value.is_final);
        (!is_final).then_some(Self { event, so_far })
    }

    /// How often its decision was postponed.
    #[must_use]
    pub fn tries(&self) -> u32 {
        self.so_far.as_ref().map_or(0, |found| found.value.tries)
    }

    /// The last candidate that was decided, if more follow.
    #[must_use]
    pub fn cursor(&self) -> Option<&TaskId> {
        self.so_far.as_ref()?.value.cursor.as_ref()
    }

    /// The candidates that are decided already.
    #[must_use]
    pub fn candidates(&self) -> &[Candidate] {
        self.so_far.as_ref().map_or(&[], |found| &found.value.decision.candidates)
    }

    /// Adds the changed decision to the batch, which conflicts if another scheduler has written it meanwhile.
    fn write_in(
        &self,
        batch: &mut Batch,
        now: Timestamp,
        change: impl FnOnce(&mut RecordedDecision),
    ) -> Result<(), StoreError> {
        let key = key(&self.event.id);
        match &self.so_far {
            None => {
                let mut first = RecordedDecision::none_yet(&self.event.id, now);
                change(&mut first);
                batch.create(key.clone(), codec::encode(&key, &first)?);
                Ok(())
            }
            Some(found) => {
                let mut next = found.clone();
                change(&mut next.value);
                next.replace_in(batch, key)
            }
        }
    }
}

pub(crate) fn key(event: &EventId) -> Key {
    Key::new(Kind::Decision, event)
}

pub(crate) async fn load(
    store: &dyn Store,
    event: &EventId,
) -> Result<Option<Versioned<RecordedDecision>>, StoreError> {
    codec::load(store, &key(event)).await
}

/// Reads the decision of an event; `None` while nothing is decided.
///
/// # Errors
/// [`StoreError`].
pub async fn find(
    store: &dyn Store,
    event: &EventId,
) -> Result<Option<RecordedDecision>, StoreError> {
    let found = load(store, event).await?.map(|found| found.value);
    Ok(found.filter(|found| found.is_final || !found.decision.candidates.is_empty()))
}

/// The choices for some candidates of an event, for one commit.
#[derive(Debug, Clone)]
pub struct Decided {
    /// The candidates, in order of name.
    pub candidates: Vec<Candidate>,
    /// Why the event has no candidates at all, if so.
    pub nothing: Option<Rule>,
    /// The last of the candidates, if more follow in another commit.
    pub more_after: Option<TaskId>,
}

/// Appends the choices for some candidates to an event's decision. The batch conflicts if another scheduler has decided
/// some meanwhile.
///
/// # Errors
/// [`StoreError`].
pub fn record(
    batch: &mut Batch,
    found: &Undecided,
    decided: Decided,
    now: Timestamp,
) -> Result<(), StoreError> {
    let event = &found.event;
    if decided.more_after.is_none() {
        due::close(batch, &event.id, event.received);
    }
    found.write_in(batch, now, |recorded| {
        recorded.decision.at = now;
        recorded.decision.candidates.extend(decided.candidates);
        recorded.decision.nothing = decided.nothing;
        recorded.is_final = decided.more_after.is_none();
        recorded.cursor = decided.more_after;
    })
}

/// Adds a final decision to the batch that records its event.
pub(crate) fn record_at_once(batch: &mut Batch, decision: Decision) -> Result<(), StoreError> {
    let key = key(&decision.event);
    let recorded = RecordedDecision { decision, is_final: true, tries: 0, cursor: None };
    batch.create(key.clone(), codec::encode(&key, &recorded)?);
    Ok(())
}

/// Postpones an event for `pause`. If another scheduler decides it meanwhile, that decision is kept.
///
/// # Errors
/// [`StoreError`].
pub async fn put_off(
    store: &dyn Store,
    found: &Undecided,
    pause: Duration,
) -> Result<(), StoreError> {
    let (event, now) = (&found.event, store.now().await?);
    let mut batch = Batch::default();
    found.write_in(&mut batch, now, |recorded| recorded.tries += 1)?;
    due::await_decision(&mut batch, &event.id, event.received, now.after(pause));
    match store.commit(batch).await {
        Ok(()) | Err(CommitError::Conflict { .. }) => Ok(()),
        Err(CommitError::Store(error)) => Err(error),
    }
}

/// Whether an event is still to be decided.
///
/// # Errors
/// [`StoreError`].
pub async fn is_undecided(store: &dyn Store, event: &EventId) -> Result<bool, StoreError> {
    Ok(load(store, event).await?.is_none_or(|found| !found.value.is_final))
}

/// Whether an event may be deleted: it is decided, or its decision does not decode. A copy of an undecodable decision
/// is in quarantine.
pub(crate) async fn is_settled(store: &dyn Store, event: &EventId) -> Result<bool, StoreError> {
    match is_undecided(store, event).await {
        Ok(is_undecided) => Ok(!is_undecided),
        Err(StoreError::Undecodable { .. }) => Ok(true),
        Err(error) => Err(error),
    }
}
