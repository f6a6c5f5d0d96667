//! Rings doorbells after the answer's commit, off the answer's path.
//!
//! Whoever receives one looks at all events, or runs, that there are. So one doorbell of a kind is on its way at a
//! time, and the next one stands for all that came meanwhile. One that is lost costs a few seconds: the sweeper rings it
//! again.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gantry_domain::id::EventId;
use gantry_domain::run::Run;
use gantry_domain::trace::TraceParent;
use gantry_seams::queue::{CancelAsked, EventAccepted, Queue, QueueError, Queues, RunsMoved};
use tokio::sync::{mpsc, watch};

/// A cancel is for one worker, and no other stands for it; what does not fit is found with the next renewal of its lease.
const WAITING_CANCELS: usize = 1024;

/// Between two doorbells of a kind: as much as a look at the store takes, and in a burst the broker gets a hundred a
/// second instead of thousands.
const PAUSE: Duration = Duration::from_millis(10);

/// The last of its kind that was to be rung, with its trace.
type Latest<M> = Option<(M, Option<TraceParent>)>;

/// Where handlers ring.
#[derive(Debug)]
pub(crate) struct Doorbells {
    events: watch::Sender<Latest<EventAccepted>>,
    runs: watch::Sender<Latest<RunsMoved>>,
    cancels: mpsc::Sender<CancelAsked>,
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

    /// An event is undecided.
    pub(crate) fn event(&self, event: EventId, trace: Option<TraceParent>) {
        self.events.send_replace(Some((EventAccepted { event }, trace)));
    }

    /// A run was created.
    pub(crate) fn run_created(&self, run: &Run) {
        self.run_moved(run);
    }

    /// A run was asked to cancel: its worker stops it, and its place may be free.
    pub(crate) fn cancel_asked(&self, run: &Run) {
        if self.cancels.try_send(CancelAsked { run: run.id }).is_err() {
            self.health.failed.fetch_add(1, Ordering::Relaxed);
        }
        self.run_moved(run);
    }

    /// How the last doorbells were taken.
    pub(crate) fn health(&self) -> &QueueHealth {
        &self.health
    }

    fn run_moved(&self, run: &Run) {
        self.runs.send_replace(Some((RunsMoved { run: run.id }, run.trace.clone())));
    }
}

/// Takes doorbells to the queues.
pub(crate) struct Ringer {
    events: watch::Receiver<Latest<EventAccepted>>,
    runs: watch::Receiver<Latest<RunsMoved>>,
    cancels: mpsc::Receiver<CancelAsked>,
    queues: Queues,
    health: Arc<QueueHealth>,
}

impl Ringer {
    /// Goes on until the [`Doorbells`] are gone and what waited is rung.
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

/// Rings one at a time, and leaves out what is not the latest any more when its turn comes.
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

    /// A queue that takes a message for each permit.
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
    async fn what_comes_while_one_is_on_its_way_is_one_doorbell_and_the_last_is_rung() {
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
