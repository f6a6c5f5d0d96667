//! Admission: moves a waiting run to ready within the limits of its registry, task and concurrency group, with any number
//! of schedulers.
//!
//! Admitted runs are counted in an index, and a commit cannot require an index to be unchanged. So each admission also
//! replaces a record of the registry, which all its limits belong to. A scheduler that counted before another one admitted
//! then conflicts at that record, and counts again.

use gantry_domain::cause::Cause;
use gantry_domain::decide::order;
use gantry_domain::id::{GroupName, PoolName, RunId, RunPrefix};
use gantry_domain::run::{Progress, ReadySecrets, Run, WaitReason};
use gantry_domain::sealed::Sealed;

use super::indexes::{
    self, placed_in_group, placed_in_registry, placed_in_task, placed_in_timer, reindex,
};
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
        if let Some(reason) = quota.full(store).await? {
            return Ok(Some(reason));
        }
    }
    Ok(None)
}

/// Admits a waiting run to a pool and stores its secrets, sealed for that pool, as `bundle`, so that a worker of the pool
/// may take it. `limits` hold even if other schedulers admit at the same moment. They do not apply to hidden runs.
///
/// # Errors
/// [`RunOpError::Absent`]; [`RunOpError::Illegal`] if the run is no longer waiting.
pub async fn ready(
    store: &dyn Store,
    run: RunId,
    pool: &PoolName,
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
        let turn = take_turn(store, &mut batch, pool).await?;
        let rank = order::rank(before.class(), turn);
        let secrets = match &bundle {
            Some(_) => ReadySecrets::Stored,
            None => ReadySecrets::None,
        };
        let progress = Progress::Admitted { pool: pool.clone(), rank, secrets };
        advance(&mut found.value, progress, store.now().await?)?;
        bundles::replace(&mut batch, &found.value, bundle.as_ref());
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
    if quotas.is_empty() {
        return Ok(None);
    }
    let key = last_admitted_of_registry(run.id.prefix());
    // Read before counting: an admission in between replaces the record.
    let last_admitted = store.load(std::slice::from_ref(&key)).await?.pop().flatten();
    for quota in quotas {
        if let Some(reason) = quota.full(store).await? {
            return Ok(Some(reason));
        }
    }
    let expected = last_admitted.map_or(Expect::Absent, |last| Expect::Version(last.version));
    batch.expect.push((key.clone(), expected));
    batch.put(key, run.id.to_string());
    Ok(None)
}

/// Counts the runs that were admitted to a pool. Concurrent admissions may get the same turn: they do not conflict.
async fn take_turn(
    store: &dyn Store,
    batch: &mut Batch,
    pool: &PoolName,
) -> Result<u64, StoreError> {
    let key = Key::new(Kind::Admission, format_args!("pool/{pool}"));
    let mut found = store.load(std::slice::from_ref(&key)).await?;
    let stored = found.pop().flatten();
    let last = stored.and_then(|record| std::str::from_utf8(&record.bytes).ok()?.parse().ok());
    let turn: u64 = match last {
        Some(last) => u64::saturating_add(last, 1),
        // Not behind the runs that are ready, if the count was lost.
        None => {
            let first = store.range(&indexes::ready(pool), From::Start, 1).await?.pop();
            first.and_then(|entry| u64::try_from(entry.score).ok()).unwrap_or(0)
        }
    };
    batch.put(key, turn.to_string());
    Ok(turn)
}

struct Quota {
    taken: Index,
    scope: Scope,
}

/// What a quota is for.
enum Scope {
    Registry { limit: u32 },
    Task { limit: u32 },
    Timer,
    Group(GroupName),
}

impl Quota {
    /// The reason to wait, if all places are taken.
    async fn full(&self, store: &dyn Store) -> Result<Option<WaitReason>, StoreError> {
        let limit = match self.scope {
            Scope::Registry { limit } | Scope::Task { limit } => limit as usize,
            Scope::Timer | Scope::Group(_) => 1,
        };
        let taken = store.range(&self.taken, From::Start, limit).await?;
        if taken.len() < limit {
            return Ok(None);
        }
        Ok(Some(match &self.scope {
            Scope::Registry { limit } => WaitReason::RegistryLimit { limit: *limit },
            Scope::Task { limit } => WaitReason::TaskLimit { limit: *limit },
            Scope::Timer => WaitReason::EarlierRun,
            Scope::Group(group) => {
                let first = taken.first().and_then(|entry| entry.member.parse().ok());
                let Some(run) = first else { return Ok(None) };
                WaitReason::Group { group: group.clone(), run }
            }
        }))
    }
}

fn quotas(run: &Run, limits: Limits) -> Vec<Quota> {
    if run.is_hidden() {
        return Vec::new();
    }
    let prefix = run.id.prefix();
    let mut quotas = Vec::new();
    if let (Cause::Timer { timer, queues: true, .. }, Some(task)) = (&run.cause, &run.task) {
        quotas
            .push(Quota { taken: placed_in_timer(prefix, &task.name, timer), scope: Scope::Timer });
    }
    quotas.push(Quota {
        taken: placed_in_registry(prefix),
        scope: Scope::Registry { limit: limits.registry },
    });
    if let (Some(task), Some(limit)) = (&run.task, limits.task) {
        quotas.push(Quota {
            taken: placed_in_task(prefix, &task.name),
            scope: Scope::Task { limit },
        });
    }
    if let Some(group) = &run.concurrency_group {
        quotas.push(Quota {
            taken: placed_in_group(prefix, group),
            scope: Scope::Group(group.clone()),
        });
    }
    quotas
}

/// The record that each admission of a run of this registry replaces.
pub(crate) fn last_admitted_of_registry(registry: RunPrefix) -> Key {
    Key::new(Kind::Admission, format_args!("registry/{registry}"))
}
