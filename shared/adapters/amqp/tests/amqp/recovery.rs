//! The network fails, and works again.

use std::time::Duration;

use gantry_amqp::AmqpQueues;
use gantry_domain::id::RunId;
use gantry_seams::queue::{CancelAsked, Queue};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::proxy::{Network, Proxy};
use crate::rig::{Vhost, broker, until};

const SOON: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_connection_is_reopened_while_callers_wait() {
    let (vhost, proxy) = (Vhost::new(), Proxy::to(broker()).await);
    let shutdown = CancellationToken::new();
    let options = vhost.options_at(&[&proxy.address()]);
    let queues = AmqpQueues::connect(options, &shutdown).await.unwrap();
    let queue = queues.queue::<u32>("queue", 8);
    queue.publish(1, None).await.unwrap();
    assert_eq!(claim(&queue).await, 1);
    let control = queues.queues().control;
    let mut listener = control.listen().await.unwrap();

    let waiting = claim(&queue);
    tokio::pin!(waiting);
    assert!(futures_util::poll!(&mut waiting).is_pending());
    proxy.set(Network::Cut);
    until("publishing says why it is refused", SOON, async || {
        let published = queue.publish(2, None).await;
        published.is_err_and(|error| error.message.starts_with("no connection to RabbitMQ for "))
    })
    .await;

    proxy.set(Network::Works);
    until("there is a connection", SOON, async || queue.publish(2, None).await.is_ok()).await;
    assert_eq!(timeout(SOON, waiting).await.unwrap(), 2);

    let asked = CancelAsked { run: "ca1".parse::<RunId>().unwrap() };
    let received = async {
        let ring = async {
            loop {
                let _ = control.publish(asked.clone()).await;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::select! { message = listener.next() => message, () = ring => None }
    };
    assert_eq!(timeout(SOON, received).await.unwrap(), Some(asked.clone()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_connection_is_closed_after_two_heartbeats() {
    let (vhost, proxy) = (Vhost::new(), Proxy::to(broker()).await);
    let mut options = vhost.options_at(&[&proxy.address()]);
    options.heartbeat = Duration::from_secs(1);
    let queues = AmqpQueues::connect(options, &CancellationToken::new()).await.unwrap();
    let queue = queues.queue::<u32>("queue", 8);
    queue.publish(1, None).await.unwrap();

    proxy.set(Network::Silent);
    let unconfirmed = queue.publish(2, None).await.unwrap_err();
    assert!(!unconfirmed.message.is_empty());
    until("the silence is noticed", SOON, async || queues.state().is_err()).await;

    proxy.set(Network::Works);
    until("there is a connection", SOON, async || queue.publish(3, None).await.is_ok()).await;
    assert_eq!(claim(&queue).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_address_is_tried_when_one_fails() {
    let vhost = Vhost::new();
    let (one, two) = (Proxy::to(broker()).await, Proxy::to(broker()).await);
    one.set(Network::Cut);
    let options = vhost.options_at(&[&one.address(), &two.address()]);
    let queues = AmqpQueues::connect(options, &CancellationToken::new()).await.unwrap();
    let queue = queues.queue::<u32>("queue", 8);
    queue.publish(1, None).await.unwrap();

    one.set(Network::Works);
    two.set(Network::Cut);
    until("the other serves", SOON, async || queue.publish(2, None).await.is_ok()).await;
    let claimed = [claim(&queue).await, claim(&queue).await];
    assert_eq!(claimed, [1, 2]);
}

async fn claim(queue: &dyn Queue<u32>) -> u32 {
    loop {
        let claimed = timeout(SOON, queue.claim()).await.expect("a message").unwrap().unwrap();
        // If the connection was just lost, the message is delivered again.
        if let Ok(message) = claimed.done().await {
            return message;
        }
    }
}
