//! Removes what dead attempts of this installation left in the engine, and limits the build cache.

use std::sync::Arc;
use std::time::Duration;

use gantry_domain::id::RunId;
use gantry_seams::runs;
use gantry_seams::store::SharedStore;
use tokio_util::sync::CancellationToken;

use crate::engine::{Engine, EngineError, Leftover, LeftoverKind};
use crate::held::HeldRuns;

/// Cleans the engine of one worker.
pub(crate) struct Housekeeper {
    pub(crate) store: SharedStore,
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) held: Arc<HeldRuns>,
    pub(crate) installation: String,
    /// The limit of the engine's build cache, in bytes.
    pub(crate) keep_cache: u64,
    pub(crate) interval: Duration,
}

impl Housekeeper {
    /// Cleans up at the start, at intervals, and after each run whose earlier attempts may have left something.
    /// Also while no runs may be taken, because cleaning up is what frees a full disk.
    pub(crate) async fn run(&self, stop: &CancellationToken) {
        loop {
            self.sweep_engine().await;
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.held.untidy.notified() => {}
                () = tokio::time::sleep(self.interval) => {}
            }
        }
    }

    async fn sweep_engine(&self) {
        let leftovers = match self.engine.leftovers(&self.installation).await {
            Ok(leftovers) => leftovers,
            // Already logged by the announcer.
            Err(EngineError::Unreachable { .. }) => return,
            Err(error) => {
                tracing::warn!("the engine is not swept: {error}");
                return;
            }
        };
        for leftover in leftovers {
            if self.may_be_alive(&leftover).await {
                continue;
            }
            match self.engine.remove(&leftover).await {
                Ok(()) => tracing::info!(
                    "removed {:?} {}, left by a dead attempt",
                    leftover.kind,
                    leftover.id
                ),
                Err(error) => tracing::warn!("{:?} {} stays: {error}", leftover.kind, leftover.id),
            }
        }
        if self.held.ids().is_empty()
            && let Err(error) = self.engine.prune_cache(self.keep_cache).await
        {
            tracing::warn!("the build cache was not pruned: {error}");
        }
    }

    /// Whether it may belong to a running attempt. What cannot be determined is left alone.
    async fn may_be_alive(&self, leftover: &Leftover) -> bool {
        match (leftover.kind, leftover.owner) {
            // The engine lists only processes that no build waits for.
            (LeftoverKind::BuildProcess, _) => false,
            (_, None) => true,
            (_, Some((run, attempt))) => self.is_leased(run, attempt).await,
        }
    }

    async fn is_leased(&self, run: RunId, attempt: u32) -> bool {
        match runs::find(self.store.as_ref(), run).await {
            Ok(Some(run)) => run.state.lease().is_some_and(|lease| lease.attempt == attempt),
            Ok(None) => false,
            Err(_) => true,
        }
    }
}
