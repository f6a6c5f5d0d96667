//! Tasks, their revisions, and the index that finds the tasks that an event may match.

use std::time::Duration;

use gantry_domain::decide::matcher;
use gantry_domain::event::{Event, EventKind};
use gantry_domain::id::{RegistryName, RunPrefix, TaskId};
use gantry_domain::source::RepositoryKey;
use gantry_domain::task::Task;
use gantry_domain::timestamp::Timestamp;
use gantry_domain::wave::NodeTask;

use crate::codec;
use crate::collection::Collection;
use crate::events;
use crate::last_builds;
use crate::place::Place;
use crate::provisioning;
use crate::registries::{self, AddError};
use crate::retry::{self, Plan};
use crate::store::{Batch, CommitError, Entry, Expect, From, Index, Key, Kind, Store, StoreError};
use crate::task_images;
use crate::timers;
use crate::watches;
use crate::waves;

const ALL: Collection<Task> = Collection::new(Kind::Task);

const ONE_MILLISECOND: Duration = Duration::from_millis(1);

/// Creates a task as revision 1, with the event that it was saved. The time of creation is moved forward if an earlier
/// task of this name has the same one.
///
/// # Errors
/// [`AddError`].
pub async fn create(store: &dyn Store, task: &Task) -> Result<(Task, Event), AddError> {
    let id = task.id.to_string();
    let mut created = task.created;
    for _ in 0..retry::TRIES {
        let task = Task { created, ..task.clone() };
        if ALL.find(store, &id).await?.is_some() {
            return Err(AddError::Exists { key: ALL.key(&id) });
        }
        let mut batch = Batch::default();
        registries::add_in(store, &mut batch, &task.id.registry, task.prefix).await?;
        ALL.create_in(&mut batch, &id, &task)?;
        batch.index(of_registry(&task.id.registry), 0, &id);
        let revision = record_revision(&mut batch, &task)?;
        batch.expect.push((revision.clone(), Expect::Absent));
        task_images::create(&mut batch, &task)?;
        watch_source(&mut batch, None, &task)?;
        ask_for_webhooks(&mut batch, &[&task], task.updated);
        claim_repository(&mut batch, None, Some(&task));
        timers::change(&mut batch, None, Some(&task), task.updated)?;
        let event = saved(None, &task);
        events::record_undecided(&mut batch, &event)?;
        match store.commit(batch).await {
            Ok(()) => return Ok((task, event)),
            Err(CommitError::Conflict { key }) if key == revision => {
                created = created.after(ONE_MILLISECOND);
            }
            Err(CommitError::Conflict { .. }) => {}
            Err(CommitError::Store(error)) => return Err(error.into()),
        }
    }
    Err(retry::too_busy(&ALL.key(&id)).into())
}

/// Reads a task.
///
/// # Errors
/// [`StoreError`].
pub async fn find(store: &dyn Store, id: &TaskId) -> Result<Option<Task>, StoreError> {
    ALL.find(store, &id.to_string()).await
}

/// Adds to a batch that a task is as it was read. Its commit conflicts if the task was saved since.
///
/// # Errors
/// [`StoreError`].
pub async fn expect(store: &dyn Store, batch: &mut Batch, task: &Task) -> Result<bool, StoreError> {
    let Some(found) = ALL.find_versioned(store, &task.id.to_string()).await? else {
        return Ok(false);
    };
    batch.expect.push((ALL.key(&task.id.to_string()), Expect::Version(found.version)));
    Ok(found.value == *task)
}

/// Lists tasks by name, of one registry or of all, after `after`.
///
/// # Errors
/// [`StoreError`].
pub async fn list(
    store: &dyn Store,
    registry: Option<&RegistryName>,
    after: Option<&TaskId>,
    limit: usize,
) -> Result<Vec<Task>, StoreError> {
    let after = after.map(ToString::to_string);
    match registry {
        Some(registry) => ALL.list_in(store, &of_registry(registry), after.as_deref(), limit).await,
        None => ALL.list(store, after.as_deref(), limit).await,
    }
}

/// Changes a task, as its next revision, with the event that it was saved; without an event if nothing changed. `None`
/// if there is no such task.
///
/// # Errors
/// [`StoreError`].
pub async fn update(
    store: &dyn Store,
    id: &TaskId,
    change: impl Fn(&mut Task) + Send + Sync,
) -> Result<Option<(Task, Option<Event>)>, StoreError> {
    let now = store.now().await?;
    let next_revision = |task: &mut Task| {
        let before = task.clone();
        change(task);
        (task.id, task.prefix, task.created) = (before.id.clone(), before.prefix, before.created);
        (task.revision, task.updated) = (before.revision, before.updated);
        if *task != before {
            task.revision += 1;
            task.updated = now;
        }
    };
    let member = id.to_string();
    retry::commit(store, &ALL.key(&member), || async {
        let Some(mut found) = ALL.find_versioned(store, &member).await? else {
            return Ok(Plan::Answer(None));
        };
        let before = found.value.clone();
        next_revision(&mut found.value);
        if found.value == before {
            return Ok(Plan::Answer(Some((before, None))));
        }
        let mut batch = Batch::default();
        found.replace_in(&mut batch, ALL.key(&member))?;
        let after = found.value;
        record_revision(&mut batch, &after)?;
        task_images::change(store, &mut batch, &after, now).await?;
        watch_source(&mut batch, Some(&before), &after)?;
        ask_for_webhooks(&mut batch, &[&before, &after], now);
        claim_repository(&mut batch, Some(&before), Some(&after));
        timers::change(&mut batch, Some(&before), Some(&after), now)?;
        waves::look_at(&mut batch, &NodeTask::of(&after), now);
        let event = saved(Some(&before), &after);
        events::record_undecided(&mut batch, &event)?;
        Ok(Plan::Commit(batch, Some((after, Some(event)))))
    })
    .await
}

/// Removes a task; its runs and revisions are kept until they expire. Returns whether it existed.
///
/// # Errors
/// [`StoreError`].
pub async fn delete(store: &dyn Store, id: &TaskId) -> Result<bool, StoreError> {
    let member = id.to_string();
    retry::commit(store, &ALL.key(&member), || async {
        let Some(found) = ALL.find_versioned(store, &member).await? else {
            return Ok(Plan::Answer(false));
        };
        let (mut batch, now) = (Batch::default(), store.now().await?);
        // Under its version: a concurrent update may change the watched repository, and its index entry would be left
        // behind.
        batch.expect.push((ALL.key(&member), Expect::Version(found.version)));
        ALL.delete_in(&mut batch, &member);
        task_images::forget(store, &mut batch, &found.value, now).await?;
        last_builds::forget(store, &mut batch, &found.value).await?;
        waves::look_at(&mut batch, &NodeTask::of(&found.value), now);
        batch.unindex(of_registry(&id.registry), &member);
        claim_repository(&mut batch, Some(&found.value), None);
        timers::change(&mut batch, Some(&found.value), None, found.value.updated)?;
        if let Some(place) = Place::of(&found.value) {
            watches::end(&mut batch, &place, id);
            batch.unindex(by_source(place.registry, &place.repository), &member);
        }
        ask_for_webhooks(&mut batch, &[&found.value], now);
        Ok(Plan::Commit(batch, true))
    })
    .await
}

/// The tasks of a registry whose source trigger watches `repository`, by name, after `after`.
///
/// # Errors
/// [`StoreError`].
pub async fn watching(
    store: &dyn Store,
    registry: RunPrefix,
    repository: &RepositoryKey,
    after: Option<&TaskId>,
    limit: usize,
) -> Result<Vec<Task>, StoreError> {
    let after = after.map(ToString::to_string);
    ALL.list_in(store, &by_source(registry, repository), after.as_deref(), limit).await
}

/// Whether a task of another registry reports to the same repository.
///
/// # Errors
/// [`StoreError`].
pub async fn is_claimed_by_others(
    store: &dyn Store,
    registry: RunPrefix,
    repository: &RepositoryKey,
) -> Result<bool, StoreError> {
    let own = format!("{registry}/");
    // `0` is the character after `/`, so these are the first of all and the first after the registry's own.
    let behind_own = From::After(Entry { score: 0, member: format!("{registry}0") });
    for from in [From::Start, behind_own] {
        let first = store.range(&by_repository(repository), from, 1).await?;
        if first.iter().any(|entry| !entry.member.starts_with(&own)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Removes revisions made before `before`, at most `limit`. Returns how many.
///
/// # Errors
/// [`StoreError`].
pub async fn forget_revisions(
    store: &dyn Store,
    before: Timestamp,
    limit: usize,
) -> Result<usize, StoreError> {
    let entries = store.range(&revisions(), From::Start, limit).await?;
    let old: Vec<Entry> =
        entries.into_iter().take_while(|entry| entry.score < before.as_millis()).collect();
    let mut batch = Batch::default();
    for entry in &old {
        batch.delete.push(Key::new(Kind::TaskRevision, &entry.member));
        batch.unindex(revisions(), &entry.member);
    }
    if !batch.is_empty() {
        crate::collection::commit_unconditional(store, batch).await?;
    }
    Ok(old.len())
}

fn record_revision(batch: &mut Batch, task: &Task) -> Result<Key, StoreError> {
    let member = format!("{}@{}.{}", task.id, task.created.as_millis(), task.revision);
    let key = Key::new(Kind::TaskRevision, &member);
    batch.put(key.clone(), codec::encode(&key, task)?);
    batch.index(revisions(), task.updated.as_millis(), member);
    Ok(key)
}

/// Updates the index of watched repositories, and their watches.
fn watch_source(batch: &mut Batch, before: Option<&Task>, after: &Task) -> Result<(), StoreError> {
    let (old, new) = (before.and_then(Place::of), Place::of(after));
    if let Some(old) = old.filter(|old| Some(old) != new.as_ref()) {
        watches::end(batch, &old, &after.id);
        batch.unindex(by_source(old.registry, &old.repository), &after.id);
    }
    if let Some(new) = &new {
        batch.index(by_source(new.registry, &new.repository), 0, &after.id);
        if !before.is_some_and(|before| is_watched_alike(before, after)) {
            watches::begin(batch, new, after)?;
        }
    }
    Ok(())
}

/// Whether both watch the same, equally often.
fn is_watched_alike(before: &Task, after: &Task) -> bool {
    let watched = |task: &Task| (task.recipe.source.clone(), task.source_trigger.clone());
    watched(before) == watched(after)
}

/// Has the webhooks of the repositories that these tasks watch looked at.
fn ask_for_webhooks(batch: &mut Batch, tasks: &[&Task], now: Timestamp) {
    for task in tasks {
        if let Some(place) = Place::of(task) {
            provisioning::ask(batch, &place, now);
        }
    }
}

/// Updates the index of the repositories that tasks report to.
fn claim_repository(batch: &mut Batch, before: Option<&Task>, after: Option<&Task>) {
    let claim = |task: &Task| {
        let repository = task.repository().filter(|_| task.reports)?.key();
        Some((by_repository(&repository), format!("{}/{}", task.prefix, task.id.name)))
    };
    let (old, new) = (before.and_then(claim), after.and_then(claim));
    if let Some((index, member)) = old.filter(|old| Some(old) != new.as_ref()) {
        batch.unindex(index, member);
    }
    if let Some((index, member)) = new {
        batch.index(index, 0, member);
    }
}

/// The event that a revision of a task was saved.
fn saved(before: Option<&Task>, after: &Task) -> Event {
    let watched = |task: &Task| {
        matcher::watched_repository(task)
            .map(|repository| (repository, matcher::watched_branch(task), task.git_token.clone()))
    };
    let watches_anew = watched(after).is_some() && before.and_then(watched) != watched(after);
    // The id contains the time of creation: the events of a deleted task outlive it, and a new task may have its name.
    let (created, revision) = (after.created.as_millis(), after.revision);
    let Ok(id) = format!("task:{}:{created}:{revision}", after.id).parse() else {
        unreachable!("a task's id and numbers are short and of an event id's characters")
    };
    Event {
        id,
        registry: after.id.registry.clone(),
        prefix: after.prefix,
        received: after.updated,
        trace: None,
        kind: EventKind::TaskSaved { task: after.id.clone(), created: after.created, watches_anew },
    }
}

fn of_registry(registry: &RegistryName) -> Index {
    Index::new(format!("tasks/registry/{registry}"))
}

fn by_source(registry: RunPrefix, repository: &RepositoryKey) -> Index {
    Index::new(format!("tasks/source/{registry}/{repository}"))
}

/// The tasks that report to a repository. Members are `registry's prefix/task`.
fn by_repository(repository: &RepositoryKey) -> Index {
    Index::new(format!("tasks/repository/{repository}"))
}

/// The index of all tasks, by id.
pub(crate) fn listing() -> Index {
    ALL.listing()
}

/// The index of all kept revisions, scored by the time they were made.
pub(crate) fn revisions() -> Index {
    Index::new("tasks/revisions")
}
