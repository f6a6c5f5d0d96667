//! Reports the worker's state, and takes no runs while it cannot build or is drained.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gantry_domain::platform::Platform;
use gantry_domain::timestamp::Timestamp;
use gantry_domain::worker::{Drain, EngineHealth, Worker as WorkerRecord};
use gantry_ops::metrics;
use gantry_ops::said::Said;
use gantry_seams::queue::{PoolHasWork, Queues};
use gantry_seams::store::{SharedStore, StoreError};
use gantry_seams::workers;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::engine::{Engine, EngineInfo};
use crate::held::HeldRuns;
use crate::settings::WorkerSettings;

/// The interval of reports.
const EVERY: Duration = Duration::from_secs(5);

/// The interval at which the engine is asked for its platforms: its answer costs it a process for each.
const PLATFORMS_EVERY: Duration = Duration::from_secs(60);

/// Whether runs may be taken now.
#[derive(Debug, Default)]
pub(crate) struct Readiness {
    may_take: AtomicBool,
}

impl Readiness {
    pub(crate) fn may_take(&self) -> bool {
        self.may_take.load(Ordering::Acquire)
    }

    fn set(&self, may_take: bool) {
        self.may_take.store(may_take, Ordering::Release);
    }
}

/// Why a worker takes no runs.
#[derive(Debug, PartialEq)]
enum Obstacle {
    /// The worker cannot build.
    Idle(String),
    /// The worker was drained.
    Drained(Drain),
}

fn tell(obstacle: Option<&Obstacle>) {
    match obstacle {
        Some(Obstacle::Idle(why)) => tracing::warn!("no runs are taken: {why}"),
        Some(Obstacle::Drained(drain)) => tracing::warn!(
            "no runs are taken: drained since {}; `gantry worker resume {}` ends that",
            drain.since,
            drain.worker
        ),
        None => tracing::info!("runs are taken"),
    }
}

/// The engine's platforms, as it told them last.
#[derive(Default)]
struct KnownPlatforms {
    platforms: Vec<Platform>,
    asked: Option<Instant>,
}

impl KnownPlatforms {
    /// The platforms of an engine on a machine of platform `own`, which it is asked for now and then.
    async fn of(&mut self, engine: &dyn Engine, own: Platform) -> Vec<Platform> {
        if self.asked.is_none_or(|asked| asked.elapsed() >= PLATFORMS_EVERY) {
            self.asked = Some(Instant::now());
            self.platforms = engine.platforms().await.unwrap_or_else(|error| {
                tracing::warn!("only {own} is reported as a platform of the engine: {error}");
                vec![own]
            });
        }
        self.platforms.clone()
    }
}

/// Reports a worker's state every few seconds.
pub(crate) struct Announcer {
    pub(crate) store: SharedStore,
    pub(crate) queues: Queues,
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) held: Arc<HeldRuns>,
    pub(crate) settings: WorkerSettings,
}

impl Announcer {
    pub(crate) async fn run(&self, readiness: &Readiness, stop: &CancellationToken) {
        let store = self.store.as_ref();
        let mut told = workers::watch_drain(store, &self.settings.id);
        let mut said = None;
        let mut unseen = Said::default();
        let mut written = None;
        let mut has_namesake = false;
        let mut platforms = KnownPlatforms::default();
        loop {
            if !has_namesake && self.has_namesake(written).await {
                has_namesake = true;
                tracing::warn!(
                    "another worker is also named `{}`, and draining one drains both: give each its own name with --name",
                    self.settings.id
                );
            }
            match self.say_how_it_is(&mut platforms).await {
                Ok((at, obstacle)) => {
                    unseen.over();
                    written = Some(at);
                    if obstacle != said {
                        tell(obstacle.as_ref());
                    }
                    let was_idle = obstacle.is_none() && !readiness.may_take();
                    readiness.set(obstacle.is_none());
                    if was_idle {
                        self.ring_itself().await;
                    }
                    said = obstacle;
                }
                Err(error) => {
                    written = None;
                    let error = error.to_string();
                    if unseen.is_news(&error) {
                        tracing::warn!("this worker cannot report itself: {error}");
                    }
                }
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = told.changed() => {}
                () = tokio::time::sleep(EVERY) => {}
            }
        }
        if let Err(error) = workers::forget(store, &self.settings.id).await {
            tracing::debug!("this worker remains listed for some minutes: {error}");
        }
    }

    /// Whether another worker of this name has reported since this one wrote `written`.
    async fn has_namesake(&self, written: Option<Timestamp>) -> bool {
        let Some(written) = written else { return false };
        let found = workers::find(self.store.as_ref(), &self.settings.id).await;
        matches!(found, Ok(Some(worker)) if worker.last_seen != written)
    }

    /// Reports once. Returns when, and why the worker takes no runs, if so.
    async fn say_how_it_is(
        &self,
        platforms: &mut KnownPlatforms,
    ) -> Result<(Timestamp, Option<Obstacle>), StoreError> {
        let now = self.store.now().await?;
        let record = self.look_at_itself(now, platforms).await;
        let drain = workers::record_seen(self.store.as_ref(), &record).await?;
        let obstacle = match drain {
            Some(drain) => Some(Obstacle::Drained(drain)),
            None => record.idle_because.map(Obstacle::Idle),
        };
        metrics::worker(record.slots, record.runs.len(), obstacle.is_none(), record.free_disk);
        Ok((now, obstacle))
    }

    /// Rings for this worker's pool, because doorbells may have been missed while no runs could be taken.
    async fn ring_itself(&self) {
        let pool = self.settings.pool.clone();
        let jobs = self.queues.jobs.pool(&pool);
        if let Err(error) = jobs.publish(PoolHasWork { pool }, None).await {
            tracing::debug!("the workers of this pool are not notified and will poll: {error}");
        }
    }

    async fn look_at_itself(&self, now: Timestamp, known: &mut KnownPlatforms) -> WorkerRecord {
        let settings = &self.settings;
        let info = self.engine.info().await;
        let free_disk = self.free_disk(info.as_ref().ok());
        let (engine, platforms, mut idle_because) = match info {
            Ok(info) => {
                let platforms = known.of(self.engine.as_ref(), info.platform).await;
                (EngineHealth::Ready { name: info.name }, platforms, None)
            }
            Err(error) => {
                *known = KnownPlatforms::default();
                let why = error.to_string();
                (EngineHealth::Away { why: why.clone() }, Vec::new(), Some(why))
            }
        };
        if let Some(free) = free_disk.filter(|free| *free < settings.min_free) {
            idle_because.get_or_insert(format!(
                "{free} bytes are free where the engine keeps images, less than `worker.min_free` ({}): free some, or lower it",
                settings.min_free
            ));
        }
        WorkerRecord {
            id: settings.id.clone(),
            has_fixed_name: settings.has_fixed_name,
            pool: settings.pool.clone(),
            platforms,
            slots: settings.slots,
            runs: self.held.ids(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            engine,
            free_disk,
            idle_because,
            last_seen: now,
        }
    }

    /// The least free space of the disks for images and for sources.
    fn free_disk(&self, info: Option<&EngineInfo>) -> Option<u64> {
        let images = info.and_then(|info| info.data_root.as_deref()).and_then(free_bytes);
        let sources = free_bytes(&self.settings.work_folder);
        images.into_iter().chain(sources).min()
    }
}

/// Free bytes for this user at `path`, if the path exists on this machine.
fn free_bytes(path: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(path).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}
