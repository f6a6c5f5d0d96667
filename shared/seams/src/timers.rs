//! When the timers of tasks are due next, and the events of those that were.
//!
//! Each enabled timer of an enabled task has a record with its next instant, and an entry in one index, ordered by that
//! instant. They change in the commit of the task, and in the commit of the event: any number of schedulers may fire a
//! timer, and one of them does.

use gantry_domain::event::{Event, EventKind, TimerDue};
use gantry_domain::id::{EventId, RunPrefix, TaskId};
use gantry_domain::task::{Status, Task};
use gantry_domain::timer::{DueInstants, Timer, TimerName};
use gantry_domain::timestamp::Timestamp;
use gantry_domain::trace::TraceParent;
use serde::{Deserialize, Serialize};

use crate::codec::{self, Versioned};
use crate::events;
use crate::store::{Batch, CommitError, Entry, Expect, From, Index, Key, Kind, Store, StoreError};

/// A timer with its next instant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scheduled {
    /// Its task.
    pub task: TaskId,
    /// The prefix of the task's registry.
    pub prefix: RunPrefix,
    /// When the task was created, which distinguishes it from others of the same name.
    pub created: Timestamp,
    /// The timer.
    pub timer: Timer,
    /// The next instant.
    pub due: Timestamp,
}

/// What is to become of a timer that is due.
#[derive(Debug, Clone)]
pub struct Firing {
    /// The timer, as it is stored.
    pub found: Versioned<Scheduled>,
    /// Its instants up to now.
    pub instants: DueInstants,
    /// The trace that its runs continue.
    pub trace: Option<TraceParent>,
}

impl Firing {
    /// The id of its first event, if it has one.
    #[must_use]
    pub fn event(&self) -> Option<EventId> {
        let due = self.instants.fire.first()?;
        Some(self.found.value.at(*due).event_id())
    }
}

impl Scheduled {
    /// The timer at one of its instants.
    fn at(&self, due: Timestamp) -> TimerDue {
        let (task, timer) = (self.task.clone(), self.timer.name.clone());
        TimerDue { task, created: self.created, timer, due }
    }
}

/// Adds to a batch what a change of a task means for its timers. A timer that stays the same keeps its next instant; any
/// other is due next after `now`.
pub(crate) fn change(
    batch: &mut Batch,
    before: Option<&Task>,
    after: Option<&Task>,
    now: Timestamp,
) -> Result<(), StoreError> {
    let (was, is) = (started(before), started(after));
    if let Some(before) = before {
        for timer in was.iter().filter(|timer| !is.iter().any(|it| it.name == timer.name)) {
            end(batch, before, &timer.name);
        }
    }
    if let Some(after) = after {
        for timer in is.iter().filter(|timer| !was.contains(timer)) {
            match timer.next_after(now) {
                Some(due) => begin(batch, after, timer, due)?,
                None => end(batch, after, &timer.name),
            }
        }
    }
    Ok(())
}

/// The timers that may fire.
fn started(task: Option<&Task>) -> Vec<&Timer> {
    let Some(task) = task.filter(|task| task.status == Status::Enabled) else { return Vec::new() };
    task.timers.as_slice().iter().filter(|timer| timer.status == Status::Enabled).collect()
}

fn begin(batch: &mut Batch, task: &Task, timer: &Timer, due: Timestamp) -> Result<(), StoreError> {
    let scheduled = Scheduled {
        task: task.id.clone(),
        prefix: task.prefix,
        created: task.created,
        timer: timer.clone(),
        due,
    };
    let member = member(&task.id, &timer.name);
    let key = Key::new(Kind::Timer, &member);
    // Whoever is firing the former timer at this moment finds it changed.
    batch.put(key.clone(), codec::encode(&key, &scheduled)?);
    batch.index(by_due(), due.as_millis(), member);
    Ok(())
}

fn end(batch: &mut Batch, task: &Task, timer: &TimerName) {
    let member = member(&task.id, timer);
    batch.delete.push(Key::new(Kind::Timer, &member));
    batch.unindex(by_due(), member);
}

/// Timers that are due at `now`, the longest first, at most `limit`, and where to go on.
///
/// # Errors
/// [`StoreError`].
pub async fn due(
    store: &dyn Store,
    now: Timestamp,
    from: From,
    limit: usize,
) -> Result<(Vec<Versioned<Scheduled>>, Option<From>), StoreError> {
    let mut entries = store.range(&by_due(), from, limit).await?;
    entries.retain(|entry| entry.score <= now.as_millis());
    let keys: Vec<Key> = entries.iter().map(|entry| Key::new(Kind::Timer, &entry.member)).collect();
    let found = codec::load_all(store, &keys).await?;
    let last = entries.into_iter().nth(limit.saturating_sub(1));
    Ok((found, last.map(|last: Entry| From::After(last))))
}

/// When the enabled timers of a task are due next, in the order of the task.
///
/// # Errors
/// [`StoreError`].
pub async fn of_task(store: &dyn Store, task: &Task) -> Result<Vec<Scheduled>, StoreError> {
    let keys = started(Some(task)).into_iter();
    let keys: Vec<Key> =
        keys.map(|timer| Key::new(Kind::Timer, member(&task.id, &timer.name))).collect();
    let found = codec::load_all(store, &keys).await?;
    Ok(found.into_iter().map(|found: Versioned<Scheduled>| found.value).collect())
}

/// Records the events of these timers and moves each on to its next instant, in one commit. Returns `false`, and does
/// nothing, if one of them has changed since it was read: another scheduler fired it, or its task was saved.
///
/// # Errors
/// [`StoreError`].
pub async fn fire(
    store: &dyn Store,
    firings: &[Firing],
    now: Timestamp,
) -> Result<bool, StoreError> {
    let mut recorded: Vec<Key> = Vec::new();
    loop {
        let mut batch = Batch::default();
        for firing in firings {
            add(&mut batch, firing, now, &recorded)?;
        }
        match store.commit(batch).await {
            Ok(()) => return Ok(true),
            // A timer that was saved while it was due may be due at the same instant again: the instant has its event.
            Err(CommitError::Conflict { key }) if key.kind == Kind::Event => recorded.push(key),
            Err(CommitError::Conflict { .. }) => return Ok(false),
            Err(CommitError::Store(error)) => return Err(error),
        }
    }
}

fn add(
    batch: &mut Batch,
    firing: &Firing,
    now: Timestamp,
    recorded: &[Key],
) -> Result<(), StoreError> {
    let Firing { found, instants, trace } = firing;
    let Scheduled { task, prefix, timer, .. } = &found.value;
    for due in &instants.fire {
        let due = found.value.at(*due);
        let event = Event {
            id: due.event_id(),
            registry: task.registry.clone(),
            prefix: *prefix,
            received: now,
            trace: trace.clone(),
            kind: EventKind::TimerDue(due),
        };
        if !recorded.contains(&Key::new(Kind::Event, &event.id)) {
            events::record_undecided(batch, &event)?;
        }
    }
    let member = member(task, &timer.name);
    let key = Key::new(Kind::Timer, &member);
    let mut next = found.clone();
    match instants.next {
        Some(due) => {
            next.value.due = due;
            next.replace_in(batch, key)?;
            batch.index(by_due(), due.as_millis(), member);
        }
        None => {
            batch.expect.push((key.clone(), Expect::Version(found.version)));
            batch.delete.push(key);
            batch.unindex(by_due(), member);
        }
    }
    Ok(())
}

fn member(task: &TaskId, timer: &TimerName) -> String {
    format!("{task}/{timer}")
}

/// All timers that may fire, by their next instant.
fn by_due() -> Index {
    Index::new("timers/due")
}
