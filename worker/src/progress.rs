//! Where the steps of an attempt stand, and when that is written.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gantry_domain::id::RunId;
use gantry_domain::step::{Step, StepEnd, Steps};
use gantry_domain::timestamp::Timestamp;
use gantry_seams::steps;
use gantry_seams::store::SharedStore;
use tokio::sync::Notify;

/// The record is written at most this often while steps run. The end of the attempt writes it again.
const WRITTEN_EVERY: Duration = Duration::from_secs(1);

/// The steps of one attempt.
pub(crate) struct Progress {
    store: SharedStore,
    run: RunId,
    attempt: u32,
    /// When the attempt was leased, by the store's clock.
    since: Timestamp,
    steps: Mutex<Steps>,
    changed: Notify,
}

impl Progress {
    /// No steps yet.
    pub(crate) fn new(store: SharedStore, run: RunId, attempt: u32, since: Timestamp) -> Self {
        Self { store, run, attempt, since, steps: Mutex::default(), changed: Notify::new() }
    }

    /// The steps as they stand.
    pub(crate) fn steps(&self) -> Steps {
        self.lock().clone()
    }

    /// Sets the steps, none of which has begun.
    pub(crate) fn plan(&self, steps: Steps) {
        *self.lock() = steps;
    }

    /// Begins a step, or counts one more execution of it.
    pub(crate) async fn begin(&self, place: usize) {
        let now = self.now().await;
        self.lock().begin(place, now);
        self.changed.notify_one();
    }

    /// Takes over a step that another run has executed.
    pub(crate) fn adopt(&self, place: usize, other: &Step) {
        self.lock().adopt(place, other);
    }

    pub(crate) async fn end(&self, place: usize, end: StepEnd) {
        let now = self.now().await;
        self.lock().end(place, end, now);
        self.changed.notify_one();
    }

    /// Ends all running steps in this way.
    pub(crate) async fn end_all(&self, end: &StepEnd) {
        if self.lock().is_any_running() {
            let now = self.now().await;
            self.lock().end_all(end, now);
        }
    }

    /// Writes the steps whenever they have changed. Never returns. Errors are ignored: the end of the attempt writes
    /// them again.
    pub(crate) async fn keep_written(&self) -> std::convert::Infallible {
        loop {
            self.changed.notified().await;
            let steps = self.steps();
            let written = steps::record(self.store.as_ref(), self.run, self.attempt, &steps).await;
            if let Err(error) = written {
                tracing::debug!(run.id = %self.run, "the steps are written later: {error}");
            }
            tokio::time::sleep(WRITTEN_EVERY).await;
        }
    }

    /// The store's time; while the store is unavailable, the latest time that is known.
    pub(crate) async fn now(&self) -> Timestamp {
        match self.store.now().await {
            Ok(now) => now,
            Err(_) => self.lock().latest().unwrap_or(self.since),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Steps> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
