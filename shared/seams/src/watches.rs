//! Which tasks' repositories gantry looks at itself, and when.
//!
//! A webhook may be lost, and a task may have none. So each task with a source trigger has a watch: when it is due, a
//! scheduler compares the heads of its repository with the facts. Any number of schedulers may look: only the one that
//! moves a watch on does.

use std::time::Duration;

use gantry_domain::id::TaskId;
use gantry_domain::task::Task;
use gantry_domain::timestamp::Timestamp;
use serde::{Deserialize, Serialize};

use crate::codec::{self, Versioned};
use crate::store::{Batch, CommitError, From, Index, Key, Kind, Store, StoreError};

/// The watch of one task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watch {
    /// The task.
    pub task: TaskId,
    /// Whether its repository was looked at since it watches it. Heads that are there at the first look are no news.
    pub has_looked: bool,
    /// When it is looked at next.
    pub due: Timestamp,
}

fn key(task: &TaskId) -> Key {
    Key::new(Kind::Watch, task)
}

fn by_due() -> Index {
    Index::new("watches/due")
}

/// Adds to a batch that the task is watched from the beginning: it is new, or watches something else than before.
pub(crate) fn begin(batch: &mut Batch, task: &Task) -> Result<(), StoreError> {
    let watch = Watch { task: task.id.clone(), has_looked: false, due: task.updated };
    let key = key(&task.id);
    batch.put(key.clone(), codec::encode(&key, &watch)?);
    batch.index(by_due(), watch.due.as_millis(), &task.id);
    Ok(())
}

/// Adds to a batch that the task is not watched any more.
pub(crate) fn end(batch: &mut Batch, task: &TaskId) {
    batch.delete.push(key(task));
    batch.unindex(by_due(), task);
}

/// The watches that are due, the longest first, at most `limit`.
///
/// # Errors
/// [`StoreError`].
pub async fn due(
    store: &dyn Store,
    now: Timestamp,
    limit: usize,
) -> Result<Vec<Versioned<Watch>>, StoreError> {
    let entries = store.range(&by_due(), From::Start, limit).await?;
    let due = entries.iter().take_while(|entry| entry.score <= now.as_millis());
    let keys: Vec<Key> = due.map(|entry| Key::new(Kind::Watch, &entry.member)).collect();
    codec::load_all(store, &keys).await
}

/// Moves a watch on, so that it is due again only after `pause`. Returns `None` if another scheduler did, or the task
/// was saved or deleted meanwhile.
///
/// # Errors
/// [`StoreError`].
pub async fn claim(
    store: &dyn Store,
    mut found: Versioned<Watch>,
    pause: Duration,
) -> Result<Option<Watch>, StoreError> {
    let due = store.now().await?.after(pause);
    found.value.due = due;
    let mut batch = Batch::default();
    let watch = found.value.clone();
    found.replace_in(&mut batch, key(&watch.task))?;
    batch.index(by_due(), due.as_millis(), &watch.task);
    commit(store, batch).await.map(|is_done| is_done.then_some(watch))
}

/// Makes a claimed watch due after `pause` already. Does nothing if the task was saved or deleted meanwhile.
///
/// # Errors
/// [`StoreError`].
pub async fn hasten(store: &dyn Store, watch: &Watch, pause: Duration) -> Result<(), StoreError> {
    let key = key(&watch.task);
    match codec::load::<Watch>(store, &key).await? {
        Some(found) if found.value == *watch => claim(store, found, pause).await.map(drop),
        Some(_) | None => Ok(()),
    }
}

/// Records that the heads which are there were seen, together with `batch`, which holds the facts about them. Returns
/// `false` if the task was saved or deleted meanwhile, or a fact has changed: look again.
///
/// # Errors
/// [`StoreError`].
pub async fn looked(
    store: &dyn Store,
    watch: &Watch,
    mut batch: Batch,
) -> Result<bool, StoreError> {
    let key = key(&watch.task);
    let Some(mut found) = codec::load::<Watch>(store, &key).await? else { return Ok(false) };
    if found.value != *watch {
        return Ok(false);
    }
    found.value.has_looked = true;
    found.replace_in(&mut batch, key)?;
    commit(store, batch).await
}

async fn commit(store: &dyn Store, batch: Batch) -> Result<bool, StoreError> {
    match store.commit(batch).await {
        Ok(()) => Ok(true),
        Err(CommitError::Conflict { .. }) => Ok(false),
        Err(CommitError::Store(error)) => Err(error),
    }
}
