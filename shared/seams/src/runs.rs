//! Runs: their record, its indexes, and the only operations that change it.
//!
//! Each operation checks state, attempt and lease nonce, and updates every index in the same commit. On a conflict with
//! another writer it reads again and retries.

use std::collections::BTreeMap;

use gantry_domain::decide::planner::RunDraft;
use gantry_domain::id::{RunId, RunPrefix};
use gantry_domain::lineage::BaseImage;
use gantry_domain::run::{
    Approval, CancelAsk, CanceledBy, IllegalTransition, Outcome, Progress, Purpose, Run, RunError,
    RunState, WaitReason,
};
use gantry_domain::scan::Scanned;
use gantry_domain::signature::Signer;
use gantry_domain::source::CommitId;
use gantry_domain::timestamp::Timestamp;

use crate::codec::{self, Versioned};
use crate::retry::{self, Plan};
use crate::store::{Batch, CommitError, Expect, Key, Kind, Store, StoreError};
use crate::{steps, task_images};

mod admission;
mod bundles;
mod ends;
mod indexes;
mod lanes;
mod leasing;
mod legs;
mod listing;
mod reporting;

pub(crate) use admission::last_admitted_of_registry;
pub use admission::{Admission, Limits, full, ready};
pub(crate) use bundles::key as bundle_key;
pub use bundles::{Bundled, NoBundle};
pub use ends::{BEHIND, Finish, Finished, Lapsed, OUTAGE};
pub use indexes::RunFilter;
use indexes::reindex;
pub(crate) use indexes::{
    all as listing_of_all, hidden as listing_of_hidden, untold, untold_member,
};
pub(crate) use lanes::turns_of_registry;
pub use lanes::{Lane, Round, TurnsOf, find_turns, record_turns, waiting_for, waiting_in};
pub use leasing::{
    Renewal, TakenRun, began, finish, lapse, lapse_now, pushed, renew, resolve_built_on, scanned,
    tagging, take, take_beside_others,
};
pub use legs::{Joined, close_legs, join_leg, make_legs, with_leg_work};
pub use listing::{
    ReadyRun, all_ready, count_leased, ended, leased, list, open_of_change, open_of_task,
    open_of_timer, pools_with_work, ready_before, ready_in, unreported, unresolved, unsettled,
    waiting,
};
pub(crate) use reporting::note_problem;
pub use reporting::{leave_unreported, report};

/// An operation on a run was refused, or failed.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the fields without a comment explain themselves")]
pub enum RunOpError {
    /// There is no such run.
    #[error("there is no run {run}")]
    Absent { run: RunId },
    /// The caller no longer holds the lease.
    #[error("the lease on run {run} is lost")]
    LeaseLost { run: RunId },
    /// Cancellation was requested.
    #[error("run {run} was asked to cancel")]
    CancelAsked { run: RunId },
    /// The run's state does not allow this transition.
    #[error("run {run}: {source}")]
    Illegal {
        run: RunId,
        /// The two states.
        source: IllegalTransition,
    },
    /// The approval is for another commit than the run builds.
    #[error(
        "run {run} does not build commit {commit}: look at what it builds, and approve that commit"
    )]
    OtherCommit { run: RunId, commit: CommitId },
    /// An error from the store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

pub(crate) fn key(run: RunId) -> Key {
    Key::new(Kind::Run, run)
}

/// Creates runs in one commit with their cause. They get consecutive numbers, hidden runs separately.
#[must_use = "nothing is created before the batch is committed"]
pub struct Creation<'a> {
    batch: Batch,
    prefix: RunPrefix,
    shown: Numbers,
    hidden: Numbers,
    signer: &'a dyn Signer,
    now: Timestamp,
    moved: Vec<RunId>,
}

/// The numbers of runs in one commit.
struct Numbers {
    counter: Key,
    /// The last number in use.
    last: u64,
    /// The version of its record, if there is one.
    version: Option<u64>,
    added: u64,
}

impl Numbers {
    async fn read(store: &dyn Store, counter: Key) -> Result<Self, StoreError> {
        let mut found = store.load(std::slice::from_ref(&counter)).await?;
        let Some(record) = found.pop().flatten() else {
            return Ok(Self { counter, last: 0, version: None, added: 0 });
        };
        let last = codec::parse_text(store, &counter, &record, "number").await?;
        Ok(Self { counter, last, version: Some(record.version), added: 0 })
    }

    fn next(&mut self) -> u64 {
        self.added += 1;
        self.last + self.added
    }

    /// Adds the new last number to the batch.
    fn write(self, batch: &mut Batch) {
        let last = self.last + self.added;
        match self.version {
            _ if self.added == 0 => {}
            Some(version) => batch.replace(self.counter, version, last.to_string()),
            None => batch.create(self.counter, last.to_string()),
        }
    }
}

impl<'a> Creation<'a> {
    /// Starts from a batch that holds the cause of the runs. `signer` signs each of them.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn begin(
        store: &dyn Store,
        batch: Batch,
        prefix: RunPrefix,
        signer: &'a dyn Signer,
        now: Timestamp,
    ) -> Result<Self, StoreError> {
        let counter = |series| Key::new(Kind::Counter, format_args!("{series}-{prefix}"));
        let (shown, hidden) = tokio::try_join!(
            Numbers::read(store, counter("runs")),
            Numbers::read(store, counter("hidden-runs"))
        )?;
        Ok(Self { batch, prefix, shown, hidden, signer, now, moved: Vec::new() })
    }

    /// Adds a run. At most one run exists for each `key`.
    ///
    /// # Errors
    /// [`StoreError`] if the run cannot be encoded.
    pub fn add(&mut self, draft: RunDraft, key: Option<String>) -> Result<Run, StoreError> {
        let id = if draft.purpose.is_hidden() {
            RunId::hidden(self.prefix, self.hidden.next())
        } else {
            RunId::new(self.prefix, self.shown.next())
        };
        let mut run = draft.create(id, self.now);
        run.created_for.clone_from(&key);
        run.sign(self.signer);
        let record = self::key(run.id);
        self.batch.create(record.clone(), codec::encode(&record, &run)?);
        reindex(&mut self.batch, None, Some(&run));
        if let Some(key) = key {
            self.batch.create(Key::new(Kind::RunKey, key), run.id.to_string());
        }
        Ok(run)
    }

    /// Cancels a run in the same commit. `found` is its current record. A leased run is ended by its worker, which
    /// learns of it with the next renewal. Returns `false` if the run has ended or is being cancelled already.
    ///
    /// # Errors
    /// [`StoreError`] if the run cannot be encoded.
    pub fn cancel(&mut self, found: Versioned<Run>, by: CanceledBy) -> Result<bool, StoreError> {
        self.change(found, |run, batch, now| cancel_in(run, batch, by, now))
    }

    /// Approves a held run in the same commit. `found` is its current record. Returns `false` if it is not held, or for
    /// another commit.
    ///
    /// # Errors
    /// [`StoreError`] if the run cannot be encoded.
    pub fn approve(
        &mut self,
        found: Versioned<Run>,
        commit: &CommitId,
        by: &str,
    ) -> Result<bool, StoreError> {
        self.change(found, |run, _, now| approve_in(run, commit, by, now))
    }

    /// Releases a run that waited for images, in the same commit: it will use exactly these. `found` is its current record.
    /// Returns `false` if it does not wait for them any more.
    ///
    /// # Errors
    /// [`StoreError`] if the run cannot be encoded.
    pub fn release(
        &mut self,
        found: Versioned<Run>,
        bases: Vec<BaseImage>,
    ) -> Result<bool, StoreError> {
        let signer = self.signer;
        self.change(found, |run, _, now| {
            advance(run, Progress::Released, now)?;
            run.recipe.bases = bases;
            run.sign(signer);
            Ok(())
        })
    }

    fn change(
        &mut self,
        mut found: Versioned<Run>,
        change: impl FnOnce(&mut Run, &mut Batch, Timestamp) -> Result<(), RunOpError>,
    ) -> Result<bool, StoreError> {
        let (before, mut batch) = (found.value.clone(), Batch::default());
        if change(&mut found.value, &mut batch, self.now).is_err() || found.value == before {
            return Ok(false);
        }
        self.batch.append(batch);
        self.moved.push(before.id);
        reindex(&mut self.batch, Some(&before), Some(&found.value));
        found.replace_in(&mut self.batch, self::key(before.id))?;
        Ok(true)
    }

    /// The existing runs that were changed.
    #[must_use]
    pub fn moved(&self) -> Vec<RunId> {
        self.moved.clone()
    }

    /// Returns the batch with the runs. Its commit conflicts if another run took the next number or the same key
    /// meanwhile: then read and create again.
    pub fn finish(mut self) -> Batch {
        self.shown.write(&mut self.batch);
        self.hidden.write(&mut self.batch);
        self.batch
    }
}

/// The runs created for these keys, where there is one. One read.
///
/// # Errors
/// [`StoreError`].
pub async fn find_for(
    store: &dyn Store,
    run_keys: &[String],
) -> Result<BTreeMap<String, RunId>, StoreError> {
    let keys: Vec<Key> = run_keys.iter().map(|key| Key::new(Kind::RunKey, key)).collect();
    let mut found = BTreeMap::new();
    for ((run_key, key), record) in run_keys.iter().zip(&keys).zip(store.load(&keys).await?) {
        if let Some(record) = record {
            let run = codec::parse_text(store, key, &record, "run's id").await?;
            found.insert(run_key.clone(), run);
        }
    }
    Ok(found)
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

/// Records why a waiting run waits. Writes nothing if that is already the recorded reason.
///
/// # Errors
/// [`RunOpError::Absent`]; [`RunOpError::Illegal`] if the run is no longer waiting.
pub async fn hold(store: &dyn Store, run: RunId, reason: WaitReason) -> Result<(), RunOpError> {
    if let Some(found) = find(store, run).await?
        && matches!(&found.state, RunState::Waiting { reason: said, .. } if *said == reason)
    {
        return Ok(());
    }
    update(store, run, |run, now, _| advance(run, Progress::Held { reason: reason.clone() }, now))
        .await
        .map(drop)
}

/// Requests cancellation. A run without a lease ends at once; a leased run is ended by its worker. A second call, or a
/// call on an ended run, changes nothing.
///
/// # Errors
/// [`RunOpError::Absent`].
pub async fn cancel(store: &dyn Store, run: RunId, by: &CanceledBy) -> Result<Run, RunOpError> {
    update(store, run, |run, now, batch| cancel_in(run, batch, by.clone(), now)).await
}

fn cancel_in(
    run: &mut Run,
    batch: &mut Batch,
    by: CanceledBy,
    now: Timestamp,
) -> Result<(), RunOpError> {
    if run.state.done().is_some() || run.cancel.is_some() {
        return Ok(());
    }
    run.cancel = Some(CancelAsk { by: by.clone(), at: now });
    if run.state.lease().is_none() {
        bundles::forget(batch, run);
        advance(run, Progress::Finished { outcome: Outcome::Canceled { by } }, now)?;
    }
    Ok(())
}

/// Lets a held run of exactly this commit be admitted. A second call changes nothing.
///
/// # Errors
/// [`RunOpError::Absent`]; [`RunOpError::OtherCommit`]; [`RunOpError::Illegal`] if the run was not held.
pub async fn approve(
    store: &dyn Store,
    run: RunId,
    commit: &CommitId,
    by: &str,
) -> Result<Run, RunOpError> {
    update(store, run, |run, now, _| approve_in(run, commit, by, now)).await
}

fn approve_in(
    run: &mut Run,
    commit: &CommitId,
    by: &str,
    now: Timestamp,
) -> Result<(), RunOpError> {
    if run.pull_request_head() != Some(commit) {
        return Err(RunOpError::OtherCommit { run: run.id, commit: commit.clone() });
    }
    if run.approved.is_none() {
        advance(run, Progress::Approved, now)?;
        run.approved = Some(Approval { by: by.to_owned(), at: now });
    }
    Ok(())
}

/// Ends a run that no worker will take, such as one in a pool without workers. The outcome is a failure or an error.
///
/// # Errors
/// [`RunOpError::Absent`]; [`RunOpError::LeaseLost`] if the run is leased; [`RunOpError::Illegal`] if it has ended.
pub async fn give_up(store: &dyn Store, run: RunId, outcome: Outcome) -> Result<Run, RunOpError> {
    update(store, run, |run, now, batch| {
        if run.state.lease().is_some() {
            return Err(RunOpError::LeaseLost { run: run.id });
        }
        bundles::forget(batch, run);
        advance(run, Progress::Finished { outcome: outcome.clone() }, now)
    })
    .await
}

/// Records that what an ended run used and made is recorded, together with that: `record` adds it to the batch, and is
/// called again after a conflict. A second call changes nothing.
///
/// # Errors
/// [`RunOpError::Absent`].
pub async fn settle<F>(
    store: &dyn Store,
    run: RunId,
    record: impl Fn(Run) -> F + Send + Sync,
) -> Result<(), RunOpError>
where
    F: Future<Output = Result<Batch, StoreError>> + Send,
{
    retry::commit(store, &key(run), || async {
        let mut found = find_versioned(store, run).await?.ok_or(RunOpError::Absent { run })?;
        if !found.value.is_unsettled() {
            return Ok(Plan::Answer(()));
        }
        let before = found.value.clone();
        let mut batch = record(before.clone()).await?;
        found.value.is_settled = true;
        found.replace_in(&mut batch, key(run))?;
        reindex(&mut batch, Some(&before), Some(&found.value));
        Ok(Plan::Commit(batch, ()))
    })
    .await
}

/// Adds to a batch that a run is still as it was read.
pub fn expect(batch: &mut Batch, found: &Versioned<Run>) {
    batch.expect.push((key(found.value.id), Expect::Version(found.version)));
}

/// Sets whether a run and its log are kept for good.
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

/// Removes an ended run that is not archived, with its run key. The caller removes its log first.
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
    batch.expect.push((key.clone(), Expect::Version(found.version)));
    batch.delete.push(key);
    bundles::forget(&mut batch, &found.value);
    steps::forget(&mut batch, &found.value);
    let created_for = found.value.created_for.iter();
    batch.delete.extend(created_for.map(|run_key| Key::new(Kind::RunKey, run_key)));
    reindex(&mut batch, Some(&found.value), None);
    match store.commit(batch).await {
        Ok(()) | Err(CommitError::Conflict { .. }) => Ok(()),
        Err(CommitError::Store(error)) => Err(error),
    }
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
        .map_err(|source| RunOpError::Illegal { run: run.id, source })?;
    Ok(())
}

/// Changes one run and its indexes under the run's version, and retries on conflicts. Whatever ends a scan that did not
/// succeed tells its task why.
async fn update(
    store: &dyn Store,
    run: RunId,
    change: impl Fn(&mut Run, Timestamp, &mut Batch) -> Result<(), RunOpError> + Send + Sync,
) -> Result<Run, RunOpError> {
    retry::commit(store, &key(run), || async {
        let mut found = find_versioned(store, run).await?.ok_or(RunOpError::Absent { run })?;
        let before = found.value.clone();
        let mut batch = Batch::default();
        let now = store.now().await?;
        change(&mut found.value, now, &mut batch)?;
        if found.value == before && batch.is_empty() {
            return Ok(Plan::Answer(found.value));
        }
        if let Some(error) = failed_scan(&before, &found.value) {
            let failed = Scanned::Failed { error: error.clone() };
            task_images::take_in(store, &mut batch, &found.value, &failed, now).await?;
        }
        found.replace_in(&mut batch, key(run))?;
        reindex(&mut batch, Some(&before), Some(&found.value));
        Ok(Plan::Commit(batch, found.value))
    })
    .await
}

/// Why a scan did not succeed, if it has just ended.
fn failed_scan<'a>(before: &Run, after: &'a Run) -> Option<&'a RunError> {
    match &after.purpose {
        Purpose::Scan if before.state.done().is_none() => after.state.done()?.outcome.error(),
        Purpose::Scan | Purpose::Execute | Purpose::Leg(_) => None,
    }
}
