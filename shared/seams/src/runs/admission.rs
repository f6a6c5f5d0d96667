//! Admission: the one door from waiting to ready. It keeps the limits, however many schedulers stand at it.
//!
//! Places are counted in an index, and a commit cannot expect an index to have stayed as it was. So each admission
//! replaces a record of its registry, and of its task if that has a limit: who counted before another was admitted
//! conflicts there, and counts again.

use gantry_domain::decide::order;
use gantry_domain::id::{RegistryName, RunId, TaskId};
use gantry_domain::run::{Progress, ReadySecrets, Run, WaitReason};
use gantry_domain::sealed::Sealed;

use super::indexes::{placed_in_registry, placed_in_task, reindex};
use super::{RunOpError, advance, bundles, find_versioned, key};
use crate::retry::{self, Plan};
use crate::store::{Batch, Expect, From, Index, Key, Kind, Store, StoreError};

/// How many runs may hold a place at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Of the run's registry.
    pub registry: u32,
    /// Of its task, if that has a limit of its own.
    pub task: Option<u32>,
}

/// What became of a run at the door.
#[derive(Debug, Clone, PartialEq)]
pub enum Admission {
    /// It is ready.
    Ready(Box<Run>),
    /// Every place is taken: it waits for one.
    Full(WaitReason),
}

/// Lets any worker of its pool take a waiting run, whose secrets are `bundle`, if there is a place for it. Never more
/// than `limits` hold one, whoever else admits at the same moment.
///
/// # Errors
/// [`RunOpError::Absent`], [`RunOpError::Illegal`] when it does not wait any more.
pub async fn ready(
    store: &dyn Store,
    run: RunId,
    bundle: Option<Sealed>,
    limits: Limits,
) -> Result<Admission, RunOpError> {
    retry::commit(store, &key(run), || async {
        let mut found = find_versioned(store, run).await?.ok_or(RunOpError::Absent { run })?;
        let before = found.value.clone();
        let mut batch = Batch::default();
        if let Some(reason) = take_places(store, &mut batch, &before, limits).await? {
            return Ok(Plan::Answer(Admission::Full(reason)));
        }
        let rank = order::rank(before.run_type, before.created);
        let secrets = match &bundle {
            Some(_) => ReadySecrets::Stored,
            None => ReadySecrets::None,
        };
        let progress = Progress::Admitted { pool: before.pool(), rank, secrets };
        advance(&mut found.value, progress, store.now().await?)?;
        bundles::replace(&mut batch, &before, bundle.as_ref());
        found.replace_in(&mut batch, key(run))?;
        reindex(&mut batch, Some(&before), Some(&found.value));
        Ok(Plan::Commit(batch, Admission::Ready(Box::new(found.value))))
    })
    .await
}

/// Counts places, and lets the batch hold only if nobody else was admitted since. Says which are all taken.
async fn take_places(
    store: &dyn Store,
    batch: &mut Batch,
    run: &Run,
    limits: Limits,
) -> Result<Option<WaitReason>, StoreError> {
    let places = places(run, limits);
    let doors: Vec<Key> = places.iter().map(|place| place.door.clone()).collect();
    // Before the places are counted: who comes in between has replaced one of these.
    let last_admitted = store.load(&doors).await?;
    for (place, last) in places.into_iter().zip(last_admitted) {
        let limit = place.limit as usize;
        if store.range(&place.taken, From::Start, limit).await?.len() >= limit {
            return Ok(Some(place.full));
        }
        let expected = last.map_or(Expect::Absent, |last| Expect::Version(last.version));
        batch.expect.push((place.door.clone(), expected));
        batch.put(place.door, run.id.to_string());
    }
    Ok(None)
}

struct Place {
    door: Key,
    taken: Index,
    limit: u32,
    full: WaitReason,
}

fn places(run: &Run, limits: Limits) -> Vec<Place> {
    let mut places = vec![Place {
        door: registry_door(&run.registry),
        taken: placed_in_registry(&run.registry),
        limit: limits.registry,
        full: WaitReason::RegistryLimit { limit: limits.registry },
    }];
    if let (Some(task), Some(limit)) = (run.task_id(), limits.task) {
        places.push(Place {
            door: task_door(&task),
            taken: placed_in_task(&task),
            limit,
            full: WaitReason::TaskLimit { limit },
        });
    }
    places
}

/// What the admissions of a registry's runs replace.
pub(crate) fn registry_door(registry: &RegistryName) -> Key {
    Key::new(Kind::Admission, format_args!("registry/{registry}"))
}

/// What the admissions of a task's runs replace.
pub(crate) fn task_door(task: &TaskId) -> Key {
    Key::new(Kind::Admission, format_args!("task/{task}"))
}
