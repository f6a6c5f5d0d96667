//! Finds what was lost: leases that nobody renews any more, doorbells that did not ring, pauses that are over.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use gantry_domain::id::RunId;
use gantry_domain::run::Run;
use gantry_domain::timestamp::Timestamp;
use gantry_ops::metrics::{self, Repair};
use gantry_seams::events::Due;
use gantry_seams::queue::{EventAccepted, PoolHasWork, QueueError, Queues, RunsMoved};
use gantry_seams::runs::{self, Lapsed, RunOpError};
use gantry_seams::store::{SharedStore, StoreError};
use gantry_seams::{events, workers};

use crate::decider::Asks;

/// How many leases one look sees.
const LEASES: usize = 1024;

/// How many ready runs are looked at to find the pools that have some.
const READY: usize = 1024;

/// How many undecided events are counted.
const EVENTS: usize = 256;

/// What nobody looked at for so long was missed: its doorbell did not ring, or nobody was there.
pub(crate) const MISSED_AFTER: Duration = Duration::from_secs(2);

/// How long a worker that says nothing is still listed.
const SILENCE: Duration = Duration::from_secs(300);

/// Finds what was lost, and rings for it. Remembers when the store was away.
pub struct Sweeper {
    pub(crate) store: SharedStore,
    pub(crate) queues: Queues,
    asks: Arc<Asks>,
    /// The period of a lease.
    lease: Duration,
    /// How long a run may be ready in a pool without workers.
    pub(crate) queue_timeout: Duration,
    state: Mutex<State>,
}

struct State {
    /// The leases that were there at the last look, and since when each stands as it does.
    leases: HashMap<RunId, SeenLease>,
    store_was_away: bool,
    seeing_since: Option<Timestamp>,
    no_lapse_before: Option<Timestamp>,
}

/// A lease, and when it was first seen to end when it does. By a clock that nobody steps, and no other process has: the
/// store's clocks of two processes may be an hour apart after a step of the server's.
#[derive(Debug, Clone, Copy)]
struct SeenLease {
    attempt: u32,
    until: Timestamp,
    since: Instant,
}

/// What the sweeper may conclude from what it does not see.
struct Sight {
    since: Timestamp,
    may_lapse: bool,
}

impl Sweeper {
    pub(crate) fn new(
        store: SharedStore,
        queues: Queues,
        asks: Arc<Asks>,
        lease: Duration,
        queue_timeout: Duration,
    ) -> Self {
        // Who begins cannot know whether the store was away a moment ago.
        let state = State {
            leases: HashMap::new(),
            store_was_away: true,
            seeing_since: None,
            no_lapse_before: None,
        };
        Self { store, queues, asks, lease, queue_timeout, state: Mutex::new(state) }
    }

    /// Looks once. Answers how much was repaired.
    pub(crate) async fn tick(&self) -> Result<usize, StoreError> {
        let swept = self.sweep_once().await;
        if swept.is_err() {
            self.state.lock().unwrap_or_else(PoisonError::into_inner).store_was_away = true;
        }
        swept
    }

    async fn sweep_once(&self) -> Result<usize, StoreError> {
        let store = self.store.as_ref();
        let now = store.now().await?;
        let mut repaired = 0;
        let sight = self.sight(now);
        let lapsed = self.lapsed(&runs::leased(store, LEASES).await?, now);
        if sight.may_lapse {
            repaired += self.end_leases(lapsed).await?;
        }
        let stranded = self.end_stranded_runs(now, sight.since).await?;
        metrics::repaired(Repair::RunStranded, stranded);
        repaired += stranded;
        self.ring_for_what_is_due(now).await?;
        let forgotten = workers::forget_silent(store, SILENCE).await?;
        metrics::repaired(Repair::WorkerForgotten, forgotten);
        metrics::swept(now);
        Ok(repaired)
    }

    /// Rings for events, waiting runs and ready runs that may have been missed: whose loop it is looks.
    async fn ring_for_what_is_due(&self, now: Timestamp) -> Result<(), StoreError> {
        let store = self.store.as_ref();
        // What is due for a moment only is on its way: nothing was lost.
        let mut missed = events::undecided(store, now.before(MISSED_AFTER), EVENTS).await?;
        missed.retain(|due| !self.asks.has(&due.event));
        metrics::repaired(Repair::EventDecided, missed.len());
        if let Some(Due { event, .. }) = missed.pop() {
            ring("events are decided", self.queues.events.publish(EventAccepted { event }, None))
                .await;
        }
        if let Some(run) = runs::waiting(store, None, 1).await?.pop() {
            let moved = RunsMoved { run: run.id };
            ring("runs are admitted", self.queues.runs.publish(moved, None)).await;
        }
        for pool in runs::pools_with_work(store, READY).await? {
            let jobs = self.queues.jobs.pool(&pool);
            ring("runs are taken", jobs.publish(PoolHasWork { pool }, None)).await;
        }
        Ok(())
    }

    /// While the store was away nobody could renew, and no worker could say that it is there: every lease gets one full
    /// period from its return, and who is missing is missing from then on.
    fn sight(&self, now: Timestamp) -> Sight {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::take(&mut state.store_was_away) {
            state.no_lapse_before = Some(now.after(self.lease));
            state.seeing_since = None;
        }
        Sight {
            since: *state.seeing_since.get_or_insert(now),
            may_lapse: state.no_lapse_before.is_none_or(|moment| now >= moment),
        }
    }

    /// The runs whose lease is over by the store's clock and was not renewed for a whole period either, as far as was seen.
    fn lapsed(&self, leased: &[Run], now: Timestamp) -> Vec<RunId> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let known = std::mem::take(&mut state.leases);
        let mut lapsed = Vec::new();
        for run in leased {
            let Some(lease) = run.state.lease() else { continue };
            let (attempt, until) = (lease.attempt, lease.until);
            let known = known.get(&run.id).copied();
            let seen = known.filter(|seen| (seen.attempt, seen.until) == (attempt, until));
            let seen = seen.unwrap_or_else(|| SeenLease { attempt, until, since: Instant::now() });
            if until <= now && seen.since.elapsed() >= self.lease {
                lapsed.push(run.id);
            }
            state.leases.insert(run.id, seen);
        }
        lapsed
    }

    async fn end_leases(&self, lapsed: Vec<RunId>) -> Result<usize, StoreError> {
        let store = self.store.as_ref();
        let mut ended = 0;
        for id in lapsed {
            let lapsed = match runs::lapse(store, id).await {
                Ok(Some(lapsed)) => lapsed,
                Ok(None) | Err(RunOpError::Absent { .. }) => continue,
                Err(RunOpError::Store(StoreError::Undecodable { .. })) => continue,
                Err(RunOpError::Store(error)) => return Err(error),
                Err(error) => {
                    tracing::error!(run.id = %id, "the lease of run {id} cannot be ended: {error}");
                    continue;
                }
            };
            ended += 1;
            metrics::lease_lapsed();
            match &lapsed {
                Lapsed::Done(run) => {
                    metrics::run_ended(run);
                    tracing::error!(run.id = %run.id, "the worker of run {} was lost; it ended as {}", run.id, run.status());
                }
                Lapsed::WillBeTriedAgain(run) => {
                    tracing::warn!(run.id = %run.id, "the worker of run {} was lost; it is tried again", run.id);
                }
            }
            let (Lapsed::Done(run) | Lapsed::WillBeTriedAgain(run)) = lapsed;
            let moved = RunsMoved { run: id };
            ring("runs are admitted", self.queues.runs.publish(moved, run.trace)).await;
        }
        Ok(ended)
    }
}

/// A doorbell that does not ring costs a few seconds: its loop looks by itself.
async fn ring(what: &str, ringing: impl Future<Output = Result<(), QueueError>>) {
    if let Err(error) = ringing.await {
        tracing::debug!("{what} later: {error}");
    }
}
