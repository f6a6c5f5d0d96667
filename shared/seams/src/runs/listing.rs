//! Queries for runs: for people, for admission and for the sweeper.

use gantry_domain::fact::FactKey;
use gantry_domain::id::{PoolName, RunId};
use gantry_domain::run::Run;
use gantry_domain::task::Task;
use gantry_domain::timer::TimerName;
use gantry_domain::timestamp::Timestamp;
use gantry_domain::wave::NodeTask;

use super::indexes::{self, RunFilter};
use super::key;
use crate::codec::{self, Versioned};
use crate::store::{Entry, From, Index, Store, StoreError};

/// Runs from newest to oldest, at most `limit`, after the run `after`.
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

/// Waiting runs, hidden ones too, earliest due first, after the run `after`.
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

/// Leased runs, hidden ones too, earliest lease end first.
///
/// # Errors
/// [`StoreError`].
pub async fn leased(store: &dyn Store, limit: usize) -> Result<Vec<Run>, StoreError> {
    load_members(store, &indexes::leased(), From::Start, limit).await
}

/// Runs whose commit is still to be compared with the facts, oldest first.
///
/// # Errors
/// [`StoreError`].
pub async fn unresolved(store: &dyn Store, limit: usize) -> Result<Vec<Run>, StoreError> {
    load_members(store, &indexes::unresolved(), From::Start, limit).await
}

/// Runs whose state is still to be passed on to their code host, oldest first.
///
/// # Errors
/// [`StoreError`].
pub async fn unreported(store: &dyn Store, limit: usize) -> Result<Vec<Run>, StoreError> {
    load_members(store, &indexes::unreported(), From::Start, limit).await
}

/// How many runs are leased, without hidden ones, counted up to `limit`.
///
/// # Errors
/// [`StoreError`].
pub async fn count_leased(store: &dyn Store, limit: usize) -> Result<usize, StoreError> {
    let entries = store.range(&indexes::leased(), From::Start, limit).await?;
    let runs = entries.iter().filter_map(|entry| entry.member.parse::<RunId>().ok());
    Ok(runs.filter(|run| !run.is_hidden()).count())
}

/// Pools that have a ready run, each once.
///
/// # Errors
/// [`StoreError`].
pub async fn pools_with_work(store: &dyn Store, limit: usize) -> Result<Vec<PoolName>, StoreError> {
    let entries = store.range(&indexes::all_ready(), From::Start, limit).await?;
    let pools = entries.iter().filter_map(|entry| entry.member.split_once('/')?.0.parse().ok());
    let unique: std::collections::BTreeSet<PoolName> = pools.collect();
    Ok(unique.into_iter().collect())
}

/// A run that a worker of `pool` may take.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields without a comment explain themselves")]
pub struct ReadyRun {
    pub run: RunId,
    /// The pool whose workers may take it.
    pub pool: PoolName,
    /// When it became ready.
    pub since: Timestamp,
}

/// Runs that became ready before `before`, hidden ones too, oldest first, after the run `after`.
///
/// # Errors
/// [`StoreError`].
pub async fn ready_before(
    store: &dyn Store,
    before: Timestamp,
    after: Option<&ReadyRun>,
    limit: usize,
) -> Result<Vec<ReadyRun>, StoreError> {
    let from = after.map_or(From::Start, |ready| {
        From::After(indexes::all_ready_entry(&ready.pool, ready.run, ready.since))
    });
    let entries = store.range(&indexes::all_ready(), from, limit).await?;
    let old = entries.into_iter().take_while(|entry| entry.score <= before.as_millis());
    Ok(old
        .filter_map(|entry| {
            let (pool, run) = entry.member.split_once('/')?;
            let since = Timestamp::from_millis(entry.score);
            Some(ReadyRun { run: run.parse().ok()?, pool: pool.parse().ok()?, since })
        })
        .collect())
}

/// Ready runs without hidden ones, the longest ready first.
///
/// # Errors
/// [`StoreError`].
pub async fn all_ready(store: &dyn Store, limit: usize) -> Result<Vec<Run>, StoreError> {
    let of = |entry: &Entry| {
        let run: RunId = entry.member.split_once('/')?.1.parse().ok()?;
        (!run.is_hidden()).then(|| key(run))
    };
    codec::load_members(store, &indexes::all_ready(), From::Start, limit, of).await
}

/// Ready runs of a pool, hidden ones too, in the order in which they are taken.
///
/// # Errors
/// [`StoreError`].
pub async fn ready_in(
    store: &dyn Store,
    pool: &PoolName,
    limit: usize,
) -> Result<Vec<Run>, StoreError> {
    load_members(store, &indexes::ready(pool), From::Start, limit).await
}

/// The runs of a task for one branch, tag or pull request that have not ended, older changes first.
///
/// # Errors
/// [`StoreError`].
pub async fn open_of_change(
    store: &dyn Store,
    task: &Task,
    fact: &FactKey,
    limit: usize,
) -> Result<Vec<Versioned<Run>>, StoreError> {
    let index = indexes::open(task.prefix, &task.id.name, task.created, fact);
    load_open(store, &index, limit).await
}

/// The runs of a timer of a task that have not ended, older ones first.
///
/// # Errors
/// [`StoreError`].
pub async fn open_of_timer(
    store: &dyn Store,
    task: &Task,
    timer: &TimerName,
    limit: usize,
) -> Result<Vec<Versioned<Run>>, StoreError> {
    let index = indexes::open_of_timer(task.prefix, &task.id.name, task.created, timer);
    load_open(store, &index, limit).await
}

/// The runs of a task that do all that a run of it does, and have not ended or are not settled, oldest first.
///
/// # Errors
/// [`StoreError`].
pub async fn open_of_task(
    store: &dyn Store,
    task: &NodeTask,
    limit: usize,
) -> Result<Vec<Versioned<Run>>, StoreError> {
    load_open(store, &indexes::open_of_task(task), limit).await
}

/// Ended runs of which it is still to be recorded what they used and made, oldest first.
///
/// # Errors
/// [`StoreError`].
pub async fn unsettled(store: &dyn Store, limit: usize) -> Result<Vec<Run>, StoreError> {
    load_members(store, &indexes::unsettled(), From::Start, limit).await
}

async fn load_open(
    store: &dyn Store,
    index: &Index,
    limit: usize,
) -> Result<Vec<Versioned<Run>>, StoreError> {
    let entries = store.range(index, From::Start, limit).await?;
    let runs = entries.iter().filter_map(|entry| entry.member.parse().ok());
    let keys: Vec<_> = runs.map(key).collect();
    codec::load_all(store, &keys).await
}

/// Ended runs that are not archived: hidden ones, then the others, oldest end first.
///
/// # Errors
/// [`StoreError`].
pub async fn ended(store: &dyn Store, limit: usize) -> Result<Vec<Run>, StoreError> {
    load_members(store, &indexes::ended(), From::Start, limit).await
}

pub(super) async fn load_members(
    store: &dyn Store,
    index: &Index,
    from: From,
    limit: usize,
) -> Result<Vec<Run>, StoreError> {
    let of = |entry: &Entry| entry.member.parse().ok().map(key);
    codec::load_members(store, index, from, limit, of).await
}
