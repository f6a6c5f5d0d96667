//! Runs: their one record, its indexes, and the only operations that move it.
//!
//! Whoever calls an operation, it checks state, attempt and nonce and updates every index in the same commit. A conflict
//! with another writer is tried again on what is there now.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use gantry_domain::attempt::{Holder, Lease};
use gantry_domain::decide::order;
use gantry_domain::decide::planner::RunDraft;
use gantry_domain::id::{
    LeaseNonce, PoolName, RegistryName, RunId, RunPrefix, TaskId, TokenId, WorkerId,
};
use gantry_domain::lineage::Lineage;
use gantry_domain::run::{
    CancelAsk, IllegalTransition, Outcome, Progress, Run, RunError, RunState, WaitReason,
};
use gantry_domain::sealed::Sealed;
use gantry_domain::timestamp::Timestamp;

use crate::codec::{self, Versioned};
use crate::lineages;
use crate::store::{self, Batch, CommitError, From, Index, Key, Kind, Store, StoreError};
use crate::tags;

mod ends;
mod indexes;

pub use ends::{Finish, Finished, Lapsed};
use indexes::reindex;

/// How many ready runs a worker reads at once, and tries in order: many workers then do not fight for one.
const TAKE_WINDOW: usize = 16;

/// How often an operation is tried again after a conflict before the store counts as too busy.
const CONFLICT_RETRIES: usize = 64;

/// An operation was not done.
#[derive(Debug, thiserror::Error)]
pub enum RunOpError {
    /// There is no such run.
    #[error("there is no run {run}")]
    Absent {
        /// Which.
        run: RunId,
    },
    /// Someone else holds the run, or nobody: the caller's lease is over.
    #[error("the lease on run {run} is lost")]
    LeaseLost {
        /// Which.
        run: RunId,
    },
    /// Somebody asked to cancel the run.
    #[error("run {run} was asked to cancel")]
    CancelAsked {
        /// Which.
        run: RunId,
    },
    /// It cannot move from where it stands.
    #[error("run {run}: {source}")]
    Illegal {
        /// Which.
        run: RunId,
        /// From where to where.
        source: IllegalTransition,
    },
    /// The store's own.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A lease that was taken, with everything that its worker needs.
#[derive(Debug, Clone)]
pub struct TakenRun {
    /// The run, as it is now.
    pub run: Run,
    /// What its worker shows from now on.
    pub holder: Holder,
    /// When the lease ends unless it is renewed.
    pub until: Timestamp,
    /// Its secrets, sealed for its pool; nothing but what it needs.
    pub bundle: Option<Sealed>,
}

/// What `renew` answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// The lease holds for another period.
    Held,
    /// The lease holds, and somebody asked to cancel.
    CancelAsked,
    /// It is someone else's, or nobody's.
    Lost,
}

/// What a caller filters runs by.
#[derive(Debug, Clone, Default)]
pub struct RunFilter {
    /// Of this registry only.
    pub registry: Option<RegistryName>,
    /// Of this task only.
    pub task: Option<TaskId>,
}

pub(crate) fn key(run: RunId) -> Key {
    Key::new(Kind::Run, run)
}

fn bundle_key(run: RunId) -> Key {
    Key::new(Kind::Bundle, run)
}

/// Adds the creation of runs to a batch, so that it can be one commit with what caused them. `keys` says what each
/// was created for: there is at most one run for each, whoever creates it.
///
/// The commit conflicts when another run took the next number or the same key meanwhile: read again, and try again.
///
/// # Errors
/// [`StoreError`].
pub async fn create(
    store: &dyn Store,
    batch: &mut Batch,
    drafts: Vec<(RunPrefix, RunDraft, Option<String>)>,
    now: Timestamp,
) -> Result<Vec<Run>, StoreError> {
    let mut counters = BTreeMap::new();
    for (prefix, _, _) in &drafts {
        if let Entry::Vacant(place) = counters.entry(*prefix) {
            place.insert(read_counter(store, &counter_key(*prefix)).await?);
        }
    }
    let mut runs = Vec::with_capacity(drafts.len());
    for (prefix, draft, run_key) in drafts {
        let Some((number, _)) = counters.get_mut(&prefix) else {
            continue;
        };
        *number += 1;
        let run = draft.create(RunId::new(prefix, *number), now);
        let key = key(run.id);
        batch.create(key.clone(), codec::encode(&key, &run)?);
        reindex(batch, None, Some(&run));
        if let Some(run_key) = run_key {
            batch.create(Key::new(Kind::RunKey, run_key), run.id.to_string());
        }
        runs.push(run);
    }
    for (prefix, (number, version)) in counters {
        let key = counter_key(prefix);
        match version {
            Some(version) => batch.replace(key, version, number.to_string()),
            None => batch.create(key, number.to_string()),
        }
    }
    Ok(runs)
}

fn counter_key(prefix: RunPrefix) -> Key {
    Key::new(Kind::Counter, format_args!("runs-{prefix}"))
}

async fn read_counter(store: &dyn Store, key: &Key) -> Result<(u64, Option<u64>), StoreError> {
    let mut found = store.load(std::slice::from_ref(key)).await?;
    let Some(record) = found.pop().flatten() else {
        return Ok((0, None));
    };
    let number = std::str::from_utf8(&record.bytes)
        .ok()
        .and_then(|text| text.parse().ok());
    let number = number.ok_or_else(|| StoreError::Undecodable {
        key: key.clone(),
        message: "it is no number".to_owned(),
    })?;
    Ok((number, Some(record.version)))
}

/// The run that was created for a key, if there is one.
///
/// # Errors
/// [`StoreError`].
pub async fn find_for(store: &dyn Store, run_key: &str) -> Result<Option<RunId>, StoreError> {
    let mut found = store.load(&[Key::new(Kind::RunKey, run_key)]).await?;
    let record = found.pop().flatten();
    Ok(record.and_then(|record| std::str::from_utf8(&record.bytes).ok()?.parse().ok()))
}

/// Reads a run.
///
/// # Errors
/// [`StoreError`].
pub async fn find(store: &dyn Store, run: RunId) -> Result<Option<Run>, StoreError> {
    Ok(find_versioned(store, run).await?.map(|found| found.value))
}

async fn find_versioned(
    store: &dyn Store,
    run: RunId,
) -> Result<Option<Versioned<Run>>, StoreError> {
    codec::load(store, &key(run)).await
}

/// Lets any worker of the pool take a waiting run, whose secrets are `bundle`.
///
/// # Errors
/// [`RunOpError::Absent`], [`RunOpError::Illegal`] when it does not wait any more.
pub async fn ready(
    store: &dyn Store,
    run: RunId,
    pool: PoolName,
    bundle: Option<Sealed>,
) -> Result<Run, RunOpError> {
    update(store, run, |run, now, batch| {
        let rank = order::rank(run.run_type, run.created);
        advance(
            run,
            Progress::Admitted {
                pool: pool.clone(),
                rank,
            },
            now,
        )?;
        if let Some(bundle) = &bundle {
            batch.put(bundle_key(run.id), bundle.as_text().to_owned());
        }
        Ok(())
    })
    .await
}

/// Says what a waiting run waits for. Says nothing, and writes nothing, when that is what it says already.
///
/// # Errors
/// [`RunOpError::Absent`], [`RunOpError::Illegal`] when it does not wait any more.
pub async fn hold(store: &dyn Store, run: RunId, reason: WaitReason) -> Result<(), RunOpError> {
    if let Some(found) = find(store, run).await?
        && matches!(&found.state, RunState::Waiting { reason: said, .. } if *said == reason)
    {
        return Ok(());
    }
    update(store, run, |run, now, _| {
        advance(
            run,
            Progress::Held {
                reason: reason.clone(),
            },
            now,
        )
    })
    .await
    .map(drop)
}

/// Leases the best ready run of a pool to a worker, for `lease` from now; `None` when there is none.
///
/// # Errors
/// [`StoreError`].
pub async fn take(
    store: &dyn Store,
    pool: &PoolName,
    worker: &WorkerId,
    nonce: &LeaseNonce,
    lease: Duration,
) -> Result<Option<TakenRun>, StoreError> {
    for entry in store
        .range(&indexes::ready(pool), From::Start, TAKE_WINDOW)
        .await?
    {
        let Some(id) = member_run(store, &indexes::ready(pool), &entry).await? else {
            continue;
        };
        let Some(mut found) = take_candidate(store, id, &entry).await? else {
            continue;
        };
        let before = found.value.clone();
        let now = store.now().await?;
        let lease = Lease {
            attempt: before.next_attempt(),
            worker: worker.clone(),
            nonce: nonce.clone(),
            since: now,
            until: now.after(lease),
        };
        let (holder, until) = (lease.holder(), lease.until);
        let Ok(state) = before.state.clone().apply(Progress::Taken { lease }, now) else {
            continue;
        };
        found.value.state = state;
        let mut batch = Batch::default();
        found.replace_in(&mut batch, key(id))?;
        reindex(&mut batch, Some(&before), Some(&found.value));
        match store.commit(batch).await {
            Ok(()) => {
                let bundle = load_bundle(store, id).await?;
                return Ok(Some(TakenRun {
                    run: found.value,
                    holder,
                    until,
                    bundle,
                }));
            }
            Err(CommitError::Conflict { .. }) => {}
            Err(CommitError::Store(error)) => return Err(error),
        }
    }
    Ok(None)
}

async fn take_candidate(
    store: &dyn Store,
    id: RunId,
    entry: &store::Entry,
) -> Result<Option<Versioned<Run>>, StoreError> {
    match find_versioned(store, id).await {
        // A record in quarantine must not stand in the way of those behind it.
        Err(StoreError::Undecodable { key, .. }) => {
            tracing::error!(record.key = %key, "a ready run does not decode; the next one is tried");
            Ok(None)
        }
        Ok(Some(found)) if matches!(&found.value.state, RunState::Ready { rank, .. } if rank.0 == entry.score) => {
            Ok(Some(found))
        }
        Ok(_) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The run that an index entry names; an entry that names none is removed.
async fn member_run(
    store: &dyn Store,
    index: &Index,
    entry: &store::Entry,
) -> Result<Option<RunId>, StoreError> {
    if let Ok(id) = entry.member.parse() {
        return Ok(Some(id));
    }
    let mut batch = Batch::default();
    batch.unindex(index.clone(), &entry.member);
    match store.commit(batch).await {
        Ok(()) | Err(CommitError::Conflict { .. }) => Ok(None),
        Err(CommitError::Store(error)) => Err(error),
    }
}

async fn load_bundle(store: &dyn Store, run: RunId) -> Result<Option<Sealed>, StoreError> {
    let mut found = store.load(&[bundle_key(run)]).await?;
    Ok(found.pop().flatten().and_then(|record| {
        String::from_utf8(record.bytes.to_vec())
            .ok()
            .map(Sealed::from_text)
    }))
}

/// The first step begins.
///
/// # Errors
/// [`RunOpError::LeaseLost`], [`RunOpError::CancelAsked`].
pub async fn began(store: &dyn Store, run: RunId, holder: &Holder) -> Result<(), RunOpError> {
    update(store, run, |run, now, _| {
        check_holder(run, holder)?;
        refuse_cancelled(run)?;
        advance(run, Progress::Began, now)
    })
    .await
    .map(drop)
}

/// Renews a lease for `lease` from now.
///
/// # Errors
/// [`StoreError`]: the caller may build on, but not tag.
pub async fn renew(
    store: &dyn Store,
    run: RunId,
    holder: &Holder,
    lease: Duration,
) -> Result<Renewal, StoreError> {
    let renewed = update(store, run, |run, now, _| {
        check_holder(run, holder)?;
        if let Some(held) = run.state.lease_mut() {
            held.until = now.after(lease);
        }
        Ok(())
    })
    .await;
    match renewed {
        Ok(run) if run.cancel.is_some() => Ok(Renewal::CancelAsked),
        Ok(_) => Ok(Renewal::Held),
        Err(RunOpError::Store(error)) => Err(error),
        Err(_) => Ok(Renewal::Lost),
    }
}

/// The final tags are about to move. Says which of `images` this run may move: the others were moved by a run of a newer
/// generation. A second call of the same attempt answers the same.
///
/// # Errors
/// [`RunOpError::LeaseLost`], [`RunOpError::CancelAsked`].
pub async fn tagging(
    store: &dyn Store,
    run: RunId,
    holder: &Holder,
    images: &[gantry_domain::image::ImageReference],
    lease: Duration,
) -> Result<tags::Permit, RunOpError> {
    for _ in 0..CONFLICT_RETRIES {
        let mut found = find_versioned(store, run)
            .await?
            .ok_or(RunOpError::Absent { run })?;
        let before = found.value.clone();
        check_holder(&before, holder)?;
        refuse_cancelled(&before)?;
        let now = store.now().await?;
        let mut batch = Batch::default();
        if !matches!(before.state, RunState::Tagging { .. }) {
            advance(&mut found.value, Progress::Tagging, now)?;
        }
        if let Some(held) = found.value.state.lease_mut() {
            held.until = now.after(lease);
        }
        let permit = tags::claim(store, &mut batch, &found.value, holder.attempt, images).await?;
        found.replace_in(&mut batch, key(run))?;
        reindex(&mut batch, Some(&before), Some(&found.value));
        match store.commit(batch).await {
            Ok(()) => return Ok(permit),
            Err(CommitError::Conflict { .. }) => {}
            Err(CommitError::Store(error)) => return Err(error.into()),
        }
    }
    Err(too_busy(run).into())
}

/// Ends an attempt: writes outcome, outputs and terminal state and ends the lease; or, for a failure of the
/// infrastructure, lets the run wait for its next attempt. A second call of the same attempt is [`RunOpError::LeaseLost`].
///
/// # Errors
/// [`RunOpError::LeaseLost`].
pub async fn finish(
    store: &dyn Store,
    run: RunId,
    holder: &Holder,
    finish: Finish,
    lineage: Option<Lineage>,
) -> Result<Finished, RunOpError> {
    let ended = update(store, run, |run, now, batch| {
        check_holder(run, holder)?;
        ends::end_attempt(run, &finish, now)?;
        if run.state.done().is_some() {
            batch.delete.push(bundle_key(run.id));
            if let Some(lineage) = &lineage {
                lineages::record(batch, lineage)?;
            }
        }
        Ok(())
    })
    .await?;
    Ok(match ended.state.done() {
        Some(_) => Finished::Done(ended),
        None => Finished::WillBeTriedAgain(ended),
    })
}

/// Ends the lease of a worker that was not heard of in time: the run waits for its next attempt, or ends.
/// `None` when the lease holds after all.
///
/// # Errors
/// [`RunOpError::Absent`].
pub async fn lapse(store: &dyn Store, run: RunId) -> Result<Option<Lapsed>, RunOpError> {
    lapse_if(store, run, |lease, now| lease.until <= now).await
}

/// Ends the lease of a worker that is known to be dead, like any of the former process on this data directory.
///
/// # Errors
/// [`RunOpError::Absent`].
pub async fn lapse_now(store: &dyn Store, run: RunId) -> Result<Option<Lapsed>, RunOpError> {
    lapse_if(store, run, |_, _| true).await
}

async fn lapse_if(
    store: &dyn Store,
    run: RunId,
    is_over: impl Fn(&Lease, Timestamp) -> bool + Send + Sync,
) -> Result<Option<Lapsed>, RunOpError> {
    let ended = update(store, run, |run, now, batch| {
        let Some(lease) = run.state.lease().filter(|lease| is_over(lease, now)) else {
            return Err(RunOpError::LeaseLost { run: run.id });
        };
        let attempt = lease.attempt;
        ends::lapse(run, attempt, now)?;
        if run.state.done().is_some() {
            batch.delete.push(bundle_key(run.id));
        }
        Ok(())
    })
    .await;
    match ended {
        Ok(run) if run.state.done().is_some() => Ok(Some(Lapsed::Done(run))),
        Ok(run) => Ok(Some(Lapsed::WillBeTriedAgain(run))),
        Err(RunOpError::LeaseLost { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Asks to cancel. A run that nobody holds ends at once; its worker ends one that is leased. A second call, and one on a
/// run that ended, change nothing.
///
/// # Errors
/// [`RunOpError::Absent`].
pub async fn cancel(store: &dyn Store, run: RunId, by: &TokenId) -> Result<Run, RunOpError> {
    update(store, run, |run, now, batch| {
        if run.state.done().is_some() || run.cancel.is_some() {
            return Ok(());
        }
        run.cancel = Some(CancelAsk {
            by: by.clone(),
            at: now,
        });
        if run.state.lease().is_none() {
            advance(
                run,
                Progress::Finished {
                    outcome: Outcome::Canceled { by: by.clone() },
                },
                now,
            )?;
            batch.delete.push(bundle_key(run.id));
        }
        Ok(())
    })
    .await
}

/// Ends a run that waits or is ready and will never be taken, like one of a pool without workers.
///
/// # Errors
/// [`RunOpError::Absent`], [`RunOpError::Illegal`] when it is leased or ended.
pub async fn give_up(store: &dyn Store, run: RunId, error: RunError) -> Result<Run, RunOpError> {
    update(store, run, |run, now, batch| {
        if run.state.lease().is_some() {
            return Err(RunOpError::LeaseLost { run: run.id });
        }
        batch.delete.push(bundle_key(run.id));
        advance(
            run,
            Progress::Finished {
                outcome: Outcome::Error {
                    error: error.clone(),
                },
            },
            now,
        )
    })
    .await
}

/// Keeps a run and its log for good, or no longer.
///
/// # Errors
/// [`RunOpError::Absent`].
pub async fn archive(store: &dyn Store, run: RunId, archived: bool) -> Result<Run, RunOpError> {
    update(store, run, |run, _, _| {
        run.archived = archived;
        Ok(())
    })
    .await
}

/// Removes an ended run that is not archived, with what it was created for. Its log is the caller's to remove first.
///
/// # Errors
/// [`StoreError`].
pub async fn delete(store: &dyn Store, run: RunId) -> Result<(), StoreError> {
    let Some(found) = find_versioned(store, run).await? else {
        return Ok(());
    };
    if found.value.state.done().is_none() || found.value.archived {
        return Ok(());
    }
    let mut batch = Batch::default();
    let key = key(run);
    batch
        .expect
        .push((key.clone(), crate::store::Expect::Version(found.version)));
    batch.delete.push(key);
    reindex(&mut batch, Some(&found.value), None);
    match store.commit(batch).await {
        Ok(()) | Err(CommitError::Conflict { .. }) => Ok(()),
        Err(CommitError::Store(error)) => Err(error),
    }
}

/// Runs from the newest, at most `limit`, after the run `after`.
///
/// # Errors
/// [`StoreError`].
pub async fn list(
    store: &dyn Store,
    filter: &RunFilter,
    after: Option<&Run>,
    limit: usize,
) -> Result<Vec<Run>, StoreError> {
    let index = indexes::listing(filter);
    let from = after.map_or(From::Start, |run| From::After(indexes::listing_entry(run)));
    load_members(store, &index, from, limit).await
}

/// Runs that wait to be admitted, in the order in which they are looked at, after the run `after`.
///
/// # Errors
/// [`StoreError`].
pub async fn waiting(
    store: &dyn Store,
    after: Option<&Run>,
    limit: usize,
) -> Result<Vec<Run>, StoreError> {
    let from = after.map_or(From::Start, |run| From::After(indexes::waiting_entry(run)));
    load_members(store, &indexes::waiting(), from, limit).await
}

/// Runs that are ready in a pool, best first.
///
/// # Errors
/// [`StoreError`].
pub async fn list_ready(
    store: &dyn Store,
    pool: &PoolName,
    limit: usize,
) -> Result<Vec<Run>, StoreError> {
    load_members(store, &indexes::ready(pool), From::Start, limit).await
}

/// How many runs of a registry hold a place, counted up to `limit`.
///
/// # Errors
/// [`StoreError`].
pub async fn count_placed_in_registry(
    store: &dyn Store,
    registry: &RegistryName,
    limit: usize,
) -> Result<usize, StoreError> {
    Ok(store
        .range(&indexes::placed_in_registry(registry), From::Start, limit)
        .await?
        .len())
}

/// How many runs of a task hold a place, counted up to `limit`.
///
/// # Errors
/// [`StoreError`].
pub async fn count_placed_in_task(
    store: &dyn Store,
    task: &TaskId,
    limit: usize,
) -> Result<usize, StoreError> {
    Ok(store
        .range(&indexes::placed_in_task(task), From::Start, limit)
        .await?
        .len())
}

/// Leased runs, those whose lease ends first before the others.
///
/// # Errors
/// [`StoreError`].
pub async fn leased(store: &dyn Store, limit: usize) -> Result<Vec<Run>, StoreError> {
    load_members(store, &indexes::leased(), From::Start, limit).await
}

/// Pools that have a ready run, each once.
///
/// # Errors
/// [`StoreError`].
pub async fn pools_with_work(store: &dyn Store, limit: usize) -> Result<Vec<PoolName>, StoreError> {
    let entries = store
        .range(&indexes::all_ready(), From::Start, limit)
        .await?;
    let pools = entries
        .iter()
        .filter_map(|entry| entry.member.split_once('/')?.0.parse().ok());
    let unique: std::collections::BTreeSet<PoolName> = pools.collect();
    Ok(unique.into_iter().collect())
}

/// Every ready run with its pool, oldest first.
///
/// # Errors
/// [`StoreError`].
pub async fn all_ready(store: &dyn Store, limit: usize) -> Result<Vec<Run>, StoreError> {
    let entries = store
        .range(&indexes::all_ready(), From::Start, limit)
        .await?;
    let ids = entries
        .iter()
        .filter_map(|entry| entry.member.split_once('/')?.1.parse().ok());
    let keys: Vec<Key> = ids.map(key).collect();
    Ok(codec::load_all::<Run>(store, &keys)
        .await?
        .into_iter()
        .map(|found| found.value)
        .collect())
}

/// Ended runs that are not archived, oldest end first.
///
/// # Errors
/// [`StoreError`].
pub async fn ended(store: &dyn Store, limit: usize) -> Result<Vec<Run>, StoreError> {
    load_members(store, &indexes::ended(), From::Start, limit).await
}

async fn load_members(
    store: &dyn Store,
    index: &Index,
    from: From,
    limit: usize,
) -> Result<Vec<Run>, StoreError> {
    let entries = store.range(index, from, limit).await?;
    let keys: Vec<Key> = entries
        .iter()
        .filter_map(|entry| entry.member.parse().ok().map(key))
        .collect();
    Ok(codec::load_all::<Run>(store, &keys)
        .await?
        .into_iter()
        .map(|found| found.value)
        .collect())
}

/// A watch on one run's record.
#[must_use]
pub fn watch(store: &dyn Store, run: RunId) -> crate::store::Watch {
    store.watch(&key(run))
}

fn advance(run: &mut Run, progress: Progress, now: Timestamp) -> Result<(), RunOpError> {
    run.state = run
        .state
        .clone()
        .apply(progress, now)
        .map_err(|source| RunOpError::Illegal {
            run: run.id,
            source,
        })?;
    Ok(())
}

fn check_holder(run: &Run, holder: &Holder) -> Result<(), RunOpError> {
    match run.state.lease() {
        Some(lease) if lease.is_held_by(holder) => Ok(()),
        _ => Err(RunOpError::LeaseLost { run: run.id }),
    }
}

fn refuse_cancelled(run: &Run) -> Result<(), RunOpError> {
    match run.cancel {
        Some(_) => Err(RunOpError::CancelAsked { run: run.id }),
        None => Ok(()),
    }
}

/// Changes one run under its version, with its indexes, as often as others come between.
async fn update(
    store: &dyn Store,
    run: RunId,
    change: impl Fn(&mut Run, Timestamp, &mut Batch) -> Result<(), RunOpError> + Send + Sync,
) -> Result<Run, RunOpError> {
    for _ in 0..CONFLICT_RETRIES {
        let mut found = find_versioned(store, run)
            .await?
            .ok_or(RunOpError::Absent { run })?;
        let before = found.value.clone();
        let mut batch = Batch::default();
        let now = store.now().await?;
        change(&mut found.value, now, &mut batch)?;
        if found.value == before && batch.is_empty() {
            return Ok(found.value);
        }
        found.replace_in(&mut batch, key(run))?;
        reindex(&mut batch, Some(&before), Some(&found.value));
        match store.commit(batch).await {
            Ok(()) => return Ok(found.value),
            Err(CommitError::Conflict { .. }) => {}
            Err(CommitError::Store(error)) => return Err(error.into()),
        }
    }
    Err(too_busy(run).into())
}

fn too_busy(run: RunId) -> StoreError {
    StoreError::Unavailable {
        message: format!("run {run} changes faster than it can be written"),
    }
}
