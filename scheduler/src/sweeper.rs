//! Recovers what was lost: expired leases, doorbells that did not ring, pauses that are over.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use gantry_domain::id::RunId;
use gantry_domain::run::Run;
use gantry_domain::timestamp::Timestamp;
use gantry_ops::metrics::{self, Repair};
use gantry_seams::due::{self, Due};
use gantry_seams::queue::{EventAccepted, PoolHasWork, QueueError, Queues, RunsMoved};
use gantry_seams::runs::{self, Lapsed, RunOpError};
use gantry_seams::store::{SharedStore, StoreError};
use gantry_seams::workers;

use crate::decider::Asks;

/// How many leases one pass reads.
const LEASES: usize = 1024;

/// How many ready runs are read to find the pools that have some.
const READY: usize = 1024;

/// How many undecided events are counted.
const EVENTS: usize = 256;

/// Work that is due for longer than this counts as missed: its doorbell was lost, or no process was running.
pub(crate) const MISSED_AFTER: Duration = Duration::from_secs(2);

/// How long a worker that does not report is still listed.
const SILENCE: Duration = Duration::from_secs(300);

/// Finds lost work and rings doorbells for it. Keeps track of outages of the store.
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
    /// The leases seen by the last pass, and since when each is unchanged.
    leases: HashMap<RunId, SeenLease>,
    store_was_away: bool,
    seeing_since: Option<Timestamp>,
    no_lapse_before: Option<Timestamp>,
}

/// A lease, and when it was first seen with this end. `since` is monotonic and local: after the wall clock of the
/// server is stepped, the store clocks of two processes may be an hour apart.
#[derive(Debug, Clone, Copy)]
struct SeenLease {
    attempt: u32,
    until: Timestamp,
    since: Instant,
}

/// What the sweeper may conclude now from missing reports.
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
        // A new process cannot know whether the store was down a moment ago.
        let state = State {
            leases: HashMap::new(),
            store_was_away: true,
            seeing_since: None,
            no_lapse_before: None,
        };
        Self { store, queues, asks, lease, queue_timeout, state: Mutex::new(state) }
    }

    /// Makes one pass. Returns how much was repaired.
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

    /// Rings doorbells for events, waiting runs and ready runs that may have been missed.
    async fn ring_for_what_is_due(&self, now: Timestamp) -> Result<(), StoreError> {
        let store = self.store.as_ref();
        // Work that became due just now is probably being handled.
        let mut missed = due::undecided(store, now.before(MISSED_AFTER), EVENTS).await?;
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

    /// While the store was down, no lease could be renewed and no worker could report. So after its return every lease
    /// gets one full period, and missing workers count as missing only from then on.
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

    /// The runs whose lease has expired by the store's clock, and was also seen unrenewed for a whole period.
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

/// A doorbell that cannot be rung costs a few seconds: its loop polls as well.
async fn ring(what: &str, ringing: impl Future<Output = Result<(), QueueError>>) {
    if let Err(error) = ringing.await {
        tracing::debug!("{what} later: {error}");
    }
}
