//! What a [`Queue`] and a [`Fanout`] must do.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use gantry_domain::trace::TraceParent;

use super::soon;
use crate::queue::{Fanout, Queue, QueueError};

/// How many messages a queue under test must hold before it drops the oldest.
pub const ROOM: u32 = 8;

/// Runs every sentence about a queue that nobody else uses: `open` gives a new one with room for [`ROOM`] messages, and
/// what closes it.
pub async fn all<Q: Queue<u32>, C: FnOnce()>(open: impl AsyncFn() -> (Q, C)) {
    let (queue, _close) = open().await;
    a_message_is_claimed_once(&queue).await;
    each_message_goes_to_one_of_those_who_claim(&queue).await;
    a_claim_that_is_given_up_loses_no_message(&queue).await;

    let (queue, _close) = open().await;
    a_message_keeps_its_trace(&queue).await;

    let (queue, _close) = open().await;
    a_full_queue_drops_its_oldest(&queue).await;

    let (queue, close) = open().await;
    closing_wakes_those_who_claim(&queue, close).await;
}

pub async fn a_message_is_claimed_once(queue: &dyn Queue<u32>) {
    queue.publish(1, None).await.unwrap();
    assert_eq!(soon("the claim", claim(queue)).await, Some(1));
    // One that waits before there is a message gets it, too.
    let (claimed, published) = futures_util::join!(claim(queue), queue.publish(2, None));
    published.unwrap();
    assert_eq!(claimed, Some(2));
}

pub async fn a_message_keeps_its_trace(queue: &dyn Queue<u32>) {
    let trace: TraceParent =
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".parse().unwrap();
    queue.publish(1, Some(trace.clone())).await.unwrap();
    let claimed = soon("the claim", queue.claim()).await.unwrap().unwrap();
    assert_eq!(claimed.trace(), Some(&trace));
    claimed.done().await.unwrap();
}

pub async fn each_message_goes_to_one_of_those_who_claim(queue: &dyn Queue<u32>) {
    let claims = join_all((0..ROOM).map(|_| claim(queue)));
    let publish = async {
        for message in 0..ROOM {
            queue.publish(message, None).await.unwrap();
        }
    };
    let (claimed, ()) = soon("all claims", async { futures_util::join!(claims, publish) }).await;
    let claimed: BTreeSet<_> = claimed.into_iter().flatten().collect();
    assert_eq!(claimed, (0..ROOM).collect());
}

pub async fn a_claim_that_is_given_up_loses_no_message(queue: &dyn Queue<u32>) {
    for message in 0..3 {
        let mut impatient = queue.claim();
        assert!(futures_util::poll!(&mut impatient).is_pending());
        queue.publish(message, None).await.unwrap();
        drop(impatient);
        assert_eq!(soon("the next claim", claim(queue)).await, Some(message));
    }
}

pub async fn a_full_queue_drops_its_oldest(queue: &dyn Queue<u32>) {
    for message in 0..ROOM + 3 {
        soon("publishing to a full queue", queue.publish(message, None)).await.unwrap();
    }
    let mut left = BTreeSet::new();
    for _ in 0..ROOM {
        left.extend(soon("the claim", claim(queue)).await);
    }
    assert_eq!(left, (3..ROOM + 3).collect());
}

pub async fn closing_wakes_those_who_claim(queue: &dyn Queue<u32>, close: impl FnOnce()) {
    let claims = join_all((0..3).map(|_| claim(queue)));
    let (claimed, ()) =
        soon("the end of all claims", async { futures_util::join!(claims, async { close() }) })
            .await;
    assert_eq!(claimed, [None, None, None]);
    assert_eq!(soon("a claim of a closed queue", claim(queue)).await, None);
}

/// Runs every sentence about a fan-out: `close` closes it.
pub async fn all_of_fanout(fanout: &dyn Fanout<u32>, close: impl FnOnce()) {
    every_listener_receives_each_message(fanout).await;
    a_listener_receives_nothing_from_before_it_listened(fanout).await;
    publishing_to_nobody_is_no_error(fanout).await;
    closing_ends_listening(fanout, close).await;
}

pub async fn every_listener_receives_each_message(fanout: &dyn Fanout<u32>) {
    let mut one = fanout.listen().await.unwrap();
    let mut another = fanout.listen().await.unwrap();
    for message in [1, 2] {
        fanout.publish(message).await.unwrap();
    }
    for message in [1, 2] {
        assert_eq!(soon("the first listener", one.next()).await, Some(message));
        assert_eq!(soon("the second listener", another.next()).await, Some(message));
    }
}

pub async fn a_listener_receives_nothing_from_before_it_listened(fanout: &dyn Fanout<u32>) {
    fanout.publish(1).await.unwrap();
    let mut late = fanout.listen().await.unwrap();
    fanout.publish(2).await.unwrap();
    assert_eq!(soon("the late one", late.next()).await, Some(2));
}

pub async fn publishing_to_nobody_is_no_error(fanout: &dyn Fanout<u32>) {
    drop(fanout.listen().await.unwrap());
    fanout.publish(1).await.unwrap();
}

pub async fn closing_ends_listening(fanout: &dyn Fanout<u32>, close: impl FnOnce()) {
    let mut listener = fanout.listen().await.unwrap();
    let (received, ()) = soon("the end of listening", async {
        futures_util::join!(listener.next(), async { close() })
    })
    .await;
    assert_eq!(received, None);
    let mut late = fanout.listen().await.unwrap();
    assert_eq!(soon("the end of listening late", late.next()).await, None);
}

async fn claim(queue: &dyn Queue<u32>) -> Option<u32> {
    let claimed: Result<_, QueueError> = async {
        match queue.claim().await? {
            Some(claim) => claim.done().await.map(Some),
            None => Ok(None),
        }
    }
    .await;
    claimed.unwrap()
}
