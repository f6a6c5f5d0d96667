//! Where a run stands in which index: a function of its record alone, so that no operation can forget one.

use gantry_domain::id::{PoolName, RegistryName, RunId, TaskId};
use gantry_domain::run::{Run, RunState, WaitReason};
use gantry_domain::timestamp::Timestamp;

use crate::store::{Batch, Entry, Index};

/// What a caller filters runs by.
#[derive(Debug, Clone, Default)]
pub struct RunFilter {
    /// Of this registry only.
    pub registry: Option<RegistryName>,
    /// Of this task only.
    pub task: Option<TaskId>,
}

/// Writes the difference between two states of one run's record into the batch.
pub(super) fn reindex(batch: &mut Batch, before: Option<&Run>, after: Option<&Run>) {
    let old = before.map(entries).unwrap_or_default();
    let new = after.map(entries).unwrap_or_default();
    for (index, entry) in &old {
        if !new.iter().any(|(other, place)| other == index && place.member == entry.member) {
            batch.unindex(index.clone(), &entry.member);
        }
    }
    for place in new {
        if !old.contains(&place) {
            batch.index.push(place);
        }
    }
}

fn entries(run: &Run) -> Vec<(Index, Entry)> {
    let at = |index: Index, score: i64| (index, Entry { score, member: run.id.to_string() });
    let created = run.created.as_millis();
    let mut entries =
        vec![(all(), listing_entry(run)), (of_registry(&run.registry), listing_entry(run))];
    let task = run.task_id();
    if let Some(task) = &task {
        entries.push((of_task(task), listing_entry(run)));
    }
    if run.state.holds_a_place() {
        entries.push(at(placed_in_registry(&run.registry), created));
        if let Some(task) = &task {
            entries.push(at(placed_in_task(task), created));
        }
    }
    match &run.state {
        RunState::Waiting { .. } => entries.push((waiting(), waiting_entry(run))),
        RunState::Ready { pool, rank, since, .. } => {
            entries.push(at(ready(pool), rank.0));
            entries.push((all_ready(), all_ready_entry(pool, run.id, *since)));
        }
        RunState::Started { lease }
        | RunState::Running { lease, .. }
        | RunState::Tagging { lease, .. } => {
            entries.push(at(leased(), lease.until.as_millis()));
        }
        RunState::Done(done) if !run.archived => entries.push(at(ended(), done.at.as_millis())),
        RunState::Done(_) => {}
    }
    entries
}

/// The newest comes first.
pub(super) fn listing_entry(run: &Run) -> Entry {
    Entry { score: -run.created.as_millis(), member: run.id.to_string() }
}

/// By when it is to be looked at.
pub(super) fn waiting_entry(run: &Run) -> Entry {
    let at = match &run.state {
        RunState::Waiting { reason: WaitReason::Backoff { until, .. }, .. } => *until,
        RunState::Waiting { .. }
        | RunState::Ready { .. }
        | RunState::Started { .. }
        | RunState::Running { .. }
        | RunState::Tagging { .. }
        | RunState::Done(_) => run.created,
    };
    Entry { score: at.as_millis(), member: run.id.to_string() }
}

pub(super) fn listing(filter: &RunFilter) -> Index {
    match (&filter.task, &filter.registry) {
        (Some(task), _) => of_task(task),
        (None, Some(registry)) => of_registry(registry),
        (None, None) => all(),
    }
}

pub(crate) fn all() -> Index {
    Index::new("runs/all")
}

fn of_registry(registry: &RegistryName) -> Index {
    Index::new(format!("runs/registry/{registry}"))
}

fn of_task(task: &TaskId) -> Index {
    Index::new(format!("runs/task/{task}"))
}

pub(super) fn waiting() -> Index {
    Index::new("runs/waiting")
}

/// By rank.
pub(super) fn ready(pool: &PoolName) -> Index {
    Index::new(format!("runs/ready/{pool}"))
}

/// `pool/run`, by when they became ready.
pub(super) fn all_ready() -> Index {
    Index::new("runs/ready")
}

pub(super) fn all_ready_entry(pool: &PoolName, run: RunId, since: Timestamp) -> Entry {
    Entry { score: since.as_millis(), member: format!("{pool}/{run}") }
}

/// By the end of their lease.
pub(super) fn leased() -> Index {
    Index::new("runs/leased")
}

/// By when they ended; without the archived.
pub(super) fn ended() -> Index {
    Index::new("runs/ended")
}

pub(super) fn placed_in_registry(registry: &RegistryName) -> Index {
    Index::new(format!("runs/placed/registry/{registry}"))
}

pub(super) fn placed_in_task(task: &TaskId) -> Index {
    Index::new(format!("runs/placed/task/{task}"))
}
