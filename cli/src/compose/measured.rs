//! Records metrics of the store and the queues, so that adapters need not.

use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use gantry_domain::id::PoolName;
use gantry_domain::timestamp::Timestamp;
use gantry_domain::trace::TraceParent;
use gantry_ops::metrics::{self, Doorbell, QueueOperation, StoreFailure, StoreOperation};
use gantry_seams::queue::{
    Acknowledge, CancelAsked, Claim, Fanout, JobQueues, Listener, PoolHasWork, Queue, QueueError,
    Queues,
};
use gantry_seams::store::{
    Batch, CommitError, Entry, From, Index, Key, Record, Room, SharedStore, Store, StoreError,
    Watch,
};

/// A store with metrics.
pub(super) fn store(store: SharedStore) -> SharedStore {
    Arc::new(MeasuredStore(store))
}

/// Queues with metrics.
pub(super) fn queues(queues: Queues) -> Queues {
    Queues {
        events: Arc::new(MeasuredQueue { queue: queues.events, doorbell: Doorbell::Events }),
        runs: Arc::new(MeasuredQueue { queue: queues.runs, doorbell: Doorbell::Runs }),
        jobs: Arc::new(MeasuredJobs(queues.jobs)),
        control: Arc::new(MeasuredControl(queues.control)),
    }
}

struct MeasuredStore(SharedStore);

#[async_trait]
impl Store for MeasuredStore {
    async fn load(&self, keys: &[Key]) -> Result<Vec<Option<Record>>, StoreError> {
        asked(StoreOperation::Load, self.0.load(keys), failure).await
    }

    async fn range(
        &self,
        index: &Index,
        from: From,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        asked(StoreOperation::Range, self.0.range(index, from, limit), failure).await
    }

    async fn commit(&self, batch: Batch) -> Result<(), CommitError> {
        asked(StoreOperation::Commit, self.0.commit(batch), |error| match error {
            CommitError::Conflict { .. } => StoreFailure::Conflict,
            CommitError::Store(error) => failure(error),
        })
        .await
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        asked(StoreOperation::Now, self.0.now(), failure).await
    }

    async fn room(&self) -> Result<Room, StoreError> {
        asked(StoreOperation::Room, self.0.room(), failure).await
    }

    fn watch(&self, key: &Key) -> Watch {
        self.0.watch(key)
    }
}

async fn asked<T, E>(
    operation: StoreOperation,
    asking: impl Future<Output = Result<T, E>>,
    failure: impl FnOnce(&E) -> StoreFailure,
) -> Result<T, E> {
    let began = Instant::now();
    let answer = asking.await;
    metrics::store(operation, began.elapsed(), answer.as_ref().err().map(failure));
    answer
}

fn failure(error: &StoreError) -> StoreFailure {
    match error {
        StoreError::Unavailable { .. } => StoreFailure::Unavailable,
        StoreError::Full { .. } => StoreFailure::Full,
        StoreError::Undecodable { .. } => StoreFailure::Undecodable,
    }
}

struct MeasuredQueue<M> {
    queue: Arc<dyn Queue<M>>,
    doorbell: Doorbell,
}

#[async_trait]
impl<M: Clone + Send + Sync + 'static> Queue<M> for MeasuredQueue<M> {
    async fn publish(&self, message: M, trace: Option<TraceParent>) -> Result<(), QueueError> {
        rung(self.doorbell, QueueOperation::Publish, self.queue.publish(message, trace)).await
    }

    async fn claim(&self) -> Result<Option<Claim<M>>, QueueError> {
        let claimed = self.queue.claim().await;
        let Ok(Some(claim)) = claimed else {
            if claimed.is_err() {
                metrics::claimed(self.doorbell, true);
            }
            return claimed;
        };
        metrics::claimed(self.doorbell, false);
        let (message, trace) = (claim.message().clone(), claim.trace().cloned());
        let acknowledge = MeasuredAcknowledge { claim, doorbell: self.doorbell };
        Ok(Some(Claim::new(message, trace, Box::new(acknowledge))))
    }
}

struct MeasuredAcknowledge<M> {
    claim: Claim<M>,
    doorbell: Doorbell,
}

#[async_trait]
impl<M: Send + Sync> Acknowledge for MeasuredAcknowledge<M> {
    async fn acknowledge(self: Box<Self>) -> Result<(), QueueError> {
        let Self { claim, doorbell } = *self;
        let acknowledging = async { claim.done().await.map(drop) };
        rung(doorbell, QueueOperation::Acknowledge, acknowledging).await
    }
}

struct MeasuredJobs(Arc<dyn JobQueues>);

impl JobQueues for MeasuredJobs {
    fn pool(&self, pool: &PoolName) -> Arc<dyn Queue<PoolHasWork>> {
        Arc::new(MeasuredQueue { queue: self.0.pool(pool), doorbell: Doorbell::Jobs })
    }
}

struct MeasuredControl(Arc<dyn Fanout<CancelAsked>>);

#[async_trait]
impl Fanout<CancelAsked> for MeasuredControl {
    async fn publish(&self, message: CancelAsked) -> Result<(), QueueError> {
        rung(Doorbell::Control, QueueOperation::Publish, self.0.publish(message)).await
    }

    async fn listen(&self) -> Result<Box<dyn Listener<CancelAsked>>, QueueError> {
        self.0.listen().await
    }
}

async fn rung<T>(
    doorbell: Doorbell,
    operation: QueueOperation,
    ringing: impl Future<Output = Result<T, QueueError>>,
) -> Result<T, QueueError> {
    let began = Instant::now();
    let answer = ringing.await;
    metrics::queue(doorbell, operation, began.elapsed(), answer.is_err());
    answer
}
