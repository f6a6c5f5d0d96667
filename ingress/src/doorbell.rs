//! Rings doorbells after the answer's commit, off the answer's path.
//!
//! A doorbell that is lost costs a few seconds: the sweeper rings it again. So the way out is bounded, and what does not
//! fit is dropped.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::{StreamExt as _, stream};
use gantry_domain::id::{EventId, RunId};
use gantry_domain::run::Run;
use gantry_domain::trace::TraceParent;
use gantry_seams::queue::{CancelAsked, EventAccepted, QueueError, Queues, RunsMoved};
use tokio::sync::mpsc;

/// More than a burst of hooks makes before the queue has taken them.
const WAITING_DOORBELLS: usize = 8192;

/// How many wait for the queue's word at once: a broker confirms many in the time of one.
const AT_ONCE: usize = 256;

/// One doorbell.
#[derive(Debug)]
enum Doorbell {
    Event(EventId, Option<TraceParent>),
    Runs(RunId, Option<TraceParent>),
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
    pub(crate) fn event(&self, event: EventId, trace: Option<TraceParent>) {
        self.ring(Doorbell::Event(event, trace));
    }

    /// A run was created.
    pub(crate) fn run_created(&self, run: &Run) {
        self.ring(Doorbell::Runs(run.id, run.trace.clone()));
    }

    /// A run was asked to cancel: its worker stops it, and its place may be free.
    pub(crate) fn cancel_asked(&self, run: &Run) {
        self.ring(Doorbell::Cancel(run.id));
        self.ring(Doorbell::Runs(run.id, run.trace.clone()));
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

async fn ring(queues: &Queues, doorbell: Doorbell) -> Result<(), QueueError> {
    match doorbell {
        Doorbell::Event(event, trace) => {
            queues.events.publish(EventAccepted { event }, trace).await
        }
        Doorbell::Runs(run, trace) => queues.runs.publish(RunsMoved { run }, trace).await,
        Doorbell::Cancel(run) => queues.control.publish(CancelAsked { run }).await,
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
    pub(crate) async fn run(self) {
        let Self { waiting, queues, health } = self;
        let waiting = stream::unfold(waiting, async |mut waiting| {
            let doorbell = waiting.recv().await?;
            Some((doorbell, waiting))
        });
        let (queues, health) = (&queues, &health);
        waiting
            .for_each_concurrent(AT_ONCE, async |doorbell| {
                health.note(ring(queues, doorbell).await)
            })
            .await;
    }
}
