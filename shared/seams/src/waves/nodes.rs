//! The open nodes of tasks: what waves have reached and is not up to date yet.
//!
//! A node is a record with a version, at most one for each task: whatever begins, continues or ends it commits under that
//! version.

use std::collections::BTreeMap;
use std::time::Duration;

use gantry_domain::id::{RunId, WaveId};
use gantry_domain::timestamp::Timestamp;
use gantry_domain::tracked_image::TrackedImage;
use gantry_domain::wave::{Node, NodeEnd, NodeState, NodeTask, Wave, WaveTask};

use super::{
    MARKS_A_COMMIT, built_in, held_by, key, members, open_in, started_in, task_key, tasks_of,
    to_close, unexpanded_in,
};
use crate::codec::{self, Versioned};
use crate::retry;
use crate::store::{Batch, Entry, Expect, From, Index, Key, Kind, Store, StoreError};

/// When a node that was put aside is looked at all the same: what its task uses may have changed meanwhile.
const LOOK_AGAIN: Duration = Duration::from_secs(300);

/// The open node of a task.
///
/// # Errors
/// [`StoreError`].
pub async fn node(
    store: &dyn Store,
    task: &NodeTask,
) -> Result<Option<Versioned<Node>>, StoreError> {
    codec::load(store, &node_key(task)).await
}

/// The open nodes of tasks, where they have one.
///
/// # Errors
/// [`StoreError`].
pub async fn nodes(
    store: &dyn Store,
    tasks: &[NodeTask],
) -> Result<BTreeMap<NodeTask, Versioned<Node>>, StoreError> {
    let keys: Vec<Key> = tasks.iter().map(node_key).collect();
    let found: Vec<Versioned<Node>> = codec::load_all(store, &keys).await?;
    Ok(found.into_iter().map(|node| (node.value.task.clone(), node)).collect())
}

/// A task that a wave reaches.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the fields without a comment explain themselves")]
pub struct Reached<'a> {
    pub task: &'a NodeTask,
    /// The image through which it is reached.
    pub through: &'a TrackedImage,
    /// Whether that image is known to have changed; else it may.
    pub has_moved: bool,
}

/// Adds to a batch that a wave reaches a task: the task gets a node, or the open one belongs to this wave too. `node` is the
/// task's node as it was read.
///
/// # Errors
/// [`StoreError`].
pub fn reach(
    batch: &mut Batch,
    wave: WaveId,
    reached: &Reached<'_>,
    node: Option<&Versioned<Node>>,
    now: Timestamp,
) -> Result<(), StoreError> {
    let Reached { task, through, has_moved } = reached;
    let key = node_key(task);
    let moved = |moved: &mut Vec<TrackedImage>| {
        if *has_moved && !moved.contains(through) {
            moved.push((*through).clone());
        }
    };
    let is_new = match node {
        None => {
            let mut node = Node {
                task: (*task).clone(),
                waves: vec![wave],
                moved: Vec::new(),
                state: NodeState::Waiting { pushed: Vec::new() },
                started: 0,
                since: now,
            };
            moved(&mut node.moved);
            batch.create(key.clone(), codec::encode(&key, &node)?);
            true
        }
        Some(found) => {
            let mut next = found.clone();
            let is_new = !next.value.waves.contains(&wave);
            if is_new {
                next.value.waves.push(wave);
            }
            moved(&mut next.value.moved);
            next.replace_in(batch, key)?;
            is_new
        }
    };
    if is_new {
        let of_wave = WaveTask {
            wave,
            task: (*task).clone(),
            through: (*through).clone(),
            end: None,
            at: now,
        };
        let key = task_key(wave, task);
        batch.put(key.clone(), codec::encode(&key, &of_wave)?);
        batch.index(tasks_of(wave), now.as_millis(), task);
        batch.index(open_in(wave), 0, task);
        batch.index(unexpanded_in(wave), 0, task);
    }
    look_at(batch, task, now);
    Ok(())
}

/// Adds to a batch that the node of a task is to be looked at, if it has one.
pub fn look_at(batch: &mut Batch, task: &NodeTask, now: Timestamp) {
    batch.index(to_look_at(), now.as_millis(), task);
}

/// Has the nodes of tasks looked at, where they have one.
///
/// # Errors
/// [`StoreError`].
pub async fn look_at_all(store: &dyn Store, tasks: &[NodeTask]) -> Result<(), StoreError> {
    let now = store.now().await?;
    for tasks in tasks.chunks(MARKS_A_COMMIT) {
        let mut batch = Batch::default();
        tasks.iter().for_each(|task| look_at(&mut batch, task, now));
        retry::once(store, batch).await?;
    }
    Ok(())
}

/// Tasks whose nodes are to be looked at at `now`, the longest first, after `from`, at most `limit`.
///
/// # Errors
/// [`StoreError`].
pub async fn to_look(
    store: &dyn Store,
    now: Timestamp,
    limit: usize,
) -> Result<Vec<Entry>, StoreError> {
    let mut entries = store.range(&to_look_at(), From::Start, limit).await?;
    entries.retain(|entry| entry.score <= now.as_millis());
    Ok(entries)
}

/// What was found out about a node that stays as it is: all of it must still be so when it is no longer looked at.
#[derive(Debug, Clone, Default)]
pub struct Seen(Vec<(Key, Expect)>);

impl Seen {
    /// A node in this state.
    pub fn node(&mut self, found: &Versioned<Node>) {
        self.0.push((node_key(&found.value.task), Expect::Version(found.version)));
    }

    /// A wave in this state.
    pub fn wave(&mut self, found: &Versioned<Wave>) {
        self.0.push((key(found.value.id), Expect::Version(found.version)));
    }
}

/// Puts a node aside until something changes, or some minutes have passed. Returns `false` if something that was seen has
/// changed.
///
/// # Errors
/// [`StoreError`].
pub async fn leave(store: &dyn Store, task: &NodeTask, seen: Seen) -> Result<bool, StoreError> {
    let mut batch = Batch { expect: seen.0, ..Batch::default() };
    batch.index(to_look_at(), store.now().await?.after(LOOK_AGAIN).as_millis(), task);
    retry::once(store, batch).await
}

/// Puts a node aside until one of the waves that hold it changes. Returns `false` if something that was seen, or one of the
/// waves, has changed.
///
/// # Errors
/// [`StoreError`].
pub async fn hold(
    store: &dyn Store,
    task: &NodeTask,
    mut seen: Seen,
    by: &[Versioned<Wave>],
) -> Result<bool, StoreError> {
    by.iter().for_each(|wave| seen.wave(wave));
    let mut batch = Batch { expect: seen.0, ..Batch::default() };
    batch.index(to_look_at(), store.now().await?.after(LOOK_AGAIN).as_millis(), task);
    for wave in by {
        batch.index(held_by(wave.value.id), 0, task);
    }
    retry::once(store, batch).await
}

/// Stops looking at a task that has no node. Returns `false` if it has one now.
///
/// # Errors
/// [`StoreError`].
pub async fn forget_task(store: &dyn Store, task: &NodeTask) -> Result<bool, StoreError> {
    let mut batch = Batch::default();
    batch.expect.push((node_key(task), Expect::Absent));
    batch.unindex(to_look_at(), task);
    retry::once(store, batch).await
}

/// Looks at a node again after `pause`.
///
/// # Errors
/// [`StoreError`].
pub async fn look_later(
    store: &dyn Store,
    task: &NodeTask,
    pause: Duration,
) -> Result<(), StoreError> {
    let mut batch = Batch::default();
    batch.index(to_look_at(), store.now().await?.after(pause).as_millis(), task);
    retry::once(store, batch).await.map(drop)
}

/// Adds to a batch that a node now waits for this run. `starts` is set if the node started it.
///
/// # Errors
/// [`StoreError`].
pub fn build(
    batch: &mut Batch,
    found: &Versioned<Node>,
    run: RunId,
    starts: bool,
) -> Result<(), StoreError> {
    let mut next = found.clone();
    next.value.state = NodeState::Building { run };
    next.value.started += u32::from(starts);
    let task = &found.value.task;
    next.replace_in(batch, node_key(task))?;
    batch.unindex(to_look_at(), task);
    if starts {
        for wave in &found.value.waves {
            batch.index(started_in(*wave), 0, task);
        }
    }
    Ok(())
}

/// Adds to a batch that a run that a push started waits with the node. Returns `false`, and adds only that the node is so,
/// if the node does not wait.
///
/// # Errors
/// [`StoreError`].
pub fn join(batch: &mut Batch, found: &Versioned<Node>, run: RunId) -> Result<(), StoreError> {
    let mut next = found.clone();
    if let NodeState::Waiting { pushed } = &mut next.value.state {
        pushed.push(run);
    }
    next.replace_in(batch, node_key(&found.value.task))
}

/// Adds to a batch that a node did not exist, or was in this state, when a run of its task was started.
pub fn expect(batch: &mut Batch, task: &NodeTask, found: Option<&Versioned<Node>>) {
    let expected = found.map_or(Expect::Absent, |found| Expect::Version(found.version));
    batch.expect.push((node_key(task), expected));
}

/// Ends a node. The tasks that use what its task makes are looked at next. Returns `false`, and does nothing, if the node
/// or something that was seen has changed.
///
/// # Errors
/// [`StoreError`].
pub async fn end(
    store: &dyn Store,
    found: &Versioned<Node>,
    seen: Seen,
    end: &NodeEnd,
) -> Result<bool, StoreError> {
    let (task, now) = (&found.value.task, store.now().await?);
    let mut batch = Batch { expect: seen.0, ..Batch::default() };
    batch.expect.push((node_key(task), Expect::Version(found.version)));
    batch.delete.push(node_key(task));
    batch.unindex(to_look_at(), task);
    batch.index(ended_nodes(), now.as_millis(), task);
    for wave in &found.value.waves {
        let key = task_key(*wave, task);
        if let Some(mut of_wave) = codec::load::<WaveTask>(store, &key).await? {
            of_wave.value.end = Some(end.clone());
            of_wave.value.at = now;
            of_wave.replace_in(&mut batch, key)?;
        }
        batch.unindex(open_in(*wave), task);
        batch.unindex(unexpanded_in(*wave), task);
        batch.unindex(held_by(*wave), task);
        batch.index(to_close(), now.as_millis(), wave);
        match end {
            NodeEnd::Built { .. } => batch.index(built_in(*wave), 0, task),
            NodeEnd::UsedBy { .. }
            | NodeEnd::Unchanged
            | NodeEnd::Failed { .. }
            | NodeEnd::NotBuilt { .. } => batch.unindex(started_in(*wave), task),
        }
    }
    retry::once(store, batch).await
}

/// Tasks whose nodes have ended, and whose followers are to be looked at, at most `limit`.
///
/// # Errors
/// [`StoreError`].
pub async fn ended(store: &dyn Store, limit: usize) -> Result<Vec<NodeTask>, StoreError> {
    members(store, &ended_nodes(), limit).await
}

/// Records that the followers of an ended node's task are looked at.
///
/// # Errors
/// [`StoreError`].
pub async fn followed(store: &dyn Store, task: &NodeTask) -> Result<(), StoreError> {
    let mut batch = Batch::default();
    batch.unindex(ended_nodes(), task);
    retry::once(store, batch).await.map(drop)
}

fn node_key(task: &NodeTask) -> Key {
    Key::new(Kind::Node, task)
}

fn to_look_at() -> Index {
    Index::new("nodes/look")
}

fn ended_nodes() -> Index {
    Index::new("nodes/ended")
}
