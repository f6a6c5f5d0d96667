//! What the last successful run of each task used and made, and which tasks make an image.

use std::collections::BTreeSet;

use gantry_domain::id::RunPrefix;
use gantry_domain::image::{ImageReference, RegistryHost, Repository};
use gantry_domain::task::Task;
use gantry_domain::tracked_image::TrackedImage;
use gantry_domain::wave::{LastBuild, NodeTask};

use crate::codec;
use crate::store::{Batch, Entry, From, Index, Key, Kind, Store, StoreError};

/// How many tasks of one registry may make the same tag. The others are not waited for.
const MOST_MAKERS: usize = 64;

/// What the last successful run of a task used and made; `None` if none has succeeded.
///
/// # Errors
/// [`StoreError`].
pub async fn find(store: &dyn Store, task: &NodeTask) -> Result<Option<LastBuild>, StoreError> {
    Ok(codec::load(store, &key(task)).await?.map(|found| found.value))
}

/// Adds to a batch what a run used and made, unless a later run of the task is recorded.
///
/// # Errors
/// [`StoreError`].
pub async fn record(
    store: &dyn Store,
    batch: &mut Batch,
    task: &NodeTask,
    build: &LastBuild,
) -> Result<(), StoreError> {
    let key = key(task);
    let made = |build: &LastBuild| build.made.iter().cloned().collect::<BTreeSet<_>>();
    let is = made(build);
    let was = match codec::load::<LastBuild>(store, &key).await? {
        Some(found) if found.value.run.number() > build.run.number() => return Ok(()),
        Some(mut found) => {
            let was = made(&found.value);
            found.value = build.clone();
            found.replace_in(batch, key)?;
            was
        }
        None => {
            batch.create(key.clone(), codec::encode(&key, build)?);
            BTreeSet::new()
        }
    };
    let indexes = |made: &BTreeSet<ImageReference>| -> BTreeSet<String> {
        made.iter().flat_map(indexes_of).collect()
    };
    let (was, is) = (indexes(&was), indexes(&is));
    for index in was.difference(&is) {
        batch.unindex(Index::new(index), task);
    }
    for index in is.difference(&was) {
        batch.index(Index::new(index), 0, task);
    }
    Ok(())
}

/// Adds to a batch that a task is deleted.
pub(crate) async fn forget(
    store: &dyn Store,
    batch: &mut Batch,
    task: &Task,
) -> Result<(), StoreError> {
    let task = NodeTask::of(task);
    let made = match find(store, &task).await {
        Ok(found) => found.map(|build| build.made).unwrap_or_default(),
        Err(StoreError::Undecodable { .. }) => Vec::new(),
        Err(error) => return Err(error),
    };
    for index in made.iter().flat_map(indexes_of) {
        batch.unindex(Index::new(index), &task);
    }
    batch.delete.push(key(&task));
    Ok(())
}

/// The tasks of the same registry as `task` that make an image, without itself.
///
/// # Errors
/// [`StoreError`].
pub async fn makers_of(
    store: &dyn Store,
    image: &TrackedImage,
    task: &NodeTask,
) -> Result<Vec<NodeTask>, StoreError> {
    let mut tasks = makers(store, image, Some(task.prefix)).await?;
    tasks.retain(|it| it != task);
    Ok(tasks)
}

/// The tasks that make an image, at most 64: those of one registry, or of all.
///
/// # Errors
/// [`StoreError`].
pub async fn makers(
    store: &dyn Store,
    image: &TrackedImage,
    registry: Option<RunPrefix>,
) -> Result<Vec<NodeTask>, StoreError> {
    let from = registry.map_or(From::Start, |prefix| {
        From::After(Entry { score: 0, member: format!("{prefix}/") })
    });
    let index = match image.tagged() {
        Some(image) => by_made(&image),
        None => by_repository(image.host(), image.repository()),
    };
    let entries = store.range(&Index::new(index), from, MOST_MAKERS).await?;
    let tasks = entries.iter().filter_map(|entry| entry.member.parse::<NodeTask>().ok());
    let tasks = tasks.take_while(|it| registry.is_none_or(|prefix| it.prefix == prefix));
    if image.pattern().is_none() {
        return Ok(tasks.collect());
    }
    let mut makers = Vec::new();
    for task in tasks {
        if find(store, &task).await?.is_some_and(|last| last.makes(image)) {
            makers.push(task);
        }
    }
    Ok(makers)
}

fn key(task: &NodeTask) -> Key {
    Key::new(Kind::LastBuild, task)
}

/// The indexes of the tasks that make an image: by its tag, and by its repository for the policies that may choose it. Members
/// begin with the prefix of the task's registry.
fn indexes_of(image: &ImageReference) -> [String; 2] {
    [by_made(image), by_repository(image.host(), image.repository())]
}

fn by_made(image: &ImageReference) -> String {
    format!("images/makers/{image}")
}

fn by_repository(host: &RegistryHost, repository: &Repository) -> String {
    format!("images/makers-in/{host}/{repository}")
}
