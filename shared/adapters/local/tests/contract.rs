//! The in-process queues fulfil the contract.

use std::sync::Arc;
use std::time::Duration;

use gantry_local::{LocalFanout, LocalQueue, queues};
use gantry_seams::contract;
use gantry_seams::queue::{PoolHasWork, Queue};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

#[tokio::test]
async fn a_local_queue_passes_the_contract() {
    contract::queue::all(async || {
        let shutdown = CancellationToken::new();
        let queue = LocalQueue::new(contract::queue::ROOM as usize, shutdown.clone());
        (queue, move || shutdown.cancel())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_message_is_left_while_a_caller_waits() {
    let shutdown = CancellationToken::new();
    let queue = Arc::new(LocalQueue::new(10_000, shutdown.clone()));
    let claimed = Arc::new(Semaphore::new(0));
    for _ in 0..4 {
        let (queue, claimed) = (Arc::clone(&queue), Arc::clone(&claimed));
        tokio::spawn(async move {
            while let Ok(Some(_)) = queue.claim().await {
                claimed.add_permits(1);
            }
        });
    }
    for round in 0..2_000 {
        for message in 0..3 {
            queue.publish(round * 3 + message, None).await.unwrap();
        }
        let all = tokio::time::timeout(Duration::from_secs(10), claimed.acquire_many(3));
        all.await.expect("all three are claimed").unwrap().forget();
    }
    shutdown.cancel();
}

#[tokio::test]
async fn a_local_fanout_passes_the_contract() {
    let shutdown = CancellationToken::new();
    let fanout = LocalFanout::new(8, shutdown.clone());
    contract::queue::all_of_fanout(&fanout, || shutdown.cancel()).await;
}

#[tokio::test]
async fn a_pool_has_one_queue_of_its_own() {
    let queues = queues(&CancellationToken::new());
    let (linux, arm) = ("linux-amd64".parse().unwrap(), "linux-arm64".parse().unwrap());
    queues.jobs.pool(&linux).publish(PoolHasWork { pool: linux.clone() }, None).await.unwrap();
    queues.jobs.pool(&arm).publish(PoolHasWork { pool: arm.clone() }, None).await.unwrap();
    for pool in [arm, linux] {
        let claim = queues.jobs.pool(&pool).claim().await.unwrap().unwrap();
        assert_eq!(claim.message().pool, pool);
    }
}
