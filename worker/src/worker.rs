//! A worker: takes ready runs of its pool, as many at once as it has slots.

use std::sync::Arc;
use std::time::Duration;

use gantry_domain::InvalidText;
use gantry_ops::backoff::Backoff;
use gantry_ops::said::Said;
use gantry_ops::secret::{PoolKey, SecretError, random_hex};
use gantry_ops::{metrics, telemetry};
use gantry_remote::http::OutboundClient;
use gantry_remote::registries::Registries;
use gantry_seams::blobs::SharedBlobs;
use gantry_seams::queue::Queues;
use gantry_seams::runs::{self, TakenRun};
use gantry_seams::store::{SharedStore, StoreError};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::announce::{Announcer, Readiness};
use crate::compile::Compiler;
use crate::engine::Engine;
use crate::engine::containers::Containers;
use crate::executor::Executor;
use crate::held::{Held, HeldRuns};
use crate::housekeeping::Housekeeper;
use crate::settings::WorkerSettings;
use crate::slot::Slot;
use crate::source::Sources;
use crate::step::build::Builder;
use crate::step::cmd::Commander;
use crate::step::push::Pusher;
use crate::tags::Tagger;

/// How often a worker polls for runs when no doorbell rings.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// The pause after taking a run. Each poll that finds nothing doubles it, up to [`LOOK_AGAIN`].
const LOOK_SOON: Duration = Duration::from_millis(250);

/// A worker.
#[derive(Clone)]
pub struct Worker {
    /// The store, shared by all roles.
    pub store: SharedStore,
    /// The doorbells.
    pub queues: Queues,
    /// Holds uploaded contexts and log segments.
    pub blobs: SharedBlobs,
    /// Opens the secrets of its pool's runs, and nothing else.
    pub pool_key: Arc<PoolKey>,
    /// Builds images.
    pub engine: Arc<dyn Engine>,
    /// Runs the containers of steps, on the same engine.
    pub containers: Arc<dyn Containers>,
    /// Fetches what task files name at an address.
    pub http: OutboundClient,
    /// Fetches sources.
    pub sources: Sources,
    /// Resolves bases and moves tags.
    pub registries: Arc<dyn Registries>,
    /// Its settings.
    pub settings: WorkerSettings,
    /// The runs that it holds.
    pub held: Arc<HeldRuns>,
}

/// No run could be taken.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// An error from the store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The system's random number generator failed.
    #[error(transparent)]
    Nonce(#[from] SecretError),
    /// The generated nonce is invalid.
    #[error(transparent)]
    Text(#[from] InvalidText),
}

impl Worker {
    /// Takes runs until `stop` is cancelled; then hands its runs back and returns.
    pub async fn run(self, stop: CancellationToken) {
        let readiness = Readiness::default();
        let (announcer, housekeeper) = (self.announcer(), self.housekeeper());
        tokio::join!(
            announcer.run(&readiness, &stop),
            housekeeper.run(&stop),
            self.watch_cancels(&stop),
            self.take_runs(&readiness, &stop),
        );
    }

    /// Takes the best ready run, if there is one, and executes an attempt of it. For tests, and for callers that need
    /// the effect at once. Returns whether there was one.
    ///
    /// # Errors
    /// [`TakeError`].
    pub async fn turn(&self, stop: &CancellationToken) -> Result<bool, TakeError> {
        let Some((taken, held)) = self.take().await? else { return Ok(false) };
        self.attempt(taken, held, stop).await;
        Ok(true)
    }

    async fn attempt(&self, taken: TakenRun, held: Held, stop: &CancellationToken) {
        let (run, attempt) = (taken.run.id, taken.holder.attempt);
        Box::pin(self.slot().attempt(taken, held, stop)).await;
        self.held.remove(run, attempt);
    }

    fn announcer(&self) -> Announcer {
        Announcer {
            store: Arc::clone(&self.store),
            queues: self.queues.clone(),
            engine: Arc::clone(&self.engine),
            held: Arc::clone(&self.held),
            settings: self.settings.clone(),
        }
    }

    fn housekeeper(&self) -> Housekeeper {
        Housekeeper {
            store: Arc::clone(&self.store),
            engine: Arc::clone(&self.engine),
            held: Arc::clone(&self.held),
            installation: self.settings.installation.clone(),
            keep_cache: self.settings.keep_cache,
            interval: self.settings.housekeeping,
        }
    }

    fn slot(&self) -> Slot {
        Slot {
            store: Arc::clone(&self.store),
            blobs: Arc::clone(&self.blobs),
            pool_key: Arc::clone(&self.pool_key),
            executor: self.executor(),
            settings: self.settings.clone(),
        }
    }

    fn executor(&self) -> Executor {
        Executor {
            store: Arc::clone(&self.store),
            runs_moved: Arc::clone(&self.queues.runs),
            installation: self.settings.installation.clone(),
            compiler: Compiler {
                http: self.http.clone(),
                image_aliases: self.settings.image_aliases.clone(),
            },
            policy: self.settings.policy.clone(),
            commander: Commander {
                engine: Arc::clone(&self.engine),
                containers: Arc::clone(&self.containers),
                limits: self.settings.step_limits,
                run_limits: self.settings.run_limits,
            },
            builder: Builder {
                engine: Arc::clone(&self.engine),
                sources: self.sources.clone(),
                uploads: Arc::clone(&self.blobs),
                registries: Arc::clone(&self.registries),
                pool_key: Arc::clone(&self.pool_key),
                installation: self.settings.installation.clone(),
            },
            pusher: Pusher {
                engine: Arc::clone(&self.engine),
                registries: Arc::clone(&self.registries),
                installation: self.settings.installation.clone(),
                worker: self.settings.id.clone(),
            },
            tagger: Tagger {
                store: Arc::clone(&self.store),
                registries: Arc::clone(&self.registries),
            },
        }
    }

    async fn take_runs(&self, readiness: &Readiness, stop: &CancellationToken) {
        let slots = Arc::new(Semaphore::new(self.settings.slots as usize));
        let attempts = TaskTracker::new();
        let mut pause = Backoff::new(LOOK_SOON, LOOK_AGAIN);
        let mut said = Said::default();
        loop {
            let slot = tokio::select! {
                () = stop.cancelled() => break,
                slot = Arc::clone(&slots).acquire_owned() => slot,
            };
            let Ok(slot) = slot else { break };
            let taken = if readiness.may_take() { self.take().await } else { Ok(None) };
            match taken {
                Ok(Some((taken, held))) => {
                    pause.reset();
                    said.over();
                    // A run that needs a worker to itself was taken while no other was held. So the other slots are
                    // free, and stay so.
                    let others =
                        if taken.run.wants_to_be_alone() { self.settings.slots - 1 } else { 0 };
                    let Ok(others) = Arc::clone(&slots).acquire_many_owned(others).await else {
                        break;
                    };
                    let (worker, stop) = (self.clone(), stop.clone());
                    attempts.spawn(async move {
                        worker.attempt(taken, held, &stop).await;
                        drop((slot, others));
                    });
                }
                Ok(None) => {
                    drop(slot);
                    said.over();
                    self.wait_for_work(pause.wait(), stop).await;
                }
                Err(error) => {
                    drop(slot);
                    let error = error.to_string();
                    if said.is_news(&error) {
                        tracing::warn!("no run can be claimed: {error}");
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

    async fn take(&self) -> Result<Option<(TakenRun, Held)>, TakeError> {
        let nonce = random_hex::<16>()?.parse()?;
        let settings = &self.settings;
        let (store, pool) = (self.store.as_ref(), &settings.pool);
        let (id, period) = (&settings.id, settings.lease.period);
        let taken = if self.held.ids().is_empty() {
            runs::take(store, pool, id, &nonce, period).await?
        } else {
            runs::take_beside_others(store, pool, id, &nonce, period).await?
        };
        Ok(taken.map(|taken| {
            metrics::run_taken(&taken.run);
            let held = self.held.insert(taken.run.id);
            (taken, held)
        }))
    }

    async fn wait_for_work(&self, at_most: Duration, stop: &CancellationToken) {
        let jobs = self.queues.jobs.pool(&self.settings.pool);
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(at_most) => {}
            claim = jobs.claim() => match claim {
                Ok(Some(claim)) => {
                    telemetry::doorbell("jobs", claim.trace());
                    if let Err(error) = claim.done().await {
                        tracing::debug!("a doorbell may be delivered again: {error}");
                    }
                }
                Ok(None) => stop.cancelled().await,
                Err(error) => {
                    tracing::debug!("doorbells cannot be received: {error}");
                    tokio::time::sleep(at_most).await;
                }
            },
        }
    }

    async fn watch_cancels(&self, stop: &CancellationToken) {
        loop {
            let mut control = match self.queues.control.listen().await {
                Ok(control) => control,
                Err(error) => {
                    tracing::warn!("a cancellation is noticed only at the next renewal: {error}");
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
                        Some(asked) => self.held.notify_cancel(asked.run),
                        None => return,
                    },
                }
            }
        }
    }
}
