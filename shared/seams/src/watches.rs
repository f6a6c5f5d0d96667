//! Which repositories gantry looks at itself, and when.
//!
//! A webhook may be lost, and a repository may have none. So each repository that tasks of a registry watch has a watch:
//! when it is due, a scheduler compares its heads with the facts, for all of these tasks at once. Any number of schedulers
//! may look: only the one that moves a watch on does.

use std::time::Duration;

use gantry_domain::id::TaskId;
use gantry_domain::task::Task;
use gantry_domain::timestamp::Timestamp;
use serde::{Deserialize, Serialize};

use crate::codec::{self, Versioned};
use crate::place::Place;
use crate::retry;
use crate::store::{Batch, Expect, From, Index, Key, Kind, Store, StoreError};

/// How many watches one request to the store reads.
const READ_AT_ONCE: usize = 256;

/// The watch of one repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watch {
    /// The repository.
    pub place: Place,
    /// When it is looked at next.
    pub due: Timestamp,
}

/// What a look compares with the facts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Branches and tags.
    Heads,
    /// Pull requests.
    PullRequests,
}

impl Part {
    const ALL: [Self; 2] = [Self::Heads, Self::PullRequests];

    fn as_str(self) -> &'static str {
        match self {
            Self::Heads => "heads",
            Self::PullRequests => "pulls",
        }
    }
}

/// Adds to a batch that a task watches a place from now on: it is new, or watches something else than before.
pub(crate) fn begin(batch: &mut Batch, place: &Place, task: &Task) -> Result<(), StoreError> {
    // Whoever is looking at the place at this moment finds its watch changed, and looks again.
    let watch = Watch { place: place.clone(), due: task.updated };
    let key = key(place);
    batch.put(key.clone(), codec::encode(&key, &watch)?);
    batch.index(by_due(), watch.due.as_millis(), place.member());
    for part in Part::ALL {
        batch.index(new_at(place, part), watch.due.as_millis(), &task.id);
    }
    Ok(())
}

/// Adds to a batch that a task watches a place no longer. The watch itself ends when it is due and no task is left.
pub(crate) fn end(batch: &mut Batch, place: &Place, task: &TaskId) {
    for part in Part::ALL {
        batch.unindex(new_at(place, part), task);
    }
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
    let mut found: Vec<Versioned<Watch>> = codec::load_all(store, &keys).await?;
    // Another scheduler may have claimed it since its entry was read.
    found.retain(|found| found.value.due <= now);
    Ok(found)
}

/// Makes all watches due now, at most `limit`. Returns how many were not.
///
/// # Errors
/// [`StoreError`].
pub async fn hasten_all(store: &dyn Store, limit: usize) -> Result<usize, StoreError> {
    let now = store.now().await?;
    let entries = store.range(&by_due(), From::Start, limit).await?;
    let later = entries.iter().skip_while(|entry| entry.score <= now.as_millis());
    let keys: Vec<Key> = later.map(|entry| Key::new(Kind::Watch, &entry.member)).collect();
    for keys in keys.chunks(READ_AT_ONCE) {
        for found in codec::load_all(store, keys).await? {
            claim(store, found, Duration::ZERO).await?;
        }
    }
    Ok(keys.len())
}

/// The tasks that watch a place only since this part of it was looked at last, at most `limit`. What is there already is no
/// news to them.
///
/// # Errors
/// [`StoreError`].
pub async fn newcomers(
    store: &dyn Store,
    place: &Place,
    part: Part,
    limit: usize,
) -> Result<Vec<TaskId>, StoreError> {
    let entries = store.range(&new_at(place, part), From::Start, limit).await?;
    Ok(entries.iter().filter_map(|entry| entry.member.parse().ok()).collect())
}

/// Moves a watch on, so that it is due again only after `pause`. Returns `None` if another scheduler did, or a task began
/// to watch the place meanwhile.
///
/// # Errors
/// [`StoreError`].
pub async fn claim(
    store: &dyn Store,
    mut found: Versioned<Watch>,
    pause: Duration,
) -> Result<Option<Watch>, StoreError> {
    found.value.due = store.now().await?.after(pause);
    let mut batch = Batch::default();
    let watch = found.value.clone();
    found.replace_in(&mut batch, key(&watch.place))?;
    batch.index(by_due(), watch.due.as_millis(), watch.place.member());
    retry::once(store, batch).await.map(|is_done| is_done.then_some(watch))
}

/// Makes a claimed watch due after `pause` already. Does nothing if it has changed since.
///
/// # Errors
/// [`StoreError`].
pub async fn hasten(store: &dyn Store, watch: &Watch, pause: Duration) -> Result<(), StoreError> {
    match unchanged(store, watch).await? {
        Some(found) => claim(store, found, pause).await.map(drop),
        None => Ok(()),
    }
}

/// Records that these newcomers have seen this part of a place, together with `batch`, which holds the facts about it. Returns `false` if the watch or a fact has changed since: look again.
///
/// # Errors
/// [`StoreError`].
pub async fn seen(
    store: &dyn Store,
    watch: &Watch,
    part: Part,
    newcomers: &[TaskId],
    mut batch: Batch,
) -> Result<bool, StoreError> {
    let Some(found) = unchanged(store, watch).await? else { return Ok(false) };
    batch.expect.push((key(&watch.place), Expect::Version(found.version)));
    for task in newcomers {
        batch.unindex(new_at(&watch.place, part), task);
    }
    retry::once(store, batch).await
}

/// Ends the watch of a place that no task watches any more. Does nothing if one has begun to since.
///
/// # Errors
/// [`StoreError`].
pub async fn forget(store: &dyn Store, watch: &Watch) -> Result<(), StoreError> {
    let Some(found) = unchanged(store, watch).await? else { return Ok(()) };
    let key = key(&watch.place);
    let mut batch = Batch::default();
    batch.expect.push((key.clone(), Expect::Version(found.version)));
    batch.delete.push(key);
    batch.unindex(by_due(), watch.place.member());
    retry::once(store, batch).await.map(drop)
}

/// The watch as it is stored, if it is still the claimed one.
async fn unchanged(
    store: &dyn Store,
    watch: &Watch,
) -> Result<Option<Versioned<Watch>>, StoreError> {
    let found = codec::load::<Watch>(store, &key(&watch.place)).await?;
    Ok(found.filter(|found| found.value == *watch))
}

fn key(place: &Place) -> Key {
    Key::new(Kind::Watch, place.member())
}

fn by_due() -> Index {
    Index::new("watches/due")
}

fn new_at(place: &Place, part: Part) -> Index {
    Index::new(format!("watches/new/{}/{}", part.as_str(), place.member()))
}
