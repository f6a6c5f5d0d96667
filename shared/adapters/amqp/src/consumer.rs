//! Distributes the messages of one queue to the callers that wait for one.
//!
//! One task per queue consumes while somebody waits, and a moment longer, so that a busy claimer does not start a new
//! consumer for each message. The broker delivers one message at a time. A message that nobody took goes to the next
//! caller, or back to the broker when the consumer ends.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use gantry_seams::queue::{Acknowledge, QueueError};
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions,
    QueueDeleteOptions,
};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Consumer};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::backoff::Backoff;
use crate::dial::plain;
use crate::error::queue_error;
use crate::link::{Link, Session};
use crate::topology::Destination;

/// How long a consumer stays after the last waiting caller.
const LINGER: Duration = Duration::from_millis(100);
/// A broker that has just restarted may never answer a request, so it is sent again after this time.
const ANSWER: Duration = Duration::from_secs(5);
/// After this many unanswered requests the queue is deleted and declared again, see [`Clerk::make_anew`].
const UNANSWERED: u32 = 3;
/// RabbitMQ itself waits 5 s for an unresponsive queue before it deletes it by force.
const DELETION: Duration = Duration::from_secs(15);
/// A broker may silently forget a consumer, for example when its queue was deleted and declared again. So consumers are
/// renewed.
const RENEW: Duration = Duration::from_secs(30);
/// The time limit for cancelling a consumer. After that the channel is dropped, which has the same effect.
const FAREWELL: Duration = Duration::from_secs(2);
/// More messages would be held here while other processes wait for them.
const PREFETCH: u16 = 1;

/// Gives callers the messages of one queue.
#[derive(Debug)]
pub(crate) struct Deliveries {
    errands: mpsc::UnboundedSender<Errand>,
}

/// Requests to the task.
#[derive(Debug)]
enum Errand {
    /// A caller wants a message.
    Wait(oneshot::Sender<Held>),
    /// A waiting caller is gone.
    GoneAway,
    /// A message was taken and not acknowledged.
    Back(Box<Delivery>),
}

impl Deliveries {
    /// Starts the task, which ends with `shutdown` or when all callers are gone.
    pub(crate) fn of(
        destination: Destination,
        link: Arc<Link>,
        shutdown: CancellationToken,
    ) -> Self {
        let (errands, told) = mpsc::unbounded_channel();
        let counter = Counter {
            waiting: VecDeque::new(),
            spare: VecDeque::new(),
            told,
            back: errands.downgrade(),
        };
        let clerk = Clerk { destination, link, counter, channel: None, unanswered: 0 };
        tokio::spawn(async move { clerk.serve(&shutdown).await });
        Self { errands }
    }

    /// The next message; `None` once the task has ended.
    pub(crate) async fn next(&self) -> Option<Held> {
        let (give, given) = oneshot::channel();
        self.errands.send(Errand::Wait(give)).ok()?;
        let _told = TellsWhenGone(&self.errands);
        given.await.ok()
    }
}

struct TellsWhenGone<'e>(&'e mpsc::UnboundedSender<Errand>);

impl Drop for TellsWhenGone<'_> {
    fn drop(&mut self) {
        // If the task has ended nobody needs to know.
        let _ = self.0.send(Errand::GoneAway);
    }
}

/// A message that is held until it is acknowledged. If dropped earlier it goes to another caller.
#[derive(Debug)]
pub(crate) struct Held {
    delivery: Option<Delivery>,
    back: mpsc::UnboundedSender<Errand>,
}

impl Held {
    pub(crate) fn delivery(&self) -> Option<&Delivery> {
        self.delivery.as_ref()
    }
}

#[async_trait]
impl Acknowledge for Held {
    async fn acknowledge(mut self: Box<Self>) -> Result<(), QueueError> {
        let Some(delivery) = self.delivery.take() else { return Ok(()) };
        match delivery.ack(BasicAckOptions::default()).await {
            Ok(true) => Ok(()),
            Ok(false) => {
                Err(queue_error("the connection was lost before the message was acknowledged"))
            }
            Err(error) => Err(queue_error(plain(&error))),
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(delivery) = self.delivery.take() {
            // If the task has ended, the connection is closing and the broker takes the message back.
            let _ = self.back.send(Errand::Back(Box::new(delivery)));
        }
    }
}

/// The waiting callers, and the messages for them.
struct Counter {
    waiting: VecDeque<oneshot::Sender<Held>>,
    spare: VecDeque<Delivery>,
    told: mpsc::UnboundedReceiver<Errand>,
    back: mpsc::WeakUnboundedSender<Errand>,
}

impl Counter {
    /// Waits for a request; `None` once all callers are gone.
    async fn next_errand(&mut self) -> Option<()> {
        match self.told.recv().await? {
            Errand::Wait(somebody) => self.waiting.push_back(somebody),
            Errand::GoneAway => self.waiting.retain(|somebody| !somebody.is_closed()),
            Errand::Back(delivery) => self.spare.push_back(*delivery),
        }
        Some(())
    }

    fn hand_out(&mut self) {
        // A message of a lost connection is redelivered on the next one.
        self.spare.retain(|delivery| delivery.acker.usable());
        while !self.spare.is_empty() {
            let Some(back) = self.back.upgrade() else { return };
            let Some(somebody) = self.waiting.pop_front() else { return };
            let delivery = self.spare.pop_front();
            // If the caller is gone the message is dropped, and so comes back.
            let _ = somebody.send(Held { delivery, back });
        }
    }

    async fn return_spare(&mut self) {
        for delivery in self.spare.drain(..) {
            // If this fails the channel is gone, and the message already requeued.
            let requeue = BasicNackOptions { requeue: true, ..Default::default() };
            let _ = delivery.nack(requeue).await;
        }
    }
}

/// The task.
struct Clerk {
    destination: Destination,
    link: Arc<Link>,
    counter: Counter,
    channel: Option<(Arc<Session>, Channel)>,
    unanswered: u32,
}

enum Ended {
    NobodyWaits,
    Old,
    Lost,
    ForGood,
}

impl Clerk {
    async fn serve(mut self, shutdown: &CancellationToken) {
        let mut backoff = Backoff::new();
        loop {
            let opened = tokio::select! {
                () = shutdown.cancelled() => return,
                opened = self.open() => opened,
            };
            match opened {
                Ok(Some(consumer)) => match self.consume(consumer, shutdown).await {
                    Ended::NobodyWaits | Ended::Old => backoff.reset(),
                    Ended::Lost => backoff.pause().await,
                    Ended::ForGood => return,
                },
                Ok(None) => return,
                Err(error) => {
                    warn!("cannot claim from `{}`: {}", self.destination.name(), error.message);
                    self.channel = None;
                    backoff.pause().await;
                }
            }
        }
    }

    /// Waits until a caller waits and there is a connection, then starts to consume; `None` once all callers are gone.
    async fn open(&mut self) -> Result<Option<Consumer>, QueueError> {
        let session = loop {
            self.counter.hand_out();
            self.counter.return_spare().await;
            let somebody_waits = !self.counter.waiting.is_empty();
            tokio::select! {
                errand = self.counter.next_errand() => if errand.is_none() { return Ok(None) },
                session = self.link.session(), if somebody_waits => match session {
                    Some(session) => break session,
                    None => return Ok(None),
                },
            }
        };
        if let Ok(consuming) = timeout(ANSWER, self.consume_over(&session)).await {
            self.unanswered = 0;
            return consuming.map(Some);
        }
        self.unanswered += 1;
        if self.unanswered == UNANSWERED {
            self.unanswered = 0;
            self.make_anew(&session).await;
        }
        Err(queue_error("RabbitMQ did not answer"))
    }

    /// A broker that is killed within seconds of a queue's creation still lists the queue after a restart, but has lost
    /// the process behind it, and does not recover by itself. Only doorbells are lost with the queue.
    async fn make_anew(&self, session: &Arc<Session>) {
        warn!("`{}` does not answer: it is deleted and created again", self.destination.name());
        let deleting = async {
            let channel = session.connection.create_channel().await?;
            channel
                .queue_delete(self.destination.name().into(), QueueDeleteOptions::default())
                .await
        };
        // It is declared in any case, and consumed if that succeeds.
        let _ = timeout(DELETION, deleting).await;
        session.forget(&self.destination).await;
    }

    async fn consume_over(&mut self, session: &Arc<Session>) -> Result<Consumer, QueueError> {
        session.declare(&self.destination).await.map_err(queue_error)?;
        self.begin(session).await.map_err(|error| queue_error(plain(&error)))
    }

    async fn begin(&mut self, session: &Arc<Session>) -> lapin::Result<Consumer> {
        let kept = self
            .channel
            .as_ref()
            .filter(|(of, channel)| Arc::ptr_eq(of, session) && channel.status().connected());
        let channel = match kept {
            Some((_, channel)) => channel.clone(),
            None => {
                let channel = session.connection.create_channel().await?;
                channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
                self.channel = Some((Arc::clone(session), channel.clone()));
                channel
            }
        };
        let (name, tag) = (self.destination.name().into(), ShortString::default());
        channel
            .basic_consume(name, tag, BasicConsumeOptions::default(), FieldTable::default())
            .await
    }

    async fn consume(&mut self, mut consumer: Consumer, shutdown: &CancellationToken) -> Ended {
        let mut leave_at = None;
        let renew_at = Instant::now() + RENEW;
        let ended = loop {
            self.counter.hand_out();
            leave_at = match self.counter.waiting.is_empty() {
                true => leave_at.or_else(|| Some(Instant::now() + LINGER)),
                false => None,
            };
            let linger = sleep_until(leave_at.unwrap_or_else(Instant::now));
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break Ended::ForGood,
                errand = self.counter.next_errand() => if errand.is_none() { break Ended::ForGood },
                delivery = consumer.next() => match delivery {
                    Some(Ok(delivery)) => self.counter.spare.push_back(delivery),
                    Some(Err(_)) | None => return self.lost().await,
                },
                () = sleep_until(renew_at) => break Ended::Old,
                () = linger, if leave_at.is_some() => break Ended::NobodyWaits,
            }
        };
        if timeout(FAREWELL, self.end(consumer)).await.is_err() {
            self.channel = None;
        }
        if matches!(ended, Ended::Old) {
            self.forget().await;
        }
        ended
    }

    /// The connection is gone, or the queue was deleted. Without the channel no messages are held.
    async fn lost(&mut self) -> Ended {
        self.counter.spare.clear();
        self.forget().await;
        self.channel = None;
        Ended::Lost
    }

    async fn forget(&self) {
        if let Some((session, _)) = &self.channel {
            session.forget(&self.destination).await;
        }
    }

    /// The broker's answer to the cancellation comes after all deliveries.
    async fn end(&mut self, mut consumer: Consumer) {
        if let Some((_, channel)) = &self.channel {
            let cancelled = channel.basic_cancel(consumer.tag(), BasicCancelOptions::default());
            if cancelled.await.is_ok() {
                while let Some(Ok(delivery)) = consumer.next().await {
                    self.counter.spare.push_back(delivery);
                }
            }
        }
        self.counter.return_spare().await;
    }
}
