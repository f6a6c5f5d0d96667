//! Doorbells within one process.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use gantry_domain::id::PoolName;
use gantry_domain::trace::TraceParent;
use gantry_seams::queue::{
    Acknowledge, Claim, Fanout, JobQueues, Listener, PoolHasWork, Queue, QueueError, Queues,
};
use tokio::sync::Notify;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio_util::sync::CancellationToken;

/// The most messages of a queue. Beyond that the oldest are dropped, and the sweeper rings again.
const EVENTS: usize = 4_096;
const RUNS: usize = 4_096;
const CANCELS: usize = 1_024;
/// All doorbells of a pool are equivalent, so one for each slot that might be free is plenty.
const JOBS: usize = 256;

/// The doorbells of an installation in one process. The queues close when `shutdown` is cancelled.
#[must_use]
pub fn queues(shutdown: &CancellationToken) -> Queues {
    Queues {
        events: Arc::new(LocalQueue::new(EVENTS, shutdown.clone())),
        runs: Arc::new(LocalQueue::new(RUNS, shutdown.clone())),
        jobs: Arc::new(LocalJobs::new(shutdown.clone())),
        control: Arc::new(LocalFanout::new(CANCELS, shutdown.clone())),
    }
}

/// A queue of limited length.
#[derive(Debug)]
pub struct LocalQueue<M> {
    messages: Mutex<VecDeque<(M, Option<TraceParent>)>>,
    room: usize,
    rung: Notify,
    shutdown: CancellationToken,
}

impl<M> LocalQueue<M> {
    /// An empty queue with room for at least one message.
    #[must_use]
    pub fn new(room: usize, shutdown: CancellationToken) -> Self {
        Self { messages: Mutex::default(), room: room.max(1), rung: Notify::new(), shutdown }
    }

    fn take(&self) -> Option<(M, Option<TraceParent>)> {
        let mut messages = self.messages();
        let message = messages.pop_front();
        // `Notify` keeps only one notification while nobody waits, so a receiver that leaves messages notifies the
        // next.
        if !messages.is_empty() {
            self.rung.notify_one();
        }
        message
    }

    fn messages(&self) -> MutexGuard<'_, VecDeque<(M, Option<TraceParent>)>> {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl<M: Send + 'static> Queue<M> for LocalQueue<M> {
    async fn publish(&self, message: M, trace: Option<TraceParent>) -> Result<(), QueueError> {
        let mut messages = self.messages();
        if messages.len() == self.room {
            messages.pop_front();
        }
        messages.push_back((message, trace));
        drop(messages);
        self.rung.notify_one();
        Ok(())
    }

    async fn claim(&self) -> Result<Option<Claim<M>>, QueueError> {
        while !self.shutdown.is_cancelled() {
            if let Some((message, trace)) = self.take() {
                return Ok(Some(Claim::new(message, trace, Box::new(Gone))));
            }
            tokio::select! {
                () = self.rung.notified() => {}
                () = self.shutdown.cancelled() => {}
            }
        }
        Ok(None)
    }
}

/// A claimed message has already left the queue.
struct Gone;

#[async_trait]
impl Acknowledge for Gone {
    async fn acknowledge(self: Box<Self>) -> Result<(), QueueError> {
        Ok(())
    }
}

/// Sends each message to all current listeners.
#[derive(Debug)]
pub struct LocalFanout<M> {
    sender: broadcast::Sender<M>,
    shutdown: CancellationToken,
}

impl<M: Clone> LocalFanout<M> {
    /// A fanout whose listeners may be `room` messages behind before they miss one.
    #[must_use]
    pub fn new(room: usize, shutdown: CancellationToken) -> Self {
        Self { sender: broadcast::Sender::new(room.max(1)), shutdown }
    }
}

#[async_trait]
impl<M: Clone + Send + 'static> Fanout<M> for LocalFanout<M> {
    async fn publish(&self, message: M) -> Result<(), QueueError> {
        // An error means that there are no listeners, which is fine.
        let _ = self.sender.send(message);
        Ok(())
    }

    async fn listen(&self) -> Result<Box<dyn Listener<M>>, QueueError> {
        let receiver = self.sender.subscribe();
        Ok(Box::new(LocalListener { receiver, shutdown: self.shutdown.clone() }))
    }
}

struct LocalListener<M> {
    receiver: broadcast::Receiver<M>,
    shutdown: CancellationToken,
}

#[async_trait]
impl<M: Clone + Send + 'static> Listener<M> for LocalListener<M> {
    async fn next(&mut self) -> Option<M> {
        loop {
            let received = tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return None,
                received = self.receiver.recv() => received,
            };
            match received {
                Ok(message) => return Some(message),
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    }
}

/// The queues of pools, each created on first use.
#[derive(Debug)]
pub struct LocalJobs {
    by_pool: Mutex<HashMap<PoolName, Arc<LocalQueue<PoolHasWork>>>>,
    shutdown: CancellationToken,
}

impl LocalJobs {
    /// Queues that close when `shutdown` is cancelled.
    #[must_use]
    pub fn new(shutdown: CancellationToken) -> Self {
        Self { by_pool: Mutex::default(), shutdown }
    }
}

impl JobQueues for LocalJobs {
    fn pool(&self, pool: &PoolName) -> Arc<dyn Queue<PoolHasWork>> {
        let mut by_pool = self.by_pool.lock().unwrap_or_else(PoisonError::into_inner);
        let queue = by_pool
            .entry(pool.clone())
            .or_insert_with(|| Arc::new(LocalQueue::new(JOBS, self.shutdown.clone())));
        Arc::clone(queue) as Arc<dyn Queue<PoolHasWork>>
    }
}
