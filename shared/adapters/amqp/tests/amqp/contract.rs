//! The contract of every queue.

use std::cell::Cell;

use gantry_seams::contract;
use tokio_util::sync::CancellationToken;

use crate::rig::Vhost;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_amqp_queue_passes_the_contract() {
    let vhost = Vhost::new();
    let opened = Cell::new(0);
    contract::queue::all(async || {
        opened.set(opened.get() + 1);
        let shutdown = CancellationToken::new();
        let queues = vhost.connect(&shutdown).await;
        let queue = queues.queue(&format!("queue-{}", opened.get()), contract::queue::ROOM);
        (queue, move || shutdown.cancel())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_amqp_fanout_passes_the_contract() {
    let vhost = Vhost::new();
    let shutdown = CancellationToken::new();
    let fanout = vhost.connect(&shutdown).await.fanout("bell");
    contract::queue::all_of_fanout(&fanout, || shutdown.cancel()).await;
}
