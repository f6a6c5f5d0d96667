//! Rings doorbells after the answer's commit, off the answer's path.
//!
//! A doorbell that is lost costs a few seconds: the sweeper rings it again. So the way out is bounded, and what does not
//! fit is dropped.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use gantry_domain::id::{EventId, RunId};
use gantry_seams::queue::{CancelAsked, EventAccepted, QueueError, Queues, RunsMoved};
use tokio::sync::mpsc;

/// More than a burst of hooks makes before the queue has taken them.
const WAITING_DOORBELLS: usize = 8192;

/// One doorbell.
#[derive(Debug)]
enum Doorbell {
    Event(EventId),
    Runs(RunId),
    Cancel(RunId),
}

/// Where handlers ring.
#[derive(Debug, Clone)]
pub(crate) struct Doorbells {
    out: mpsc::Sender<Doorbell>,
    health: Arc<QueueHealth>,
}

/// How the last doorbells were taken.
#[derive(Debug, Default)]
pub(crate) struct QueueHealth {
    failed: AtomicU64,
    last_error: Mutex<Option<String>>,
}

impl QueueHealth {
    /// How many were not taken.
    pub(crate) fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Why the last one was not taken; `None` if it was.
    pub(crate) fn last_error(&self) -> Option<String> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, rung: Result<(), QueueError>) {
        let mut last_error = self.last_error.lock().unwrap_or_else(PoisonError::into_inner);
        *last_error = match rung {
            Ok(()) => None,
            Err(error) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                if last_error.is_none() {
                    tracing::warn!("a doorbell was not taken, the sweeper rings it again: {error}");
                }
                Some(error.to_string())
            }
        };
    }
}

impl Doorbells {
    /// Doorbells that `Ringer` takes to the queues.
    pub(crate) fn new(queues: Queues) -> (Self, Ringer) {
        let (out, waiting) = mpsc::channel(WAITING_DOORBELLS);
        let health = Arc::new(QueueHealth::default());
        let ringer = Ringer { waiting, queues, health: Arc::clone(&health) };
        (Self { out, health }, ringer)
    }

    /// An event is undecided.
    pub(crate) fn event(&self, event: EventId) {
        self.ring(Doorbell::Event(event));
    }

    /// A run was created.
    pub(crate) fn run_created(&self, run: RunId) {
        self.ring(Doorbell::Runs(run));
    }

    /// A run was asked to cancel: its worker stops it, and its place may be free.
    pub(crate) fn cancel_asked(&self, run: RunId) {
        self.ring(Doorbell::Cancel(run));
        self.ring(Doorbell::Runs(run));
    }

    /// How the last doorbells were taken.
    pub(crate) fn health(&self) -> &QueueHealth {
        &self.health
    }

    fn ring(&self, doorbell: Doorbell) {
        if self.out.try_send(doorbell).is_err() {
            self.health.failed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Takes doorbells to the queues.
pub(crate) struct Ringer {
    waiting: mpsc::Receiver<Doorbell>,
    queues: Queues,
    health: Arc<QueueHealth>,
}

impl Ringer {
    /// Goes on until every [`Doorbells`] is gone and what waited is rung.
    pub(crate) async fn run(mut self) {
        while let Some(doorbell) = self.waiting.recv().await {
            let rung = match doorbell {
                Doorbell::Event(event) => self.queues.events.publish(EventAccepted { event }).await,
                Doorbell::Runs(run) => self.queues.runs.publish(RunsMoved { run }).await,
                Doorbell::Cancel(run) => self.queues.control.publish(CancelAsked { run }).await,
            };
            self.health.note(rung);
        }
    }
}
