//! What happens to messages.

use std::time::Duration;

use gantry_seams::queue::{EventAccepted, PoolHasWork, Queue};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::rig::{Vhost, until};

const SOON: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unroutable_message_is_an_error_and_the_next_one_declares_the_queue() {
    let vhost = Vhost::new();
    let queue = vhost.connect(&CancellationToken::new()).await.queue::<u32>("queue", 8);
    queue.publish(1, None).await.unwrap();
    vhost.delete_queue("queue");
    let error = queue.publish(2, None).await.unwrap_err();
    assert!(error.message.contains("nothing is bound to `queue`"), "{error}");
    queue.publish(3, None).await.unwrap();
    assert_eq!(claim(&queue).await, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_survives_the_deletion_of_a_queue() {
    let vhost = Vhost::new();
    let queue = vhost.connect(&CancellationToken::new()).await.queue::<u32>("queue", 8);
    queue.publish(1, None).await.unwrap();
    assert_eq!(claim(&queue).await, 1);
    let waiting = claim(&queue);
    tokio::pin!(waiting);
    assert!(futures_util::poll!(&mut waiting).is_pending());
    vhost.delete_queue("queue");
    // The consumer is notified and declares the queue again; before that, a publisher would get an error.
    let path = format!("/api/queues/{}/queue", vhost.name());
    let back = until("it is declared", SOON, async || vhost.api().ask("GET", &path, "").0 == 200);
    tokio::select! {
        () = back => {}
        claimed = &mut waiting => panic!("{claimed} was claimed and never published"),
    }
    // The queue may be declared but not bound yet.
    until("a message is taken", SOON, async || queue.publish(2, None).await.is_ok()).await;
    assert_eq!(waiting.await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_undecodable_message_is_skipped_and_a_bad_trace_ignored() {
    let vhost = Vhost::new();
    let events = vhost.connect(&CancellationToken::new()).await.queues().events;
    let unreadable = r#"{"properties":{},"routing_key":"gantry.events","payload":"{","payload_encoding":"string"}"#;
    let readable = r#"{"properties":{"headers":{"traceparent":"01-nonsense"}},"routing_key":"gantry.events",
        "payload":"{\"v\":1,\"message\":{\"event\":\"e-1\"},\"later\":true}","payload_encoding":"string"}"#;
    for message in [unreadable, unreadable, readable] {
        let path = format!("/api/exchanges/{}/gantry/publish", vhost.name());
        let (status, answer) = vhost.api().ask("POST", &path, message);
        assert!(status == 200 && answer.contains("true"), "{status} {answer}");
    }
    let claimed = timeout(SOON, events.claim()).await.unwrap().unwrap().unwrap();
    assert_eq!(claimed.trace(), None);
    assert_eq!(claimed.done().await.unwrap(), EventAccepted { event: "e-1".parse().unwrap() });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_claim_is_redelivered() {
    let vhost = Vhost::new();
    let queues = vhost.connect(&CancellationToken::new()).await;
    let (queue, elsewhere) = (queues.queue::<u32>("queue", 8), queues.queue::<u32>("queue", 8));
    for other in [&queue, &elsewhere] {
        queue.publish(1, None).await.unwrap();
        let claimed = timeout(SOON, queue.claim()).await.unwrap().unwrap().unwrap();
        drop(claimed);
        assert_eq!(claim(other).await, 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_consumer_holds_no_messages() {
    let vhost = Vhost::new();
    let shutdown = CancellationToken::new();
    let idle = vhost.connect(&shutdown).await.queue::<u32>("queue", 64);
    let eager = vhost.connect(&shutdown).await.queue::<u32>("queue", 64);
    idle.publish(0, None).await.unwrap();
    assert_eq!(claim(&idle).await, 0);
    for message in 1..=10 {
        idle.publish(message, None).await.unwrap();
    }
    let mut claimed = Vec::new();
    for _ in 1..=10 {
        claimed.push(claim(&eager).await);
    }
    claimed.sort_unstable();
    assert_eq!(claimed, (1..=10).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_has_one_queue_of_its_own() {
    let vhost = Vhost::new();
    let queues = vhost.connect(&CancellationToken::new()).await.queues();
    let (linux, arm) = ("linux-amd64".parse().unwrap(), "linux-arm64".parse().unwrap());
    queues.jobs.pool(&linux).publish(PoolHasWork { pool: linux.clone() }, None).await.unwrap();
    queues.jobs.pool(&arm).publish(PoolHasWork { pool: arm.clone() }, None).await.unwrap();
    for pool in [arm, linux] {
        let claim = timeout(SOON, queues.jobs.pool(&pool).claim()).await.unwrap();
        assert_eq!(claim.unwrap().unwrap().message().pool, pool);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_draining_role_can_still_publish() {
    let vhost = Vhost::new();
    let shutdown = CancellationToken::new();
    let queue = vhost.connect(&shutdown).await.queue::<u32>("queue", 8);
    shutdown.cancel();
    assert!(queue.claim().await.unwrap().is_none());
    queue.publish(1, None).await.unwrap();
    let another = vhost.connect(&CancellationToken::new()).await.queue::<u32>("queue", 8);
    assert_eq!(claim(&another).await, 1);
}

async fn claim(queue: &dyn Queue<u32>) -> u32 {
    let claimed = timeout(SOON, queue.claim()).await.expect("a message").unwrap().unwrap();
    claimed.done().await.unwrap()
}
