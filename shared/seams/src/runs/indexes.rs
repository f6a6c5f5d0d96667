//! The index entries of a run, as a pure function of its record, so that no operation can forget one.

use std::collections::BTreeSet;
use std::fmt;

use gantry_domain::built_on::BuiltOn;
use gantry_domain::fact::FactKey;
use gantry_domain::id::{GroupName, PoolName, RunId, RunPrefix, TaskName};
use gantry_domain::notification::RunEvent;
use gantry_domain::run::{Purpose, Run, RunState, RunStatus};
use gantry_domain::timer::TimerName;
use gantry_domain::timestamp::Timestamp;
use gantry_domain::wave::NodeTask;

use super::lanes::Lane;
use crate::store::{Batch, Entry, Index};

/// Filters for listing runs. Not every combination has an index: with a task set the other fields are ignored, and with
/// an image set the status is. The results are few enough for the caller to filter.
#[derive(Debug, Clone, Default)]
pub struct RunFilter {
    /// Only runs of this registry.
    pub registry: Option<RunPrefix>,
    /// Only runs of this task.
    pub task: Option<(RunPrefix, TaskName)>,
    /// Only runs that pushed this digest, or to this repository (without its host).
    pub image: Option<String>,
    /// Only runs in this status.
    pub status: Option<RunStatus>,
}

/// Adds to the batch what changes in the indexes between two states of one run.
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
        if run.is_hidden() { vec![(hidden(), listing_entry(run))] } else { shown_entries(run) };
    match &run.state {
        // Not even looked at by admission, so that any number of held runs is in nobody's way.
        RunState::Waiting { reason, .. } if reason.is_held() => {}
        RunState::Waiting { .. } => {
            entries.push((waiting(), waiting_entry(run)));
            entries.push((waiting_by_lane(), lane_entry(run)));
        }
        RunState::Ready { pool, rank, since, .. } => {
            entries.push(at(ready(pool), rank.0));
            entries.push((all_ready(), all_ready_entry(pool, run.id, *since)));
        }
        RunState::Started { lease } | RunState::Running { lease, .. } => {
            entries.push(at(leased(), lease.until.as_millis()));
        }
        RunState::Done(_) if run.purpose == Purpose::Scan => entries.push(at(ended(), BEFORE_ALL)),
        RunState::Done(done) if !run.archived => entries.push(at(ended(), done.at.as_millis())),
        RunState::Done(_) => {}
    }
    if matches!(run.built_on, BuiltOn::Read(_)) && run.state.done().is_none() {
        entries.push(at(unresolved(), created));
    }
    let is_open = run.state.done().is_none() || run.is_unsettled();
    if let Some(task) = run.stands_for_task().filter(|_| is_open) {
        entries.push(at(open_of_task(&task), created));
    }
    if run.is_unsettled() {
        entries.push(at(unsettled(), created));
    }
    if run.leg_work().is_some() {
        entries.push(at(leg_work(), created));
    }
    if run.is_unreported() {
        entries.push(at(unreported(), created));
    }
    if let Some(event) = RunEvent::of(run) {
        let member = untold_member(run.id, event);
        entries.push((untold(), Entry { score: created, member }));
    }
    entries
}

/// The entries in the lists that people see and in what the limits count.
fn shown_entries(run: &Run) -> Vec<(Index, Entry)> {
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
    if let Some((open, change)) = open_of(run).zip(run.cause.change())
        && run.state.done().is_none()
    {
        let score = i64::try_from(change.generation).unwrap_or(i64::MAX);
        entries.push(at(open, score));
    }
    if let Some((task, timer)) = run.task.as_ref().zip(run.cause.timer().map(|(timer, _)| timer)) {
        if run.state.done().is_none() {
            entries.push(at(open_of_timer(prefix, &task.name, task.created, timer), created));
        }
        if run.state.holds_a_place() {
            entries.push(at(placed_in_timer(prefix, &task.name, timer), created));
        }
    }
    if run.state.holds_a_place() {
        entries.push(at(placed_in_registry(prefix), created));
        if let Some(task) = task {
            entries.push(at(placed_in_task(prefix, task), created));
        }
        if let Some(group) = &run.concurrency_group {
            entries.push(at(placed_in_group(prefix, group), created));
        }
    }
    entries
}

/// The repositories and digests that the run pushed.
fn images(run: &Run) -> BTreeSet<String> {
    let product = run.state.done().and_then(|done| done.outcome.product());
    let outputs = product.map_or(&[][..], |product| &product.outputs);
    let names = outputs.iter().flat_map(|output| {
        [output.image.repository().as_str().to_owned(), output.digest.as_str().to_owned()]
    });
    names.collect()
}

/// Newest first.
pub(super) fn listing_entry(run: &Run) -> Entry {
    Entry { score: -run.created.as_millis(), member: run.id.to_string() }
}

/// Ordered by when the run is due for admission.
pub(super) fn waiting_entry(run: &Run) -> Entry {
    Entry { score: due(run).as_millis(), member: run.id.to_string() }
}

/// Ordered by lane, and within it by when the run is due for admission.
pub(super) fn lane_entry(run: &Run) -> Entry {
    let due = due(run).as_millis().max(0);
    Entry { score: 0, member: format!("{}{due:020}/{}", Lane::of(run).start(), run.id) }
}

/// When a waiting run is to be tried next.
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

/// All runs that are not hidden.
pub(crate) fn all() -> Index {
    Index::new("runs/all")
}

/// All hidden runs.
pub(crate) fn hidden() -> Index {
    Index::new("runs/hidden")
}

/// All runs that are not hidden, or those of a registry.
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
        // `@` cannot occur in an image's name.
        Some(registry) => format!("runs/{part}@{registry}"),
    })
}

fn of_task(registry: RunPrefix, task: &TaskName) -> Index {
    Index::new(format!("runs/task/{registry}/{task}"))
}

/// The runs of one task for one branch, tag or pull request that have not ended, by generation.
pub(super) fn open(
    registry: RunPrefix,
    task: &TaskName,
    created: Timestamp,
    fact: &FactKey,
) -> Index {
    Index::new(format!("runs/open/{registry}/{task}@{}/{fact}", created.as_millis()))
}

fn open_of(run: &Run) -> Option<Index> {
    let (task, change) = (run.task.as_ref()?, run.cause.change()?);
    Some(open(run.id.prefix(), &task.name, task.created, &change.fact))
}

/// The runs of one timer that have not ended, oldest first.
pub(super) fn open_of_timer(
    registry: RunPrefix,
    task: &TaskName,
    created: Timestamp,
    timer: &TimerName,
) -> Index {
    // A registry's prefix has two letters.
    Index::new(format!("runs/open/timer/{registry}/{task}@{}/{timer}", created.as_millis()))
}

/// The runs of a task that do all that a run of it does and have not ended, oldest first.
pub(super) fn open_of_task(task: &NodeTask) -> Index {
    Index::new(format!("runs/open/task/{task}"))
}

/// Ended runs of which it is still to be recorded what they used and made, oldest first.
pub(super) fn unsettled() -> Index {
    Index::new("runs/unsettled")
}

/// Runs for whose legs something is to be done, oldest first.
pub(super) fn leg_work() -> Index {
    Index::new("runs/leg-work")
}

pub(super) fn waiting() -> Index {
    Index::new("runs/waiting")
}

/// Members are `pool/class/registry/task/due/run`. One index, so that a scan can skip from lane to lane.
pub(super) fn waiting_by_lane() -> Index {
    Index::new("runs/waiting-by-lane")
}

/// Scored by rank.
pub(super) fn ready(pool: &PoolName) -> Index {
    Index::new(format!("runs/ready/{pool}"))
}

/// Members are `pool/run`, scored by when the run became ready.
pub(super) fn all_ready() -> Index {
    Index::new("runs/ready")
}

pub(super) fn all_ready_entry(pool: &PoolName, run: RunId, since: Timestamp) -> Entry {
    Entry { score: since.as_millis(), member: format!("{pool}/{run}") }
}

/// Runs whose commit is still to be compared with the facts, oldest first.
pub(super) fn unresolved() -> Index {
    Index::new("runs/unresolved")
}

/// Runs whose state is still to be passed on to their code host, oldest first.
pub(super) fn unreported() -> Index {
    Index::new("runs/unreported")
}

/// Events of runs that notifications are still to tell of, those of the oldest runs first.
pub(crate) fn untold() -> Index {
    Index::new("runs/untold")
}

/// With the event, so that an entry is removed without a look at the run, and never the entry of a later event.
pub(crate) fn untold_member(run: RunId, event: RunEvent) -> String {
    format!("{run}/{event}")
}

/// Scored by the end of the lease.
pub(super) fn leased() -> Index {
    Index::new("runs/leased")
}

/// The score of ended scans, which are deleted first.
const BEFORE_ALL: i64 = 0;

/// Scored by when the run ended, scans before all others; archived runs are left out.
pub(super) fn ended() -> Index {
    Index::new("runs/ended")
}

pub(super) fn placed_in_registry(registry: RunPrefix) -> Index {
    Index::new(format!("runs/placed/registry/{registry}"))
}

pub(super) fn placed_in_task(registry: RunPrefix, task: &TaskName) -> Index {
    Index::new(format!("runs/placed/task/{registry}/{task}"))
}

pub(super) fn placed_in_group(registry: RunPrefix, group: &GroupName) -> Index {
    Index::new(format!("runs/placed/group/{registry}/{group}"))
}

pub(super) fn placed_in_timer(registry: RunPrefix, task: &TaskName, timer: &TimerName) -> Index {
    Index::new(format!("runs/placed/timer/{registry}/{task}/{timer}"))
}
