//! A worker says how it is, and takes nothing while it cannot build.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gantry_domain::worker::{EngineHealth, Worker as WorkerRecord};
use gantry_seams::queue::PoolHasWork;
use gantry_seams::workers;
use tokio_util::sync::CancellationToken;

use crate::Worker;
use crate::engine::EngineInfo;

/// How often a worker says how it is.
const EVERY: Duration = Duration::from_secs(5);

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

impl Worker {
    pub(crate) async fn announce(&self, readiness: &Readiness, stop: &CancellationToken) {
        let mut said_away = false;
        loop {
            let record = self.look_at_itself().await;
            if let Some(why) = record.idle_because.as_deref().filter(|_| !said_away) {
                tracing::warn!("no runs are taken: {why}");
            }
            said_away = record.idle_because.is_some();
            let may_take = record.idle_because.is_none();
            let was_idle = may_take && !readiness.may_take();
            readiness.set(may_take);
            if was_idle {
                self.ring_itself().await;
            }
            if let Err(error) = workers::record_seen(self.store.as_ref(), &record).await {
                tracing::warn!("this worker is not seen: {error}");
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(EVERY) => {}
            }
        }
        if let Err(error) = workers::forget(self.store.as_ref(), &self.settings.id).await {
            tracing::debug!("this worker is listed for some minutes still: {error}");
        }
    }

    /// Work that came while nothing could be taken is looked at now.
    async fn ring_itself(&self) {
        let pool = self.settings.pool.clone();
        let jobs = self.queues.jobs.pool(&pool);
        if let Err(error) = jobs.publish(PoolHasWork { pool }, None).await {
            tracing::debug!("the next look finds what is ready: {error}");
        }
    }

    async fn look_at_itself(&self) -> WorkerRecord {
        let settings = &self.settings;
        let info = self.engine.info().await;
        let free_disk = self.free_disk(info.as_ref().ok());
        let (engine, platforms, mut idle_because) = match info {
            Ok(info) => (EngineHealth::Ready { name: info.name }, vec![info.platform], None),
            Err(error) => {
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
            pool: settings.pool.clone(),
            platforms,
            slots: settings.slots,
            runs: self.hand.runs(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            engine,
            free_disk,
            idle_because,
            last_seen: self.store.now().await.unwrap_or_default(),
        }
    }

    /// The least that is free where the engine keeps images and where sources are unpacked.
    fn free_disk(&self, info: Option<&EngineInfo>) -> Option<u64> {
        let images = info.and_then(|info| info.data_root.as_deref()).and_then(free_bytes);
        let sources = free_bytes(&self.settings.work_folder);
        images.into_iter().chain(sources).min()
    }
}

/// Free bytes for this user at `path`, if it is a path of this machine.
fn free_bytes(path: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(path).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}
