//! Leases: which worker may act on a run and until when, and the progress that it reports.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use gantry_domain::attempt::{Holder, Lease};
use gantry_domain::built_on::{BuiltOn, SourceRead};
use gantry_domain::id::{LeaseNonce, PoolName, RunId, StepId, WorkerId};
use gantry_domain::image::ImageReference;
use gantry_domain::lineage::Lineage;
use gantry_domain::run::{IllegalTransition, Progress, Run, RunState};
use gantry_domain::scan::Scanned;
use gantry_domain::step::Steps;
use gantry_domain::timestamp::Timestamp;

use super::indexes::{self, reindex};
use super::{
    Bundled, Finish, Finished, Lapsed, RunOpError, advance, bundles, ends, find_versioned, key,
    update,
};
use crate::codec::Versioned;
use crate::retry::{self, Plan};
use crate::store::{Batch, CommitError, Entry, Expect, From, Index, Store, StoreError};
use crate::{lineages, steps, tags, task_images};

/// How many ready runs are read at once.
const TAKE_WINDOW: usize = 64;

/// How many windows are read when other workers took every run that was tried.
const TAKE_ROUNDS: usize = 4;

/// A leased run with everything that its worker needs.
#[derive(Debug, Clone)]
pub struct TakenRun {
    /// The run, with its lease.
    pub run: Run,
    /// Proves to later operations that the caller holds the lease.
    pub holder: Holder,
    /// Its secrets, sealed for the pool.
    pub bundle: Bundled,
}

/// The result of [`renew`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// The lease was renewed.
    Held,
    /// The lease was renewed, and cancellation is requested.
    CancelAsked,
    /// The caller no longer holds the lease.
    Lost,
}

/// For how long busy workers skip a run that needs a worker to itself. After that they take nothing until they are
/// idle, so that newer runs do not starve it.
const PASSED_FOR: Duration = Duration::from_secs(60);

/// What else the taking worker holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holds {
    Nothing,
    OtherRuns,
}

/// Leases the best ready run of a pool, for `lease` from now, to a worker that holds no other run; `None` if there is
/// none.
///
/// After a conflict the worker tries the other runs in an order that depends on its nonce. If all workers went down the
/// same list they would conflict at every run.
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
    take_with(store, pool, worker, nonce, lease, Holds::Nothing).await
}

/// Like [`take`], for a worker that holds other runs. It does not get a run that needs a worker to itself. Once such a
/// run has been skipped for too long, busy workers get nothing from its pool.
///
/// # Errors
/// [`StoreError`].
pub async fn take_beside_others(
    store: &dyn Store,
    pool: &PoolName,
    worker: &WorkerId,
    nonce: &LeaseNonce,
    lease: Duration,
) -> Result<Option<TakenRun>, StoreError> {
    take_with(store, pool, worker, nonce, lease, Holds::OtherRuns).await
}

async fn take_with(
    store: &dyn Store,
    pool: &PoolName,
    worker: &WorkerId,
    nonce: &LeaseNonce,
    lease: Duration,
    holds: Holds,
) -> Result<Option<TakenRun>, StoreError> {
    let ready = indexes::ready(pool);
    let mut conflicts: u64 = 0;
    for _ in 0..TAKE_ROUNDS {
        let before = conflicts;
        let mut entries = store.range(&ready, From::Start, TAKE_WINDOW).await?;
        while !entries.is_empty() {
            let choices = count_before_hidden(&entries);
            let entry = entries.remove(place_of_choice(nonce, conflicts, choices));
            let Some(id) = member_run(store, &ready, &entry).await? else { continue };
            let Some(found) = take_candidate(store, id, &entry).await? else { continue };
            if holds == Holds::OtherRuns && found.value.wants_to_be_alone() {
                if is_passed_too_long(&found.value, store.now().await?) {
                    return Ok(None);
                }
                continue;
            }
            match take_this(store, found, worker, nonce, lease).await? {
                Some(taken) => return Ok(Some(taken)),
                None => conflicts += 1,
            }
        }
        if conflicts == before {
            break;
        }
    }
    Ok(None)
}

fn is_passed_too_long(run: &Run, now: Timestamp) -> bool {
    matches!(&run.state, RunState::Ready { since, .. } if now.since(*since) > PASSED_FOR)
}

/// How many of these runs come before the first hidden one; all of them if that is the first.
fn count_before_hidden(entries: &[Entry]) -> usize {
    let is_shown = |entry: &Entry| entry.member.parse::<RunId>().is_ok_and(|run| !run.is_hidden());
    match entries.iter().take_while(|entry| is_shown(entry)).count() {
        0 => entries.len(),
        shown => shown,
    }
}

/// Which of `count` runs to try: the best one, or after a conflict one chosen by the nonce.
fn place_of_choice(nonce: &LeaseNonce, conflicts: u64, count: usize) -> usize {
    if conflicts == 0 {
        return 0;
    }
    let mut hasher = DefaultHasher::new();
    (nonce.as_str(), conflicts).hash(&mut hasher);
    usize::try_from(hasher.finish() % count.max(1) as u64).unwrap_or(0)
}

/// Leases a ready run; `None` if another worker took it meanwhile. Its secrets are read first, so that no attempt
/// starts without them.
async fn take_this(
    store: &dyn Store,
    mut found: Versioned<Run>,
    worker: &WorkerId,
    nonce: &LeaseNonce,
    lease: Duration,
) -> Result<Option<TakenRun>, StoreError> {
    let before = found.value.clone();
    let bundle = bundles::load(store, &before).await?;
    let now = store.now().await?;
    let lease = Lease {
        attempt: before.next_attempt(),
        worker: worker.clone(),
        pool: before.pool(),
        nonce: nonce.clone(),
        since: now,
        until: now.after(lease),
    };
    let holder = lease.holder();
    let Ok(state) = before.state.clone().apply(Progress::Taken { lease }, now) else {
        return Ok(None);
    };
    found.value.state = state;
    let mut batch = Batch::default();
    found.replace_in(&mut batch, key(before.id))?;
    reindex(&mut batch, Some(&before), Some(&found.value));
    match store.commit(batch).await {
        Ok(()) => Ok(Some(TakenRun { run: found.value, holder, bundle })),
        Err(CommitError::Conflict { .. }) => Ok(None),
        Err(CommitError::Store(error)) => Err(error),
    }
}

async fn take_candidate(
    store: &dyn Store,
    id: RunId,
    entry: &Entry,
) -> Result<Option<Versioned<Run>>, StoreError> {
    match find_versioned(store, id).await {
        // A record that does not decode must not block the runs behind it.
        Err(StoreError::Undecodable { .. }) => Ok(None),
        Ok(Some(found)) if matches!(&found.value.state, RunState::Ready { rank, .. } if rank.0 == entry.score) => {
            Ok(Some(found))
        }
        Ok(_) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The run that an index entry names. A malformed entry is removed.
async fn member_run(
    store: &dyn Store,
    index: &Index,
    entry: &Entry,
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

/// Records that the source was fetched at the commit in `read`, and that the first of `steps` starts. Returns whether a
/// scheduler must still resolve the facts that the run is built on. A second call of the same attempt changes nothing.
///
/// # Errors
/// [`RunOpError::LeaseLost`], [`RunOpError::CancelAsked`].
pub async fn began(
    store: &dyn Store,
    run: RunId,
    holder: &Holder,
    read: Option<&SourceRead>,
    steps: &Steps,
) -> Result<bool, RunOpError> {
    let run = update(store, run, |run, now, batch| {
        check_holder(run, holder)?;
        refuse_cancelled(run)?;
        steps::put(batch, run.id, holder.attempt, steps)?;
        if let Some(read) = read {
            // A later attempt reads the branch again and may get another commit.
            let is_other = run.read.as_ref().is_some_and(|before| before.commit != read.commit);
            if is_other || run.built_on == BuiltOn::Unread {
                run.built_on = BuiltOn::Read(read.clone());
            }
        }
        run.read = read.cloned();
        if matches!(run.state, RunState::Running { .. }) {
            return Ok(());
        }
        advance(run, Progress::Began, now)
    })
    .await?;
    Ok(matches!(run.built_on, BuiltOn::Read(_)))
}

/// Records the facts that a run is built on, for the commit in `read`. Changes nothing if a later attempt has read
/// another commit meanwhile.
///
/// # Errors
/// [`RunOpError::Absent`].
pub async fn resolve_built_on(
    store: &dyn Store,
    run: RunId,
    read: &SourceRead,
    built_on: BuiltOn,
) -> Result<(), RunOpError> {
    update(store, run, |run, _, _| {
        if matches!(&run.built_on, BuiltOn::Read(standing) if standing == read) {
            run.built_on = built_on.clone();
        }
        Ok(())
    })
    .await
    .map(drop)
}

/// Renews a lease for `lease` from now.
///
/// # Errors
/// [`StoreError`]: the caller may continue to build, but must not tag.
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

/// Claims the final tags that a step is about to move, and returns which of `images` it may move. A second call for the
/// same step of the attempt returns the same, unless the first returned [`tags::Permit::Undecided`], which claims
/// nothing.
///
/// # Errors
/// [`RunOpError::LeaseLost`]; [`RunOpError::CancelAsked`]; [`RunOpError::Illegal`] before the first step.
pub async fn tagging(
    store: &dyn Store,
    run: RunId,
    holder: &Holder,
    step: &StepId,
    images: &[ImageReference],
    lease: Duration,
) -> Result<tags::Permit, RunOpError> {
    let writer = tags::Writer { run, attempt: holder.attempt, step: step.clone() };
    retry::commit(store, &key(run), || async {
        let mut found = find_versioned(store, run).await?.ok_or(RunOpError::Absent { run })?;
        let before = found.value.clone();
        check_holder(&before, holder)?;
        refuse_cancelled(&before)?;
        let now = store.now().await?;
        let mut batch = Batch::default();
        if !matches!(before.state, RunState::Running { .. }) {
            let source = IllegalTransition { from: before.status(), to: "tagged" };
            return Err(RunOpError::Illegal { run, source });
        }
        if let Some(held) = found.value.state.lease_mut() {
            held.until = now.after(lease);
        }
        let permit = tags::claim(store, &mut batch, &found.value, &writer, images, now).await?;
        if permit == tags::Permit::Undecided {
            return Ok(Plan::Answer(permit));
        }
        found.replace_in(&mut batch, key(run))?;
        reindex(&mut batch, Some(&before), Some(&found.value));
        Ok(Plan::Commit(batch, permit))
    })
    .await
}

/// Records the lineage of a pushed image and the attempt's `steps`. A second call of the same attempt writes the same.
///
/// # Errors
/// [`RunOpError::LeaseLost`].
pub async fn pushed(
    store: &dyn Store,
    run: RunId,
    holder: &Holder,
    lineage: &Lineage,
    steps: &Steps,
) -> Result<(), RunOpError> {
    update(store, run, |run, _, batch| {
        check_holder(run, holder)?;
        lineages::record(batch, lineage)?;
        Ok(steps::put(batch, run.id, holder.attempt, steps)?)
    })
    .await
    .map(drop)
}

/// Records which images the task of a run needs, as an attempt found them in the source, unless a newer state of the task
/// is known. Records nothing for a run that does not execute its task as it is saved. A second call of the same attempt
/// records the same.
///
/// # Errors
/// [`RunOpError::LeaseLost`].
pub async fn scanned(
    store: &dyn Store,
    run: RunId,
    holder: &Holder,
    found: &Scanned,
) -> Result<(), RunOpError> {
    retry::commit(store, &key(run), || async {
        let known = find_versioned(store, run).await?.ok_or(RunOpError::Absent { run })?;
        check_holder(&known.value, holder)?;
        let (mut batch, now) = (Batch::default(), store.now().await?);
        task_images::take_in(store, &mut batch, &known.value, found, now).await?;
        if batch.is_empty() {
            return Ok(Plan::Answer(()));
        }
        batch.expect.push((key(run), Expect::Version(known.version)));
        Ok(Plan::Commit(batch, ()))
    })
    .await
}

/// Ends an attempt and its lease: records `steps`, outcome and outputs, or after an infrastructure failure lets the run
/// wait for its next attempt. A second call of the same attempt returns [`RunOpError::LeaseLost`].
///
/// # Errors
/// [`RunOpError::LeaseLost`].
pub async fn finish(
    store: &dyn Store,
    run: RunId,
    holder: &Holder,
    finish: Finish,
    steps: &Steps,
) -> Result<Finished, RunOpError> {
    let ended = update(store, run, |run, now, batch| {
        check_holder(run, holder)?;
        // The next attempt, if there is one, gets newly sealed secrets.
        bundles::forget(batch, run);
        ends::end_attempt(run, &finish, now)?;
        Ok(steps::put(batch, run.id, holder.attempt, steps)?)
    })
    .await?;
    Ok(match ended.state.done() {
        Some(_) => Finished::Done(ended),
        None => Finished::WillBeTriedAgain(ended),
    })
}

/// Ends a lease that has expired: the run waits for its next attempt, or ends. `None` if the lease was renewed
/// meanwhile.
///
/// # Errors
/// [`RunOpError::Absent`].
pub async fn lapse(store: &dyn Store, run: RunId) -> Result<Option<Lapsed>, RunOpError> {
    lapse_if(store, run, |lease, now| lease.until <= now).await
}

/// Ends the lease of a worker that is known to be dead, such as one of an earlier process on this data directory.
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
        bundles::forget(batch, run);
        ends::lapse(run, attempt, now)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_never_chooses_a_hidden_run_before_another() {
        for (ready, choices) in
            [(&["ca1", "ca2", "ca-1"][..], 2), (&["ca-1", "cb-1"], 2), (&["ca1"], 1), (&[], 0)]
        {
            let entry = |member: &&str| Entry { score: 0, member: (*member).to_owned() };
            let entries: Vec<Entry> = ready.iter().map(entry).collect();
            assert_eq!(count_before_hidden(&entries), choices, "{ready:?}");
        }
    }
}
