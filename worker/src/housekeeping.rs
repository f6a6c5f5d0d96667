//! Keeps the engine clean: what dead attempts of this installation left, and no more build cache than is wanted.

use std::sync::Arc;
use std::time::Duration;

use gantry_domain::id::RunId;
use gantry_seams::runs;
use gantry_seams::store::SharedStore;
use tokio_util::sync::CancellationToken;

use crate::engine::{Engine, EngineError, Leftover, LeftoverKind};
use crate::held::HeldRuns;

/// Sweeps the engine of one worker.
pub(crate) struct Housekeeper {
    pub(crate) store: SharedStore,
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) held: Arc<HeldRuns>,
    pub(crate) installation: String,
    /// How much build cache the engine keeps, in bytes.
    pub(crate) keep_cache: u64,
    pub(crate) interval: Duration,
}

impl Housekeeper {
    /// Sweeps at the start, now and then, and when a run ended that an earlier attempt may have left something of: also
    /// while no run may be taken, since sweeping is what frees a full disk.
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
            // Said already, by whoever asks whether runs may be taken.
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
            tracing::warn!("the build cache is not bounded now: {error}");
        }
    }

    /// Whether a living attempt may own it. What cannot be told is left alone.
    async fn may_be_alive(&self, leftover: &Leftover) -> bool {
        match (leftover.kind, leftover.owner) {
            // The engine counts only those as left that no build of its own has any more.
            (LeftoverKind::BuildProcess, _) => false,
            (LeftoverKind::Container | LeftoverKind::Image, None) => true,
            (LeftoverKind::Container | LeftoverKind::Image, Some((run, attempt))) => {
                self.is_leased(run, attempt).await
            }
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
