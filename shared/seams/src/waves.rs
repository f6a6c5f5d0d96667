//! Waves, their tasks, and the open nodes of tasks.
//!
//! A wave's own record changes only a few times; which of its tasks are open is an index.

mod nodes;

use gantry_domain::id::{EventId, RegistryName, RunId, RunPrefix, WaveId};
use gantry_domain::timestamp::Timestamp;
use gantry_domain::wave::{NodeTask, Wave, WaveCause, WaveState, WaveTask};

use crate::codec::{self, Versioned};
use crate::retry::{self, Plan};
use crate::store::{Batch, Entry, Expect, From, Index, Key, Kind, Store, StoreError};

pub use self::nodes::{
    Reached, Seen, build, end, ended, expect, followed, forget_task, hold, join, leave, look_at,
    look_at_all, look_later, node, nodes, reach, to_look,
};

/// How many tasks one commit reaches, closes or marks.
pub const TASKS_A_COMMIT: usize = 32;

/// How many tasks one commit of index entries marks to be looked at.
const MARKS_A_COMMIT: usize = 128;

/// Reads a wave.
///
/// # Errors
/// [`StoreError`].
pub async fn find(store: &dyn Store, wave: WaveId) -> Result<Option<Versioned<Wave>>, StoreError> {
    codec::load(store, &key(wave)).await
}

/// Waves of a registry from newest to oldest, after `after`, at most `limit`.
///
/// # Errors
/// [`StoreError`].
pub async fn list(
    store: &dyn Store,
    registry: RunPrefix,
    after: Option<&Wave>,
    limit: usize,
) -> Result<Vec<Wave>, StoreError> {
    let from = after.map_or(From::Start, |wave| From::After(listed(wave)));
    codec::load_members(store, &of_registry(registry), from, limit, |entry| {
        entry.member.parse().ok().map(key)
    })
    .await
}

/// Waves whose nodes are still being found, at most `limit`.
///
/// # Errors
/// [`StoreError`].
pub async fn planning(store: &dyn Store, limit: usize) -> Result<Vec<WaveId>, StoreError> {
    let entries = store.range(&by_planning(), From::Start, limit).await?;
    Ok(entries.iter().filter_map(|entry| entry.member.parse().ok()).collect())
}

/// The tasks of a wave in the order in which it reached them, after `after`, at most `limit`.
///
/// # Errors
/// [`StoreError`].
pub async fn tasks(
    store: &dyn Store,
    wave: WaveId,
    from: From,
    limit: usize,
) -> Result<(Vec<WaveTask>, Option<From>), StoreError> {
    let entries = store.range(&tasks_of(wave), from, limit).await?;
    let keys: Vec<Key> = entries
        .iter()
        .filter_map(|entry| entry.member.parse().ok().map(|task| task_key(wave, &task)))
        .collect();
    let found: Vec<Versioned<WaveTask>> = codec::load_all(store, &keys).await?;
    let last = entries.into_iter().nth(limit.saturating_sub(1));
    Ok((found.into_iter().map(|found| found.value).collect(), last.map(From::After)))
}

/// A task of a wave.
///
/// # Errors
/// [`StoreError`].
pub async fn task(
    store: &dyn Store,
    wave: WaveId,
    task: &NodeTask,
) -> Result<Option<WaveTask>, StoreError> {
    Ok(codec::load(store, &task_key(wave, task)).await?.map(|found| found.value))
}

/// Begins a wave in a batch, as the next of its registry. The commit conflicts if another one began meanwhile.
///
/// # Errors
/// [`StoreError`].
pub async fn begin(
    store: &dyn Store,
    batch: &mut Batch,
    registry: (&RegistryName, RunPrefix),
    cause: WaveCause,
    canary: u32,
    now: Timestamp,
) -> Result<Wave, StoreError> {
    let (name, prefix) = registry;
    let counter = Key::new(Kind::Counter, format_args!("waves-{prefix}"));
    let found = store.load(std::slice::from_ref(&counter)).await?.pop().flatten();
    let number = match &found {
        None => 1,
        Some(record) => {
            codec::parse_text::<u64>(store, &counter, record, "number").await?.saturating_add(1)
        }
    };
    match found {
        None => batch.create(counter, number.to_string()),
        Some(record) => batch.replace(counter, record.version, number.to_string()),
    }
    let cause_event = cause.event.clone();
    let wave = Wave {
        id: WaveId::new(prefix, number),
        registry: name.clone(),
        cause,
        created: now,
        state: WaveState::Planning { events: vec![cause_event] },
        canary,
    };
    let key = key(wave.id);
    batch.create(key.clone(), codec::encode(&key, &wave)?);
    let Entry { score, member } = listed(&wave);
    batch.index(of_registry(prefix), score, &member);
    batch.index(by_age(), now.as_millis(), &member);
    batch.index(by_planning(), now.as_millis(), &member);
    Ok(wave)
}

/// Lets a wave find more nodes, in a batch, because of another event that it led to. A frozen or dropped wave stays so.
///
/// # Errors
/// [`StoreError`].
pub fn plan_more(
    batch: &mut Batch,
    found: &Versioned<Wave>,
    event: &EventId,
) -> Result<(), StoreError> {
    let id = found.value.id;
    let mut next = found.clone();
    match &mut next.value.state {
        WaveState::Planning { events } if !events.contains(event) => events.push(event.clone()),
        WaveState::Open | WaveState::Done { .. } => {
            next.value.state = WaveState::Planning { events: vec![event.clone()] };
        }
        WaveState::Planning { .. } | WaveState::Frozen { .. } | WaveState::Dropped { .. } => {
            batch.expect.push((key(id), Expect::Version(found.version)));
            return Ok(());
        }
    }
    batch.index(by_planning(), next.value.created.as_millis(), id);
    next.replace_in(batch, key(id))
}

/// Tasks of a wave whose own images were not followed yet, at most `limit`.
///
/// # Errors
/// [`StoreError`].
pub async fn unexpanded(
    store: &dyn Store,
    wave: WaveId,
    limit: usize,
) -> Result<Vec<NodeTask>, StoreError> {
    members(store, &unexpanded_in(wave), limit).await
}

/// Adds to a batch that the images of a wave's task were followed.
pub fn expanded(batch: &mut Batch, wave: WaveId, task: &NodeTask) {
    batch.unindex(unexpanded_in(wave), task);
}

/// Ends the planning of a wave, and has the tasks looked at that it holds. Does nothing if it has changed since it was read.
///
/// # Errors
/// [`StoreError`].
pub async fn planned(store: &dyn Store, found: &Versioned<Wave>) -> Result<(), StoreError> {
    let (id, now) = (found.value.id, store.now().await?);
    let mut next = found.clone();
    next.value.state = WaveState::Open;
    let mut batch = Batch::default();
    next.replace_in(&mut batch, key(id))?;
    batch.unindex(by_planning(), id);
    batch.index(to_wake(), now.as_millis(), id);
    retry::once(store, batch).await.map(drop)
}

/// Waves that have changed since they held tasks, which are to be looked at, at most `limit`.
///
/// # Errors
/// [`StoreError`].
pub async fn waking(store: &dyn Store, limit: usize) -> Result<Vec<WaveId>, StoreError> {
    let entries = store.range(&to_wake(), From::Start, limit).await?;
    Ok(entries.iter().filter_map(|entry| entry.member.parse().ok()).collect())
}

/// Has the tasks looked at that a wave holds. The others wait for something else, which has them looked at in its turn: a
/// wave of thousands changes with each of its runs.
///
/// # Errors
/// [`StoreError`].
pub async fn wake(store: &dyn Store, wave: WaveId) -> Result<(), StoreError> {
    let now = store.now().await?;
    loop {
        let is_so = match find(store, wave).await? {
            Some(found) => Expect::Version(found.version),
            None => Expect::Absent,
        };
        let entries = store.range(&held_by(wave), From::Start, MARKS_A_COMMIT).await?;
        let mut batch = Batch::default();
        for entry in &entries {
            batch.unindex(held_by(wave), &entry.member);
            if let Ok(task) = entry.member.parse() {
                look_at(&mut batch, &task, now);
            }
        }
        let is_last = entries.len() < MARKS_A_COMMIT;
        if is_last {
            // A wave that changes again is to wake again.
            batch.expect.push((key(wave), is_so));
            batch.unindex(to_wake(), wave);
        }
        if retry::once(store, batch).await? && is_last {
            return Ok(());
        }
    }
}

/// Adds to a batch that a wave lets a node begin, of those that may before its canaries have succeeded: of two at once, one
/// commit conflicts.
///
/// # Errors
/// [`StoreError`].
pub fn count_canary(batch: &mut Batch, found: &Versioned<Wave>) -> Result<(), StoreError> {
    found.replace_in(batch, key(found.value.id))
}

/// Ends the waves whose last task has ended. Returns how many it looked at.
///
/// # Errors
/// [`StoreError`].
pub async fn close(store: &dyn Store, limit: usize) -> Result<usize, StoreError> {
    let entries = store.range(&to_close(), From::Start, limit).await?;
    for wave in entries.iter().filter_map(|entry| entry.member.parse::<WaveId>().ok()) {
        let mut batch = Batch::default();
        batch.unindex(to_close(), wave);
        if let Some(mut found) = find(store, wave).await? {
            let is_empty = store.range(&open_in(wave), From::Start, 1).await?.is_empty();
            match &found.value.state {
                WaveState::Open if is_empty => {
                    found.value.state = WaveState::Done { at: store.now().await? };
                    found.replace_in(&mut batch, key(wave))?;
                }
                // Its tasks may wait for the canaries.
                WaveState::Open if found.value.canary > 0 => {
                    batch.index(to_wake(), 0, wave);
                }
                WaveState::Planning { .. }
                | WaveState::Open
                | WaveState::Frozen { .. }
                | WaveState::Done { .. }
                | WaveState::Dropped { .. } => {
                    batch.expect.push((key(wave), Expect::Version(found.version)));
                }
            }
        }
        retry::once(store, batch).await?;
    }
    Ok(entries.len())
}

/// How many tasks of a wave were built or are being built by runs that it started, and how many were built, counted up to
/// `limit`.
///
/// # Errors
/// [`StoreError`].
pub async fn progress(
    store: &dyn Store,
    wave: WaveId,
    limit: usize,
) -> Result<(usize, usize), StoreError> {
    let started = store.range(&started_in(wave), From::Start, limit).await?.len();
    let built = store.range(&built_in(wave), From::Start, limit).await?.len();
    Ok((started, built))
}

/// Freezes a wave whose canary failed. Does nothing if it is not open.
///
/// # Errors
/// [`StoreError`].
pub async fn freeze(store: &dyn Store, wave: WaveId, run: RunId) -> Result<(), StoreError> {
    let freeze = |state: &WaveState, _| match state {
        WaveState::Open | WaveState::Planning { .. } => Some(WaveState::Frozen { run }),
        WaveState::Frozen { .. } | WaveState::Done { .. } | WaveState::Dropped { .. } => None,
    };
    change(store, wave, freeze).await.map(drop)
}

/// Lets a frozen wave go on without canaries. Returns the wave; `None` if there is none. Changes nothing if it is not
/// frozen.
///
/// # Errors
/// [`StoreError`].
pub async fn resume(store: &dyn Store, wave: WaveId) -> Result<Option<Wave>, StoreError> {
    let resume = |state: &WaveState, _| match state {
        // What it reached while it was frozen was not followed.
        WaveState::Frozen { .. } => Some(WaveState::Planning { events: Vec::new() }),
        WaveState::Planning { .. }
        | WaveState::Open
        | WaveState::Done { .. }
        | WaveState::Dropped { .. } => None,
    };
    change(store, wave, resume).await
}

/// Drops a wave: its tasks that have not begun are not built for it. Returns the wave; `None` if there is none. Changes
/// nothing if it is over.
///
/// # Errors
/// [`StoreError`].
pub async fn drop_wave(store: &dyn Store, wave: WaveId) -> Result<Option<Wave>, StoreError> {
    let drop = |state: &WaveState, now| match state {
        WaveState::Planning { .. } | WaveState::Open | WaveState::Frozen { .. } => {
            Some(WaveState::Dropped { at: now })
        }
        WaveState::Done { .. } | WaveState::Dropped { .. } => None,
    };
    change(store, wave, drop).await
}

async fn change(
    store: &dyn Store,
    wave: WaveId,
    next: impl Fn(&WaveState, Timestamp) -> Option<WaveState> + Send + Sync,
) -> Result<Option<Wave>, StoreError> {
    retry::commit(store, &key(wave), || async {
        let Some(mut found) = find(store, wave).await? else { return Ok(Plan::Answer(None)) };
        let now = store.now().await?;
        let Some(state) = next(&found.value.state, now) else {
            return Ok(Plan::Answer(Some(found.value)));
        };
        let mut batch = Batch::default();
        if matches!(found.value.state, WaveState::Frozen { .. }) {
            found.value.canary = 0;
        }
        match state {
            WaveState::Planning { .. } => batch.index(by_planning(), now.as_millis(), wave),
            WaveState::Open
            | WaveState::Frozen { .. }
            | WaveState::Done { .. }
            | WaveState::Dropped { .. } => {
                batch.unindex(by_planning(), wave);
                batch.index(to_wake(), now.as_millis(), wave);
            }
        }
        found.value.state = state;
        found.replace_in(&mut batch, key(wave))?;
        Ok(Plan::Commit(batch, Some(found.value)))
    })
    .await
}

/// Deletes waves that began before `before` and are over, with their tasks, at most `limit`. Returns how many.
///
/// # Errors
/// [`StoreError`].
pub async fn forget(
    store: &dyn Store,
    before: Timestamp,
    limit: usize,
) -> Result<usize, StoreError> {
    let entries = store.range(&by_age(), From::Start, limit).await?;
    let old = entries.iter().take_while(|entry| entry.score < before.as_millis());
    let mut count = 0;
    for wave in old.filter_map(|entry| entry.member.parse::<WaveId>().ok()) {
        if find(store, wave).await?.is_some_and(|found| !found.value.state.is_over()) {
            continue;
        }
        loop {
            let entries = store.range(&tasks_of(wave), From::Start, TASKS_A_COMMIT).await?;
            let mut batch = Batch::default();
            for task in entries.iter().filter_map(|entry| entry.member.parse().ok()) {
                batch.delete.push(task_key(wave, &task));
                batch.unindex(tasks_of(wave), &task);
                batch.unindex(built_in(wave), &task);
                batch.unindex(started_in(wave), &task);
            }
            let is_last = entries.len() < TASKS_A_COMMIT;
            if is_last {
                batch.delete.push(key(wave));
                batch.unindex(of_registry(wave.prefix()), wave);
                batch.unindex(by_age(), wave);
            }
            retry::once(store, batch).await?;
            if is_last {
                break;
            }
        }
        count += 1;
    }
    Ok(count)
}

async fn members(
    store: &dyn Store,
    index: &Index,
    limit: usize,
) -> Result<Vec<NodeTask>, StoreError> {
    let entries = store.range(index, From::Start, limit).await?;
    Ok(entries.iter().filter_map(|entry| entry.member.parse().ok()).collect())
}

fn key(wave: WaveId) -> Key {
    Key::new(Kind::Wave, wave)
}

fn task_key(wave: WaveId, task: &NodeTask) -> Key {
    Key::new(Kind::WaveTask, format_args!("{wave} {task}"))
}

/// Two waves may begin in one millisecond, so their numbers tell which is newer.
fn listed(wave: &Wave) -> Entry {
    let number = i64::try_from(wave.id.number()).unwrap_or(i64::MAX);
    Entry { score: -number, member: wave.id.to_string() }
}

fn of_registry(registry: RunPrefix) -> Index {
    Index::new(format!("waves/registry/{registry}"))
}

fn by_age() -> Index {
    Index::new("waves/age")
}

fn by_planning() -> Index {
    Index::new("waves/planning")
}

/// Waves that have changed since they held tasks.
fn to_wake() -> Index {
    Index::new("waves/waking")
}

/// The tasks that a wave does not let begin for now.
fn held_by(wave: WaveId) -> Index {
    Index::new(format!("waves/held/{wave}"))
}

/// Waves of which a task has ended.
fn to_close() -> Index {
    Index::new("waves/closing")
}

fn tasks_of(wave: WaveId) -> Index {
    Index::new(format!("waves/tasks/{wave}"))
}

fn open_in(wave: WaveId) -> Index {
    Index::new(format!("waves/open/{wave}"))
}

fn unexpanded_in(wave: WaveId) -> Index {
    Index::new(format!("waves/unexpanded/{wave}"))
}

fn started_in(wave: WaveId) -> Index {
    Index::new(format!("waves/started/{wave}"))
}

fn built_in(wave: WaveId) -> Index {
    Index::new(format!("waves/built/{wave}"))
}
