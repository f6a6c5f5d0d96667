//! Decisions: one an event, kept with their reasons.

use gantry_domain::decide::{Candidate, Decision, Rule};
use gantry_domain::id::{EventId, TaskId};
use gantry_domain::timestamp::Timestamp;
use serde::{Deserialize, Serialize};

use crate::codec::{self, Versioned};
use crate::events::{self, RecordedEvent};
use crate::store::{Batch, From, Key, Kind, Store, StoreError};

/// A decision, and whether all its candidates are in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecordedDecision {
    /// The decision.
    #[serde(flatten)]
    pub decision: Decision,
    /// Whether nothing is to be added any more.
    pub is_final: bool,
}

fn key(event: &EventId) -> Key {
    Key::new(Kind::Decision, event)
}

/// Reads the decision of an event.
///
/// # Errors
/// [`StoreError`].
pub async fn find(
    store: &dyn Store,
    event: &EventId,
) -> Result<Option<RecordedDecision>, StoreError> {
    Ok(codec::load(store, &key(event)).await?.map(|found: Versioned<_>| found.value))
}

/// What a batch says of some candidates of an event.
#[derive(Debug, Clone)]
pub struct Decided {
    /// These candidates, in order of name.
    pub candidates: Vec<Candidate>,
    /// Why there is none at all, if so.
    pub nothing: Option<Rule>,
    /// The last of them, when more candidates follow in another commit.
    pub more_after: Option<TaskId>,
}

/// Adds to a batch what was decided for some candidates of an event, after those that were decided before.
///
/// # Errors
/// [`StoreError`].
pub async fn record(
    store: &dyn Store,
    batch: &mut Batch,
    found: &Versioned<RecordedEvent>,
    decided: Decided,
    now: Timestamp,
) -> Result<(), StoreError> {
    let event = &found.value.event.id;
    let key = key(event);
    let earlier = codec::load::<RecordedDecision>(store, &key).await?;
    let mut candidates =
        earlier.map(|earlier| earlier.value.decision.candidates).unwrap_or_default();
    candidates.extend(decided.candidates);
    let decision = Decision { event: event.clone(), at: now, candidates, nothing: decided.nothing };
    let recorded = RecordedDecision { decision, is_final: decided.more_after.is_none() };
    batch.put(key.clone(), codec::encode(&key, &recorded)?);
    match decided.more_after {
        Some(last) => events::move_cursor(batch, found, last)?,
        None => events::close(batch, found),
    }
    Ok(())
}

/// Adds a decision that is made in the same batch as its event.
pub(crate) fn record_at_once(batch: &mut Batch, decision: Decision) -> Result<(), StoreError> {
    let key = key(&decision.event);
    let recorded = RecordedDecision { decision, is_final: true };
    batch.create(key.clone(), codec::encode(&key, &recorded)?);
    Ok(())
}

/// Whether an event is still to be decided.
///
/// # Errors
/// [`StoreError`].
pub async fn is_undecided(store: &dyn Store, event: &EventId) -> Result<bool, StoreError> {
    Ok(find(store, event).await?.is_none_or(|decision| !decision.is_final))
}

/// Removes decided events older than `before`, with their decisions, at most `limit`. Answers how many.
///
/// # Errors
/// [`StoreError`].
pub async fn forget(
    store: &dyn Store,
    before: Timestamp,
    limit: usize,
) -> Result<usize, StoreError> {
    let entries = store.range(&events::by_age(), From::Start, limit).await?;
    let mut batch = Batch::default();
    let mut count = 0;
    for entry in entries.iter().take_while(|entry| entry.score < before.as_millis()) {
        let Ok(event) = entry.member.parse::<EventId>() else {
            continue;
        };
        match is_undecided(store, &event).await {
            Ok(true) => continue,
            // Nobody can read it any more, and a copy is in quarantine.
            Ok(false) | Err(StoreError::Undecodable { .. }) => {}
            Err(error) => return Err(error),
        }
        batch.delete.push(events::key(&event));
        batch.delete.push(key(&event));
        batch.unindex(events::by_age(), &event);
        count += 1;
    }
    if !batch.is_empty() {
        crate::collection::commit_unconditional(store, batch).await?;
    }
    Ok(count)
}
