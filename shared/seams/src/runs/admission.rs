//! Admission: moves a waiting run to ready within the limits of its registry and task, with any number of schedulers.
//!
//! Admitted runs are counted in an index, and a commit cannot require an index to be unchanged. So each admission also
//! replaces a record of the registry, and one of the task if it has a limit. A scheduler that counted before another
//! one admitted then conflicts at that record, and counts again.

use gantry_domain::cause::Cause;
use gantry_domain::decide::order;
use gantry_domain::id::{RunId, RunPrefix, TaskName};
use gantry_domain::run::{Progress, ReadySecrets, Run, WaitReason};
use gantry_domain::sealed::Sealed;
use gantry_domain::timer::TimerName;

use super::indexes::{placed_in_registry, placed_in_task, placed_in_timer, reindex};
use super::{RunOpError, advance, bundles, find_versioned, key};
use crate::retry::{self, Plan};
use crate::store::{Batch, Expect, From, Index, Key, Kind, Store, StoreError};

/// How many runs may be admitted and not ended at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The limit of the run's registry.
    pub registry: u32,
    /// The limit of its task, if it has one.
    pub task: Option<u32>,
}

/// The result of [`ready`].
#[derive(Debug, Clone, PartialEq)]
pub enum Admission {
    /// The run is ready.
    Ready(Box<Run>),
    /// A limit is reached: the run keeps waiting.
    Full(WaitReason),
}

/// The limit that a run would wait for now, if one is reached. Only [`ready`] enforces it.
///
/// # Errors
/// [`StoreError`].
pub async fn full(
    store: &dyn Store,
    run: &Run,
    limits: Limits,
) -> Result<Option<WaitReason>, StoreError> {
    for quota in quotas(run, limits) {
        if quota.is_full(store).await? {
            return Ok(Some(quota.full));
        }
    }
    Ok(None)
}

/// Admits a waiting run and stores its sealed secrets as `bundle`, so that a worker of its pool may take it. `limits`
/// hold even if other schedulers admit at the same moment. They do not apply to hidden runs.
///
/// # Errors
/// [`RunOpError::Absent`]; [`RunOpError::Illegal`] if the run is no longer waiting.
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
        if let Some(reason) = take_from_quotas(store, &mut batch, &before, limits).await? {
            return Ok(Plan::Answer(Admission::Full(reason)));
        }
        let rank = order::rank(before.purpose, before.run_type, before.created);
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

/// Counts the admitted runs, and makes the batch conflict if another run is admitted meanwhile. Returns the reason to
/// wait if a limit is reached.
async fn take_from_quotas(
    store: &dyn Store,
    batch: &mut Batch,
    run: &Run,
    limits: Limits,
) -> Result<Option<WaitReason>, StoreError> {
    let quotas = quotas(run, limits);
    let keys: Vec<Key> = quotas.iter().map(|quota| quota.last_admitted.clone()).collect();
    // Read before counting: an admission in between replaces one of these records.
    let last_admitted = store.load(&keys).await?;
    for (quota, last) in quotas.into_iter().zip(last_admitted) {
        if quota.is_full(store).await? {
            return Ok(Some(quota.full));
        }
        let expected = last.map_or(Expect::Absent, |last| Expect::Version(last.version));
        batch.expect.push((quota.last_admitted.clone(), expected));
        batch.put(quota.last_admitted, run.id.to_string());
    }
    Ok(None)
}

struct Quota {
    last_admitted: Key,
    taken: Index,
    limit: u32,
    full: WaitReason,
}

impl Quota {
    async fn is_full(&self, store: &dyn Store) -> Result<bool, StoreError> {
        let limit = self.limit as usize;
        Ok(store.range(&self.taken, From::Start, limit).await?.len() >= limit)
    }
}

fn quotas(run: &Run, limits: Limits) -> Vec<Quota> {
    if run.is_hidden() {
        return Vec::new();
    }
    let prefix = run.id.prefix();
    let mut quotas = Vec::new();
    if let (Cause::Timer { timer, queues: true, .. }, Some(task)) = (&run.cause, &run.task) {
        quotas.push(Quota {
            last_admitted: last_admitted_of_timer(prefix, &task.name, timer),
            taken: placed_in_timer(prefix, &task.name, timer),
            limit: 1,
            full: WaitReason::EarlierRun,
        });
    }
    quotas.push(Quota {
        last_admitted: last_admitted_of_registry(prefix),
        taken: placed_in_registry(prefix),
        limit: limits.registry,
        full: WaitReason::RegistryLimit { limit: limits.registry },
    });
    if let (Some(task), Some(limit)) = (&run.task, limits.task) {
        quotas.push(Quota {
            last_admitted: last_admitted_of_task(prefix, &task.name),
            taken: placed_in_task(prefix, &task.name),
            limit,
            full: WaitReason::TaskLimit { limit },
        });
    }
    quotas
}

/// The record that each admission of a run of this registry replaces.
pub(crate) fn last_admitted_of_registry(registry: RunPrefix) -> Key {
    Key::new(Kind::Admission, format_args!("registry/{registry}"))
}

/// The record that each admission of a run of this task replaces.
pub(crate) fn last_admitted_of_task(registry: RunPrefix, task: &TaskName) -> Key {
    Key::new(Kind::Admission, format_args!("task/{registry}/{task}"))
}

/// The record that each admission of a queued run of this timer replaces.
pub(crate) fn last_admitted_of_timer(
    registry: RunPrefix,
    task: &TaskName,
    timer: &TimerName,
) -> Key {
    Key::new(Kind::Admission, format_args!("timer/{registry}/{task}/{timer}"))
}
