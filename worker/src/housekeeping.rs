//! Keeps the engine clean: what dead attempts of this installation left, and no more build cache than is wanted.

use gantry_domain::id::RunId;
use gantry_seams::runs;
use tokio_util::sync::CancellationToken;

use crate::Worker;
use crate::engine::{EngineError, Leftover, LeftoverKind};

impl Worker {
    /// Sweeps at the start, now and then, and when a run ended that an earlier attempt may have left something of: also
    /// while no run may be taken, since sweeping is what frees a full disk.
    pub(crate) async fn keep_house(&self, stop: &CancellationToken) {
        loop {
            self.sweep_engine().await;
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.hand.untidy.notified() => {}
                () = tokio::time::sleep(self.settings.housekeeping) => {}
            }
        }
    }

    async fn sweep_engine(&self) {
        let leftovers = match self.engine.leftovers(&self.settings.installation).await {
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
        if self.hand.runs().is_empty()
            && let Err(error) = self.engine.prune_cache(self.settings.keep_cache).await
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
