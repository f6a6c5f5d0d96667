//! The waiting runs in lanes: one for each pool, class, registry and task. Admission goes from lane to lane without reading
//! the runs that wait in them.

use gantry_domain::decide::forecast::Waiting;
use gantry_domain::decide::order::{Class, Turns};
use gantry_domain::id::{PoolName, RunPrefix, TaskName};
use gantry_domain::run::Run;

use super::indexes::{lane_entry, waiting_by_lane};
use super::key;
use crate::codec;
use crate::collection::commit_unconditional;
use crate::store::{Batch, Entry, From, Key, Kind, Store, StoreError};

/// The name of the lane of runs without a task. No task has it.
pub(super) const NO_TASK: &str = "@";

/// The name of the lane of legs, whose places their whole runs hold. No task has it.
const LEGS: &str = "+";

/// Goes once round the names at one place of the lanes: from behind `start` to the end, then from the beginning up to
/// `start`.
#[derive(Debug)]
pub struct Round {
    under: String,
    start: Option<String>,
    last: Option<String>,
    is_second_half: bool,
}

impl Round {
    /// Round the pools with waiting runs.
    #[must_use]
    pub fn of_pools() -> Self {
        Self::new(String::new(), None)
    }

    /// Round the registries with waiting runs of a class in a pool; the names are prefixes.
    #[must_use]
    pub fn of_registries(pool: &PoolName, class: Class, start: Option<&str>) -> Self {
        Self::new(format!("{pool}/{}/", class.place()), start)
    }

    /// Round the tasks of a registry with waiting runs of a class in a pool.
    #[must_use]
    pub fn of_tasks(
        pool: &PoolName,
        class: Class,
        registry: RunPrefix,
        start: Option<&str>,
    ) -> Self {
        Self::new(format!("{pool}/{}/{registry}/", class.place()), start)
    }

    fn new(under: String, start: Option<&str>) -> Self {
        Self { under, start: start.map(str::to_owned), last: None, is_second_half: start.is_none() }
    }

    /// The next name; `None` at the end. One or two small reads.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn next(&mut self, store: &dyn Store) -> Result<Option<String>, StoreError> {
        if !self.is_second_half {
            let last = self.last.as_deref().or(self.start.as_deref());
            if let Some(name) = next_name(store, &self.under, last).await? {
                self.last = Some(name.clone());
                return Ok(Some(name));
            }
            (self.is_second_half, self.last) = (true, None);
        }
        let name = next_name(store, &self.under, self.last.as_deref()).await?;
        let name =
            name.filter(|name| self.start.as_ref().is_none_or(|start| !is_behind(name, start)));
        if name.is_some() {
            self.last.clone_from(&name);
        }
        Ok(name)
    }
}

/// Whether a name comes after another in the index, where each is followed by `/`.
fn is_behind(name: &str, other: &str) -> bool {
    name.bytes().chain(*b"/").gt(other.bytes().chain(*b"/"))
}

/// The first name after `last` in the entries that begin with `under`.
async fn next_name(
    store: &dyn Store,
    under: &str,
    last: Option<&str>,
) -> Result<Option<String>, StoreError> {
    // `~` sorts after all characters of names.
    let behind = last.map_or_else(|| under.to_owned(), |last| format!("{under}{last}/~"));
    let mut from = From::After(Entry { score: 0, member: behind });
    loop {
        let Some(entry) = store.range(&waiting_by_lane(), from, 1).await?.pop() else {
            return Ok(None);
        };
        let Some(rest) = entry.member.strip_prefix(under) else { return Ok(None) };
        if let Some((name, _)) = rest.split_once('/') {
            return Ok(Some(name.to_owned()));
        }
        // A malformed member: skip it, so that it does not hide the entries after it.
        from = From::After(entry);
    }
}

/// The waiting runs of one task, or of those without one, in a pool, class and registry.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields without a comment explain themselves")]
pub struct Lane {
    pub pool: PoolName,
    pub class: Class,
    pub registry: RunPrefix,
    /// The task's name, as [`Round`] has it.
    pub task: String,
}

impl Lane {
    /// The lane of a run.
    #[must_use]
    pub fn of(run: &Run) -> Self {
        let (pool, class, registry) = (run.pool(), run.class(), run.id.prefix());
        if run.purpose.leg_of().is_some() {
            return Self::of_legs(pool, class, registry);
        }
        let task = run.task.as_ref().map_or(NO_TASK, |task| TaskName::as_str(&task.name));
        Self { pool, class, registry, task: task.to_owned() }
    }

    /// The lane of legs.
    #[must_use]
    pub fn of_legs(pool: PoolName, class: Class, registry: RunPrefix) -> Self {
        Self { pool, class, registry, task: LEGS.to_owned() }
    }

    /// What the members of its entries begin with.
    pub(super) fn start(&self) -> String {
        let Self { pool, class, registry, task } = self;
        format!("{pool}/{}/{registry}/{task}/", class.place())
    }
}

/// The waiting runs of a lane, the earliest due first, after the run `after`.
///
/// # Errors
/// [`StoreError`].
pub async fn waiting_in(
    store: &dyn Store,
    lane: &Lane,
    after: Option<&Run>,
    limit: usize,
) -> Result<Vec<Run>, StoreError> {
    let start = lane.start();
    let from = From::After(match after {
        Some(run) => lane_entry(run),
        None => Entry { score: 0, member: start.clone() },
    });
    let is_own = |entry: &Entry| entry.member.starts_with(&start);
    let of = |entry: &Entry| entry.member.rsplit_once('/')?.1.parse().ok().map(key);
    codec::load_members_while(store, &waiting_by_lane(), from, limit, is_own, of).await
}

/// The first waiting runs of a pool, by class, registry and task, without reading their records.
///
/// # Errors
/// [`StoreError`].
pub async fn waiting_for(
    store: &dyn Store,
    pool: &PoolName,
    limit: usize,
) -> Result<Vec<Waiting>, StoreError> {
    let start = format!("{pool}/");
    let from = From::After(Entry { score: 0, member: start.clone() });
    let entries = store.range(&waiting_by_lane(), from, limit).await?;
    let own = entries.iter().map_while(|entry| entry.member.strip_prefix(&start));
    // Malformed members are left out.
    Ok(own.filter_map(waiting_run).collect())
}

fn waiting_run(member: &str) -> Option<Waiting> {
    let mut parts = member.split('/');
    let place: u8 = parts.next()?.parse().ok()?;
    let class = Class::ALL.into_iter().find(|class| class.place() == place)?;
    let (registry, task) = (parts.next()?.parse().ok()?, parts.next()?.to_owned());
    let run = parts.nth(1)?.parse().ok()?;
    Some(Waiting { run, class, registry, task })
}

/// Whose turns are stored.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum TurnsOf {
    /// The pools whose runs go to this one, its own among them.
    Lent(PoolName),
    /// The registries in a pool.
    Pool(PoolName),
    /// The tasks of a registry.
    Registry(RunPrefix),
}

impl TurnsOf {
    fn key(&self) -> Key {
        match self {
            Self::Lent(pool) => Key::new(Kind::Admission, format_args!("turns/lent/{pool}")),
            Self::Pool(pool) => Key::new(Kind::Admission, format_args!("turns/pool/{pool}")),
            Self::Registry(registry) => turns_of_registry(*registry),
        }
    }
}

/// The record of the turns of a registry's tasks.
pub(crate) fn turns_of_registry(registry: RunPrefix) -> Key {
    Key::new(Kind::Admission, format_args!("turns/registry/{registry}"))
}

/// Reads whose turn it is. Starts anew if that was not stored yet, or does not decode.
///
/// # Errors
/// [`StoreError`].
pub async fn find_turns(store: &dyn Store, of: &TurnsOf) -> Result<Turns, StoreError> {
    let found = codec::load_or(store, &of.key(), Turns::default).await?;
    Ok(found.map(|found| found.value).unwrap_or_default())
}

/// Stores whose turn it is. Turns are fair, not exact: of several schedulers the last one to write is right.
///
/// # Errors
/// [`StoreError`].
pub async fn record_turns(
    store: &dyn Store,
    of: &TurnsOf,
    turns: &Turns,
) -> Result<(), StoreError> {
    let (mut batch, key) = (Batch::default(), of.key());
    let record = codec::encode(&key, turns)?;
    batch.put(key, record);
    commit_unconditional(store, batch).await
}
