//! Doorbells between the roles.
//!
//! A message carries an id; what happened is in the store. A lost message costs a few seconds, a duplicate nothing.

use std::sync::Arc;

use async_trait::async_trait;
use gantry_domain::id::{EventId, PoolName, RunId};
use gantry_domain::trace::TraceParent;
use serde::{Deserialize, Serialize};

/// Doorbells of one kind. Each is delivered at least once, to one claimant, in no particular order.
#[async_trait]
pub trait Queue<M>: Send + Sync {
    /// Returns once the message is on the queue. A full queue drops its oldest message, which the sweeper makes up for.
    /// `trace` continues the trace of the publisher.
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
    /// The message is done with.
    async fn acknowledge(self: Box<Self>) -> Result<(), QueueError>;
}

impl<M> Claim<M> {
    /// A claim, made by an adapter.
    #[must_use]
    pub fn new(message: M, trace: Option<TraceParent>, acknowledge: Box<dyn Acknowledge>) -> Self {
        Self { message, trace, acknowledge }
    }

    /// The message.
    #[must_use]
    pub fn message(&self) -> &M {
        &self.message
    }

    /// The trace that the message is part of.
    #[must_use]
    pub fn trace(&self) -> Option<&TraceParent> {
        self.trace.as_ref()
    }

    /// Ends the claim and gives the message. Called at once after claiming: the record says the rest.
    ///
    /// # Errors
    /// [`QueueError`]: the message may come again.
    pub async fn done(self) -> Result<M, QueueError> {
        self.acknowledge.acknowledge().await?;
        Ok(self.message)
    }
}

/// The queue could not be asked.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the queue does not answer: {message}")]
pub struct QueueError {
    /// What the adapter knows.
    pub message: String,
}

/// An event is undecided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields without a comment explain themselves")]
pub struct EventAccepted {
    pub event: EventId,
}

/// Something in the store may let a run be admitted: one was created, one ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunsMoved {
    /// The run that moved.
    pub run: RunId,
}

/// A pool has ready runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields without a comment explain themselves")]
pub struct PoolHasWork {
    pub pool: PoolName,
}

/// A run was asked to cancel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields without a comment explain themselves")]
pub struct CancelAsked {
    pub run: RunId,
}

/// The job queues, one a pool.
pub trait JobQueues: Send + Sync {
    /// The queue of `pool`; the same one for the same name.
    fn pool(&self, pool: &PoolName) -> Arc<dyn Queue<PoolHasWork>>;
}

/// Every doorbell of an installation.
#[derive(Clone)]
pub struct Queues {
    /// To the schedulers: events to decide.
    pub events: Arc<dyn Queue<EventAccepted>>,
    /// To the schedulers: runs to admit.
    pub runs: Arc<dyn Queue<RunsMoved>>,
    /// To the workers.
    pub jobs: Arc<dyn JobQueues>,
    /// To every worker: cancel.
    pub control: Arc<dyn Fanout<CancelAsked>>,
}
