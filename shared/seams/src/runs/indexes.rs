//! Where a run stands in which index: a function of its record alone, so that no operation can forget one.

use std::collections::BTreeSet;
use std::fmt;

use gantry_domain::built_on::BuiltOn;
use gantry_domain::decide::order;
use gantry_domain::id::{PoolName, RunId, RunPrefix, TaskName};
use gantry_domain::run::{Run, RunState, RunStatus};
use gantry_domain::timestamp::Timestamp;

use crate::store::{Batch, Entry, Index};

/// What a caller filters runs by. There is no index of everything together: beside a task nothing else is looked at, and
/// beside an image no status. Those are few enough for the caller to look through.
#[derive(Debug, Clone, Default)]
pub struct RunFilter {
    /// Of this registry only.
    pub registry: Option<RunPrefix>,
    /// Of this task of a registry only.
    pub task: Option<(RunPrefix, TaskName)>,
    /// That pushed this digest, or to this repository, named without its host.
    pub image: Option<String>,
    /// In this status only.
    pub status: Option<RunStatus>,
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
    let mut entries = Vec::new();
    let prefix = run.id.prefix();
    for registry in [None, Some(prefix)] {
        entries.push((listing_of(registry), listing_entry(run)));
        entries.push((in_status(registry, run.status()), listing_entry(run)));
        for image in images(run) {
            entries.push((of_image(registry, &image), listing_entry(run)));
        }
    }
    let task = run.task.as_ref().map(|task| &task.name);
    if let Some(task) = task {
        entries.push((of_task(prefix, task), listing_entry(run)));
    }
    if run.state.holds_a_place() {
        entries.push(at(placed_in_registry(prefix), created));
        if let Some(task) = task {
            entries.push(at(placed_in_task(prefix, task), created));
        }
    }
    match &run.state {
        RunState::Waiting { .. } => {
            entries.push((waiting(), waiting_entry(run)));
            entries.push((waiting_by_registry(), waiting_in_registry_entry(run)));
        }
        RunState::Ready { pool, rank, since, .. } => {
            entries.push(at(ready(pool), rank.0));
            entries.push((all_ready(), all_ready_entry(pool, run.id, *since)));
        }
        RunState::Started { lease } | RunState::Running { lease, .. } => {
            entries.push(at(leased(), lease.until.as_millis()));
        }
        RunState::Done(done) if !run.archived => entries.push(at(ended(), done.at.as_millis())),
        RunState::Done(_) => {}
    }
    if matches!(run.built_on, BuiltOn::Read(_)) && run.state.done().is_none() {
        entries.push(at(unresolved(), created));
    }
    entries
}

/// The repositories that the run pushed to, and the digests.
fn images(run: &Run) -> BTreeSet<String> {
    let product = run.state.done().and_then(|done| done.outcome.product());
    let outputs = product.map_or(&[][..], |product| &product.outputs);
    let names = outputs.iter().flat_map(|output| {
        [output.image.repository().as_str().to_owned(), output.digest.as_str().to_owned()]
    });
    names.collect()
}

/// The newest comes first.
pub(super) fn listing_entry(run: &Run) -> Entry {
    Entry { score: -run.created.as_millis(), member: run.id.to_string() }
}

/// By when it is to be looked at.
pub(super) fn waiting_entry(run: &Run) -> Entry {
    Entry { score: due(run).as_millis(), member: run.id.to_string() }
}

/// By registry, and in each by the rank that it would have if it were ready.
pub(super) fn waiting_in_registry_entry(run: &Run) -> Entry {
    let rank = order::rank(run.run_type, due(run));
    Entry { score: 0, member: format!("{}/{:020}/{}", run.id.prefix(), rank.0, run.id) }
}

/// A place before all waiting runs of a registry.
pub(super) fn before_waiting_in(registry: RunPrefix) -> Entry {
    Entry { score: 0, member: format!("{registry}/") }
}

/// A place behind all waiting runs of a registry: no rank begins with this sign.
pub(super) fn behind_waiting_in(registry: RunPrefix) -> Entry {
    Entry { score: 0, member: format!("{registry}/~") }
}

/// When a waiting run is to be looked at.
fn due(run: &Run) -> Timestamp {
    match &run.state {
        RunState::Waiting { reason, .. } => reason.rests_until().unwrap_or(run.created),
        RunState::Ready { .. }
        | RunState::Started { .. }
        | RunState::Running { .. }
        | RunState::Done(_) => run.created,
    }
}

pub(super) fn listing(filter: &RunFilter) -> Index {
    let registry = filter.registry;
    match (&filter.task, &filter.image, filter.status) {
        (Some((registry, task)), ..) => of_task(*registry, task),
        (None, Some(image), _) => of_image(registry, image),
        (None, None, Some(status)) => in_status(registry, status),
        (None, None, None) => listing_of(registry),
    }
}

pub(crate) fn all() -> Index {
    Index::new("runs/all")
}

/// Every run, or those of a registry.
fn listing_of(registry: Option<RunPrefix>) -> Index {
    registry.map_or_else(all, |registry| Index::new(format!("runs/registry/{registry}")))
}

fn in_status(registry: Option<RunPrefix>, status: RunStatus) -> Index {
    part_of(registry, format_args!("status/{status}"))
}

fn of_image(registry: Option<RunPrefix>, image: &str) -> Index {
    part_of(registry, format_args!("image/{image}"))
}

fn part_of(registry: Option<RunPrefix>, part: fmt::Arguments<'_>) -> Index {
    Index::new(match registry {
        None => format!("runs/{part}"),
        // No name of an image has this sign in it.
        Some(registry) => format!("runs/{part}@{registry}"),
    })
}

fn of_task(registry: RunPrefix, task: &TaskName) -> Index {
    Index::new(format!("runs/task/{registry}/{task}"))
}

pub(super) fn waiting() -> Index {
    Index::new("runs/waiting")
}

/// `registry/rank/run`: one index, in which a look goes from registry to registry without reading what is between.
pub(super) fn waiting_by_registry() -> Index {
    Index::new("runs/waiting-by-registry")
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

/// Those whose commit is to be compared with the facts, the oldest first.
pub(super) fn unresolved() -> Index {
    Index::new("runs/unresolved")
}

/// By the end of their lease.
pub(super) fn leased() -> Index {
    Index::new("runs/leased")
}

/// By when they ended; without the archived.
pub(super) fn ended() -> Index {
    Index::new("runs/ended")
}

pub(super) fn placed_in_registry(registry: RunPrefix) -> Index {
    Index::new(format!("runs/placed/registry/{registry}"))
}

pub(super) fn placed_in_task(registry: RunPrefix, task: &TaskName) -> Index {
    Index::new(format!("runs/placed/task/{registry}/{task}"))
}
