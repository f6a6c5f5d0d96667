//! Messages of one queue, for those who wait for one.
//!
//! One loop a queue consumes while somebody waits, and a moment longer so that a busy claimer does not begin anew with
//! each message. The broker hands out one message at a time. One that was delivered and that nobody took goes to whoever
//! waits next, or back to the broker when the consumer ends.

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

/// How long a consumer stays after the last who waited.
const LINGER: Duration = Duration::from_millis(100);
/// A broker that has just come back may leave a question unanswered for good: it is asked again.
const ANSWER: Duration = Duration::from_secs(5);
/// After so many the queue is made anew, see [`Clerk::make_anew`].
const UNANSWERED: u32 = 3;
/// RabbitMQ itself waits 5 s for what does not answer before it deletes it by force.
const DELETION: Duration = Duration::from_secs(15);
/// A broker may forget a consumer without a word, as when its queue was deleted and made anew: it is begun anew as well.
const RENEW: Duration = Duration::from_secs(30);
/// For ending a consumer in order. After it the channel is dropped, which has the same end.
const FAREWELL: Duration = Duration::from_secs(2);
/// More would be held here while others wait for them elsewhere.
const PREFETCH: u16 = 1;

/// Where those who want a message of one queue ask.
#[derive(Debug)]
pub(crate) struct Deliveries {
    errands: mpsc::UnboundedSender<Errand>,
}

/// What the loop is told.
#[derive(Debug)]
enum Errand {
    /// Somebody wants a message.
    Wait(oneshot::Sender<Held>),
    /// Somebody who waited has gone.
    GoneAway,
    /// A message was taken and not acknowledged.
    Back(Box<Delivery>),
}

impl Deliveries {
    /// Starts the loop, which ends with `shutdown` or when nobody can ask any more.
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

    /// The next message; `None` once the loop has ended.
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
        // Without a loop nobody needs to know.
        let _ = self.0.send(Errand::GoneAway);
    }
}

/// A message that is ours until it is acknowledged. Dropped before, it goes to somebody else.
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
            // Without a loop the connection is on its way out, and the broker takes the message back itself.
            let _ = self.back.send(Errand::Back(Box::new(delivery)));
        }
    }
}

/// Who waits and what there is for them.
struct Counter {
    waiting: VecDeque<oneshot::Sender<Held>>,
    spare: VecDeque<Delivery>,
    told: mpsc::UnboundedReceiver<Errand>,
    back: mpsc::WeakUnboundedSender<Errand>,
}

impl Counter {
    /// Waits for something to do; `None` once nobody can ask any more.
    async fn next_errand(&mut self) -> Option<()> {
        match self.told.recv().await? {
            Errand::Wait(somebody) => self.waiting.push_back(somebody),
            Errand::GoneAway => self.waiting.retain(|somebody| !somebody.is_closed()),
            Errand::Back(delivery) => self.spare.push_back(*delivery),
        }
        Some(())
    }

    fn hand_out(&mut self) {
        // What came over a connection that is gone comes again over the next.
        self.spare.retain(|delivery| delivery.acker.usable());
        while !self.spare.is_empty() {
            let Some(back) = self.back.upgrade() else { return };
            let Some(somebody) = self.waiting.pop_front() else { return };
            let delivery = self.spare.pop_front();
            // Whoever has gone leaves the message to be dropped, and so it comes back.
            let _ = somebody.send(Held { delivery, back });
        }
    }

    async fn return_spare(&mut self) {
        for delivery in self.spare.drain(..) {
            // If it fails the channel is gone, and the message back already.
            let requeue = BasicNackOptions { requeue: true, ..Default::default() };
            let _ = delivery.nack(requeue).await;
        }
    }
}

/// The loop.
struct Clerk {
    destination: Destination,
    link: Arc<Link>,
    counter: Counter,
    channel: Option<(Arc<Session>, Channel)>,
    unanswered: u32,
}

/// Why a consumer ended.
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

    /// Waits until somebody waits and there is a connection, and begins to consume; `None` once nobody can ask any more.
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

    /// A broker that is killed within seconds of a queue's making knows the queue afterwards, but has lost what
    /// answers for it, and does not get it back by itself. Nothing but doorbells is lost with the queue.
    async fn make_anew(&self, session: &Arc<Session>) {
        warn!("`{}` does not answer: it is deleted and made anew", self.destination.name());
        let deleting = async {
            let channel = session.connection.create_channel().await?;
            channel
                .queue_delete(self.destination.name().into(), QueueDeleteOptions::default())
                .await
        };
        // It is declared whether or not that was done, and consumed if it was.
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

    /// The connection is gone, or the queue was deleted. Without the channel nothing is held on it any more.
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

    /// The broker's answer to the cancel comes after all that it has delivered.
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
