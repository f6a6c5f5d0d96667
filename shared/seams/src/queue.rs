//! Doorbells between the roles.
//!
//! A message carries only an id; the facts are in the store. A lost message costs a few seconds, a duplicate costs
//! nothing.

use std::sync::Arc;

use async_trait::async_trait;
use gantry_domain::id::{EventId, PoolName, RunId};
use gantry_domain::trace::TraceParent;
use serde::{Deserialize, Serialize};

/// Doorbells of one kind. Each is delivered at least once, to one claimant, in no particular order.
#[async_trait]
pub trait Queue<M>: Send + Sync {
    /// Returns once the message is on the queue. A full queue drops its oldest message; the sweeper recovers from that.
    /// `trace` continues the publisher's trace.
    ///
    /// # Errors
    /// [`QueueError`].
    async fn publish(&self, message: M, trace: Option<TraceParent>) -> Result<(), QueueError>;

    /// Waits for the next message; `None` once the queue is closed for shutdown.
    ///
    /// # Errors
    /// [`QueueError`].
    async fn claim(&self) -> Result<Option<Claim<M>>, QueueError>;
}

/// Broadcasts messages of one kind to the current listeners; later ones miss them.
#[async_trait]
pub trait Fanout<M>: Send + Sync {
    /// Broadcasts a message.
    ///
    /// # Errors
    /// [`QueueError`].
    async fn publish(&self, message: M) -> Result<(), QueueError>;

    /// Subscribes to the messages from now on.
    ///
    /// # Errors
    /// [`QueueError`].
    async fn listen(&self) -> Result<Box<dyn Listener<M>>, QueueError>;
}

/// A subscription to a [`Fanout`].
#[async_trait]
pub trait Listener<M>: Send {
    /// Waits for the next message; `None` once the queue is closed for shutdown. A listener that is too slow misses
    /// messages.
    async fn next(&mut self) -> Option<M>;
}

/// A message that is redelivered unless it is acknowledged.
pub struct Claim<M> {
    message: M,
    trace: Option<TraceParent>,
    acknowledge: Box<dyn Acknowledge>,
}

/// How an adapter acknowledges.
#[async_trait]
pub trait Acknowledge: Send + Sync {
    /// Removes the message from the queue.
    async fn acknowledge(self: Box<Self>) -> Result<(), QueueError>;
}

impl<M> Claim<M> {
    /// A claim on `message`; for adapters.
    #[must_use]
    pub fn new(message: M, trace: Option<TraceParent>, acknowledge: Box<dyn Acknowledge>) -> Self {
        Self { message, trace, acknowledge }
    }

    /// The claimed message.
    #[must_use]
    pub fn message(&self) -> &M {
        &self.message
    }

    /// The trace that the message is part of.
    #[must_use]
    pub fn trace(&self) -> Option<&TraceParent> {
        self.trace.as_ref()
    }

    /// Acknowledges the message and returns it. Called right after claiming: the store has the state.
    ///
    /// # Errors
    /// [`QueueError`]: the message may be delivered again.
    pub async fn done(self) -> Result<M, QueueError> {
        self.acknowledge.acknowledge().await?;
        Ok(self.message)
    }
}

/// An operation of the queue failed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the queue does not answer: {message}")]
pub struct QueueError {
    /// Details from the adapter.
    pub message: String,
}

/// An event is to be decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields without a comment explain themselves")]
pub struct EventAccepted {
    pub event: EventId,
}

/// Runs may be admissible now, because one was created or ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunsMoved {
    /// The run that was created or ended.
    pub run: RunId,
}

/// A pool has ready runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields without a comment explain themselves")]
pub struct PoolHasWork {
    pub pool: PoolName,
}

/// Cancellation of a run was requested.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields without a comment explain themselves")]
pub struct CancelAsked {
    pub run: RunId,
}

/// The job queues, one per pool.
pub trait JobQueues: Send + Sync {
    /// The queue of `pool`. The same pool always has the same queue.
    fn pool(&self, pool: &PoolName) -> Arc<dyn Queue<PoolHasWork>>;
}

/// All queues of an installation.
#[derive(Clone)]
pub struct Queues {
    /// To the schedulers: events to decide.
    pub events: Arc<dyn Queue<EventAccepted>>,
    /// To the schedulers: runs to admit.
    pub runs: Arc<dyn Queue<RunsMoved>>,
    /// To one of a pool's workers: runs are ready.
    pub jobs: Arc<dyn JobQueues>,
    /// To all workers: a run is to be cancelled.
    pub control: Arc<dyn Fanout<CancelAsked>>,
}
