//! The runs that a worker holds, and their slots.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gantry_domain::id::RunId;
use tokio::sync::Notify;

/// The runs that a worker holds, shared between its tasks.
#[derive(Default)]
pub struct HeldRuns {
    held: Mutex<HashMap<RunId, Held>>,
    /// Notified when a run was released that had earlier attempts, whose builds may have left something in the engine.
    pub(crate) untidy: Notify,
}

/// A held run.
#[derive(Clone)]
pub(crate) struct Held {
    /// Notified when the run's cancellation may have been requested.
    pub(crate) cancel_asked: Arc<Notify>,
    /// Less than the worker's number of slots, and different for each held run.
    pub(crate) slot: u32,
}

impl HeldRuns {
    /// The ids, in order.
    pub(crate) fn ids(&self) -> Vec<RunId> {
        let mut runs: Vec<RunId> = self.held().keys().copied().collect();
        runs.sort_unstable();
        runs
    }

    /// Adds a run that was taken.
    pub(crate) fn insert(&self, run: RunId) -> Held {
        let mut all = self.held();
        let is_free = |slot: &u32| all.values().all(|held| held.slot != *slot);
        let slot = (0..).find(is_free).unwrap_or(u32::MAX);
        let held = Held { cancel_asked: Arc::new(Notify::new()), slot };
        all.insert(run, held.clone());
        held
    }

    /// Removes a run that was released after this attempt.
    pub(crate) fn remove(&self, run: RunId, attempt: u32) {
        self.held().remove(&run);
        if attempt > 1 {
            self.untidy.notify_one();
        }
    }

    /// Notifies a run that its cancellation may have been requested. Does nothing if it is not held.
    pub(crate) fn notify_cancel(&self, run: RunId) {
        if let Some(held) = self.held().get(&run) {
            held.cancel_asked.notify_one();
        }
    }

    fn held(&self) -> MutexGuard<'_, HashMap<RunId, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
