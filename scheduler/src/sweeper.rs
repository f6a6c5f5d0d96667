//! Finds what was lost: leases of workers that were not heard of again, doorbells that did not ring, pauses that are over.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use gantry_domain::id::RunId;
use gantry_domain::run::Run;
use gantry_domain::timestamp::Timestamp;
use gantry_ops::metrics::{self, Repair};
use gantry_seams::queue::{PoolHasWork, RunsMoved};
use gantry_seams::runs::{self, Lapsed, RunOpError};
use gantry_seams::store::StoreError;
use gantry_seams::{events, workers};

use crate::Scheduler;

/// How many leases one look sees.
const LEASES: usize = 1024;

/// How many ready runs are looked at to find the pools that have some.
const READY: usize = 1024;

/// How many undecided events are counted.
const EVENTS: usize = 256;

/// What nobody looked at for so long was missed: its doorbell did not ring, or nobody was there to hear it.
pub(crate) const MISSED_AFTER: Duration = Duration::from_secs(2);

/// How long a worker that says nothing is still listed.
const SILENCE: Duration = Duration::from_secs(300);

/// A sweeper: remembers when the store was away.
pub(crate) struct Sweeper {
    scheduler: Scheduler,
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
    pub(crate) fn new(scheduler: Scheduler) -> Self {
        // Who begins cannot know whether the store was away a moment ago.
        let state = State {
            leases: HashMap::new(),
            store_was_away: true,
            seeing_since: None,
            no_lapse_before: None,
        };
        Self { scheduler, state: Mutex::new(state) }
    }

    /// Looks once. Answers how much was repaired.
    pub(crate) async fn sweep(&self) -> Result<usize, StoreError> {
        let swept = self.sweep_once().await;
        if swept.is_err() {
            self.state.lock().unwrap_or_else(PoisonError::into_inner).store_was_away = true;
        }
        swept
    }

    async fn sweep_once(&self) -> Result<usize, StoreError> {
        let store = self.scheduler.store.as_ref();
        let now = store.now().await?;
        let mut repaired = 0;
        let sight = self.sight(now);
        let lapsed = self.lapsed(&runs::leased(store, LEASES).await?, now);
        if sight.may_lapse {
            repaired += self.end_leases(lapsed).await?;
        }
        let stranded = self.scheduler.end_stranded_runs(now, sight.since).await?;
        metrics::repaired(Repair::RunStranded, stranded);
        repaired += stranded;
        // What is due for a moment only is on its way: nothing was lost.
        let missed = events::undecided(store, now.before(MISSED_AFTER), EVENTS).await?;
        let missed = missed.iter().filter(|event| !self.scheduler.asks.has(event)).count();
        metrics::repaired(Repair::EventDecided, missed);
        repaired += self.scheduler.decide_events().await?;
        repaired += self.scheduler.admit_runs().await?;
        for pool in runs::pools_with_work(store, READY).await? {
            let jobs = self.scheduler.queues.jobs.pool(&pool);
            if let Err(error) = jobs.publish(PoolHasWork { pool }, None).await {
                tracing::debug!("workers look for themselves: {error}");
            }
        }
        let forgotten = workers::forget_silent(store, SILENCE).await?;
        metrics::repaired(Repair::WorkerForgotten, forgotten);
        self.scheduler.tell_figures(now).await?;
        Ok(repaired)
    }

    /// While the store was away nobody could renew, and no worker could say that it is there: every lease gets one full
    /// period from its return, and who is missing is missing from then on.
    fn sight(&self, now: Timestamp) -> Sight {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::take(&mut state.store_was_away) {
            state.no_lapse_before = Some(now.after(self.scheduler.settings.lease));
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
            if until <= now && seen.since.elapsed() >= self.scheduler.settings.lease {
                lapsed.push(run.id);
            }
            state.leases.insert(run.id, seen);
        }
        lapsed
    }

    async fn end_leases(&self, lapsed: Vec<RunId>) -> Result<usize, StoreError> {
        let store = self.scheduler.store.as_ref();
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
            let queue = &self.scheduler.queues.runs;
            if let Err(error) = queue.publish(RunsMoved { run: id }, run.trace).await {
                tracing::debug!("admission looks for itself: {error}");
            }
        }
        Ok(ended)
    }
}
