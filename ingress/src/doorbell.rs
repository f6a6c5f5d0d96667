//! Rings doorbells after the commit, in the background.
//!
//! The receiver of a doorbell reads all pending events or runs. So at most one doorbell of a kind is being sent at a
//! time, and the next one covers everything that arrives meanwhile. A lost doorbell costs a few seconds until the
//! sweeper rings again.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gantry_domain::id::EventId;
use gantry_domain::run::Run;
use gantry_domain::trace::TraceParent;
use gantry_seams::queue::{CancelAsked, EventAccepted, Queue, QueueError, Queues, RunsMoved};
use tokio::sync::{mpsc, watch};

/// A cancellation is for one worker, so none can be left out. One that does not fit is found when the worker renews its
/// lease.
const WAITING_CANCELS: usize = 1024;

/// The pause between two doorbells of a kind. It is about as long as a pass over the store, and limits a burst to a
/// hundred doorbells per second.
const PAUSE: Duration = Duration::from_millis(10);

/// The latest doorbell of its kind, with its trace.
type Latest<M> = Option<(M, Option<TraceParent>)>;

/// The sending side, for handlers.
#[derive(Debug)]
pub(crate) struct Doorbells {
    events: watch::Sender<Latest<EventAccepted>>,
    runs: watch::Sender<Latest<RunsMoved>>,
    cancels: mpsc::Sender<CancelAsked>,
    health: Arc<QueueHealth>,
}

/// How the latest doorbells were received by the queues.
#[derive(Debug, Default)]
pub(crate) struct QueueHealth {
    failed: AtomicU64,
    last_error: Mutex<Option<String>>,
}

impl QueueHealth {
    /// How many could not be sent.
    pub(crate) fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// The last error; `None` if the last one was sent.
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
                    tracing::warn!("a doorbell was not sent, the sweeper resends it: {error}");
                }
                Some(error.to_string())
            }
        };
    }
}

impl Doorbells {
    /// The [`Ringer`] sends the doorbells to the queues.
    pub(crate) fn new(queues: Queues) -> (Self, Ringer) {
        let (events, new_events) = watch::channel(None);
        let (runs, moved_runs) = watch::channel(None);
        let (cancels, asked) = mpsc::channel(WAITING_CANCELS);
        let health = Arc::new(QueueHealth::default());
        let ringer = Ringer {
            events: new_events,
            runs: moved_runs,
            cancels: asked,
            queues,
            health: Arc::clone(&health),
        };
        (Self { events, runs, cancels, health }, ringer)
    }

    pub(crate) fn event(&self, event: EventId, trace: Option<TraceParent>) {
        self.events.send_replace(Some((EventAccepted { event }, trace)));
    }

    pub(crate) fn run_created(&self, run: &Run) {
        self.run_moved(run);
    }

    /// Notifies the run's worker, and admission, since the run's place may be free.
    pub(crate) fn cancel_asked(&self, run: &Run) {
        if self.cancels.try_send(CancelAsked { run: run.id }).is_err() {
            self.health.failed.fetch_add(1, Ordering::Relaxed);
        }
        self.run_moved(run);
    }

    pub(crate) fn health(&self) -> &QueueHealth {
        &self.health
    }

    fn run_moved(&self, run: &Run) {
        self.runs.send_replace(Some((RunsMoved { run: run.id }, run.trace.clone())));
    }
}

/// Sends doorbells to the queues.
pub(crate) struct Ringer {
    events: watch::Receiver<Latest<EventAccepted>>,
    runs: watch::Receiver<Latest<RunsMoved>>,
    cancels: mpsc::Receiver<CancelAsked>,
    queues: Queues,
    health: Arc<QueueHealth>,
}

impl Ringer {
    /// Runs until the [`Doorbells`] are dropped and the remaining ones are sent.
    pub(crate) async fn run(self) {
        let Self { events, runs, mut cancels, queues, health } = self;
        let ring_cancels = async {
            while let Some(asked) = cancels.recv().await {
                health.note(queues.control.publish(asked).await);
            }
        };
        tokio::join!(
            ring_latest(events, queues.events.as_ref(), &health),
            ring_latest(runs, queues.runs.as_ref(), &health),
            ring_cancels,
        );
    }
}

/// Sends one at a time, and skips those that a newer one replaced meanwhile.
async fn ring_latest<M: Clone>(
    mut doorbell: watch::Receiver<Latest<M>>,
    queue: &dyn Queue<M>,
    health: &QueueHealth,
) {
    while doorbell.changed().await.is_ok() {
        let latest = doorbell.borrow_and_update().clone();
        let Some((message, trace)) = latest else { continue };
        health.note(queue.publish(message, trace).await);
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use gantry_seams::queue::Claim;
    use tokio::sync::Semaphore;

    use super::*;

    /// A queue that takes one message for each permit.
    struct Slow {
        permits: Semaphore,
        waiting: AtomicU64,
        taken: Mutex<Vec<u32>>,
    }

    #[async_trait]
    impl Queue<u32> for Slow {
        async fn publish(&self, message: u32, _: Option<TraceParent>) -> Result<(), QueueError> {
            self.waiting.fetch_add(1, Ordering::SeqCst);
            self.permits.acquire().await.unwrap().forget();
            self.taken.lock().unwrap().push(message);
            Ok(())
        }

        async fn claim(&self) -> Result<Option<Claim<u32>>, QueueError> {
            Ok(None)
        }
    }

    #[tokio::test]
    async fn doorbells_coalesce_and_the_last_one_is_rung() {
        let slow = Slow {
            permits: Semaphore::new(0),
            waiting: AtomicU64::new(0),
            taken: Mutex::default(),
        };
        let (sender, receiver) = watch::channel(None);
        let health = QueueHealth::default();
        sender.send_replace(Some((1, None)));
        let ring = async {
            while slow.waiting.load(Ordering::SeqCst) == 0 {
                tokio::task::yield_now().await;
            }
            for number in 2..=1000 {
                sender.send_replace(Some((number, None)));
            }
            slow.permits.add_permits(10);
            drop(sender);
        };
        tokio::join!(ring_latest(receiver, &slow, &health), ring);
        assert_eq!(*slow.taken.lock().unwrap(), [1, 1000]);
        assert_eq!((health.failed(), health.last_error()), (0, None));
    }
}
