//! Takes runs, builds their images on a container engine and tells the outcome. Keeps nothing.
//!
//! In: ready runs of one pool. Out: images under their tags, logs, outcomes, lineage. A worker may die at any moment:
//! what it held lapses, and another one takes it.

#![warn(missing_docs)]

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gantry_domain::InvalidText;
use gantry_domain::id::{PoolName, RunId, WorkerId};
use gantry_ops::backoff::Backoff;
use gantry_ops::secret::{PoolKey, SecretError, random_hex};
use gantry_ops::{metrics, telemetry};
use gantry_remote::registries::Registries;
use gantry_seams::blobs::SharedBlobs;
use gantry_seams::queue::Queues;
use gantry_seams::runs::{self, TakenRun};
use gantry_seams::store::{SharedStore, StoreError};
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub mod engine;
pub mod source;

mod announce;
mod attempt;
mod failure;
mod housekeeping;
mod lease;
mod log;
mod mask;
mod spans;
mod step;
mod tags;

pub use lease::LeaseTimes;

use announce::Readiness;
use engine::Engine;
use source::Sources;

/// How often a worker looks for work though no doorbell rang and it found none for a while.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// How soon it looks again after it took a run. Each look that finds nothing doubles this, up to [`LOOK_AGAIN`].
const LOOK_SOON: Duration = Duration::from_millis(250);

/// A worker.
#[derive(Clone)]
pub struct Worker {
    /// The truth.
    pub store: SharedStore,
    /// The doorbells.
    pub queues: Queues,
    /// Uploaded contexts and log segments.
    pub blobs: SharedBlobs,
    /// Opens the bundles of its pool, and nothing else.
    pub pool_key: Arc<PoolKey>,
    /// Builds images.
    pub engine: Arc<dyn Engine>,
    /// Fetches sources.
    pub sources: Sources,
    /// Resolves bases and moves tags.
    pub registries: Arc<dyn Registries>,
    /// Its settings.
    pub settings: WorkerSettings,
    /// What it has in hand.
    pub hand: Arc<Hand>,
}

/// What an operator decides.
#[derive(Debug, Clone)]
pub struct WorkerSettings {
    /// Its id: unique in the installation.
    pub id: WorkerId,
    /// Whether a later process has the same id: else it is new with each.
    pub has_fixed_name: bool,
    /// Whose runs it takes.
    pub pool: PoolName,
    /// The installation, for labels in the engine: a worker sweeps only its own.
    pub installation: String,
    /// How many runs it takes at once.
    pub slots: u32,
    /// Its leases.
    pub lease: LeaseTimes,
    /// Where sources are unpacked.
    pub work_folder: PathBuf,
    /// With less free space than this it takes nothing.
    pub min_free: u64,
    /// How much build cache the engine keeps.
    pub keep_cache: u64,
    /// How much of an attempt's log is kept.
    pub log_limit: u64,
    /// How often leftovers are looked for.
    pub housekeeping: Duration,
}

/// What a worker has in hand: the runs it holds, and what it shares between them.
#[derive(Default)]
pub struct Hand {
    held: Mutex<HashMap<RunId, Held>>,
    /// Rung when a run was let go that had an attempt before: the engine may have been at it for a moment longer.
    untidy: Notify,
}

/// A run in hand.
struct Held {
    /// It may have been asked to cancel.
    bell: Arc<Notify>,
    /// The lowest number that no other run in hand has.
    slot: u32,
}

impl Hand {
    /// The runs in hand, in order.
    pub(crate) fn runs(&self) -> Vec<RunId> {
        let mut runs: Vec<RunId> = self.held().keys().copied().collect();
        runs.sort_unstable();
        runs
    }

    fn begin(&self, run: RunId) -> Arc<Notify> {
        let bell = Arc::new(Notify::new());
        let mut held = self.held();
        let is_free = |slot: &u32| held.values().all(|held| held.slot != *slot);
        let slot = (0..).find(is_free).unwrap_or(u32::MAX);
        held.insert(run, Held { bell: Arc::clone(&bell), slot });
        bell
    }

    fn end(&self, run: RunId, attempt: u32) {
        self.held().remove(&run);
        if attempt > 1 {
            self.untidy.notify_one();
        }
    }

    fn ring(&self, run: RunId) {
        if let Some(held) = self.held().get(&run) {
            held.bell.notify_one();
        }
    }

    /// The slot of a run in hand: below the worker's number of slots, and no other run's.
    pub(crate) fn slot(&self, run: RunId) -> u32 {
        self.held().get(&run).map_or(0, |held| held.slot)
    }

    fn held(&self) -> MutexGuard<'_, HashMap<RunId, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// No run could be taken.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// The store's own.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No nonce could be made.
    #[error(transparent)]
    Nonce(#[from] SecretError),
    /// What was made is no nonce.
    #[error(transparent)]
    Text(#[from] InvalidText),
}

impl Worker {
    /// Takes runs until `stop` is cancelled; then hands back what it holds and returns.
    pub async fn run(self, stop: CancellationToken) {
        let readiness = Readiness::default();
        tokio::join!(
            self.announce(&readiness, &stop),
            self.hear_cancels(&stop),
            self.keep_house(&stop),
            self.take_runs(&readiness, &stop),
        );
    }

    /// Turns the crank: takes the best ready run, if there is one, and does an attempt at it. For tests and for whoever
    /// wants the effect of a doorbell at once. Answers whether there was one.
    ///
    /// # Errors
    /// [`TakeError`].
    pub async fn turn(&self, stop: &CancellationToken) -> Result<bool, TakeError> {
        let Some((taken, bell)) = self.take().await? else { return Ok(false) };
        let (run, attempt) = (taken.run.id, taken.holder.attempt);
        self.attempt(taken, bell, stop).await;
        self.hand.end(run, attempt);
        Ok(true)
    }

    async fn take_runs(&self, readiness: &Readiness, stop: &CancellationToken) {
        let slots = Arc::new(Semaphore::new(self.settings.slots as usize));
        let attempts = TaskTracker::new();
        let mut pause = Backoff::new(LOOK_SOON, LOOK_AGAIN);
        let mut said = None;
        loop {
            let slot = tokio::select! {
                () = stop.cancelled() => break,
                slot = Arc::clone(&slots).acquire_owned() => slot,
            };
            let Ok(slot) = slot else { break };
            let taken = if readiness.may_take() { self.take().await } else { Ok(None) };
            match taken {
                Ok(Some((taken, bell))) => {
                    pause.reset();
                    said = None;
                    // Whoever wants to be alone was given to an empty hand: the other slots are free, and stay so.
                    let others =
                        if taken.run.wants_to_be_alone() { self.settings.slots - 1 } else { 0 };
                    let Ok(others) = Arc::clone(&slots).acquire_many_owned(others).await else {
                        break;
                    };
                    let (worker, stop) = (self.clone(), stop.clone());
                    attempts.spawn(async move {
                        let (run, attempt) = (taken.run.id, taken.holder.attempt);
                        worker.attempt(taken, bell, &stop).await;
                        worker.hand.end(run, attempt);
                        drop((slot, others));
                    });
                }
                Ok(None) => {
                    drop(slot);
                    said = None;
                    self.wait_for_work(pause.wait(), stop).await;
                }
                Err(error) => {
                    drop(slot);
                    let error = error.to_string();
                    if said.as_ref() != Some(&error) {
                        tracing::warn!("no run can be taken: {error}");
                        said = Some(error);
                    }
                    tokio::select! {
                        () = stop.cancelled() => break,
                        () = tokio::time::sleep(pause.wait()) => {}
                    }
                }
            }
        }
        attempts.close();
        attempts.wait().await;
    }

    async fn take(&self) -> Result<Option<(TakenRun, Arc<Notify>)>, TakeError> {
        let nonce = random_hex::<16>()?.parse()?;
        let settings = &self.settings;
        let (store, pool) = (self.store.as_ref(), &settings.pool);
        let (id, period) = (&settings.id, settings.lease.period);
        let taken = if self.hand.runs().is_empty() {
            runs::take(store, pool, id, &nonce, period).await?
        } else {
            runs::take_beside_others(store, pool, id, &nonce, period).await?
        };
        Ok(taken.map(|taken| {
            metrics::run_taken(&taken.run);
            let bell = self.hand.begin(taken.run.id);
            (taken, bell)
        }))
    }

    async fn wait_for_work(&self, at_most: Duration, stop: &CancellationToken) {
        let jobs = self.queues.jobs.pool(&self.settings.pool);
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(at_most) => {}
            claim = jobs.claim() => match claim {
                Ok(Some(claim)) => {
                    telemetry::hear("jobs", claim.trace());
                    if let Err(error) = claim.done().await {
                        tracing::debug!("a doorbell may ring again: {error}");
                    }
                }
                Ok(None) => stop.cancelled().await,
                Err(error) => {
                    tracing::debug!("no doorbell rings: {error}");
                    tokio::time::sleep(at_most).await;
                }
            },
        }
    }

    async fn hear_cancels(&self, stop: &CancellationToken) {
        loop {
            let mut control = match self.queues.control.listen().await {
                Ok(control) => control,
                Err(error) => {
                    tracing::warn!("cancels are heard with the next renewal only: {error}");
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = tokio::time::sleep(LOOK_AGAIN) => continue,
                    }
                }
            };
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    asked = control.next() => match asked {
                        Some(asked) => self.hand.ring(asked.run),
                        None => return,
                    },
                }
            }
        }
    }
}
