//! Publishes to one destination. Messages are pipelined, and each is confirmed by the broker.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use gantry_seams::queue::QueueError;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{Channel, Confirmation, PublisherConfirm};

use crate::dial::plain;
use crate::error::queue_error;
use crate::link::{Link, Session};
use crate::message::Outgoing;
use crate::topology::Destination;

/// The time after which a message counts as not published. It may still arrive.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(crate) struct Publisher {
    link: Arc<Link>,
    destination: Destination,
    line: tokio::sync::Mutex<Option<Arc<Line>>>,
}

/// A channel in confirm mode.
#[derive(Debug)]
struct Line {
    session: Arc<Session>,
    channel: Channel,
    order: Mutex<()>,
    spoiled: AtomicBool,
}

impl Publisher {
    pub(crate) fn new(link: Arc<Link>, destination: Destination) -> Self {
        Self { link, destination, line: tokio::sync::Mutex::default() }
    }

    /// Returns once the broker has the message on disk. Fails at once if it is known that the broker will not accept
    /// it.
    pub(crate) async fn publish(&self, message: &Outgoing) -> Result<(), QueueError> {
        let session = self.link.publishable()?;
        tokio::select! {
            biased;
            published = self.publish_over(&session, message) => published,
            trouble = self.link.until_unpublishable(&session) => Err(trouble),
            () = tokio::time::sleep(PATIENCE) => {
                Err(queue_error(format!("RabbitMQ did not confirm a message to `{}` within {PATIENCE:?}", self.destination.name())))
            }
        }
    }

    async fn publish_over(
        &self,
        session: &Arc<Session>,
        message: &Outgoing,
    ) -> Result<(), QueueError> {
        let line = self.line(session).await?;
        let confirmation = line.publish(&self.destination, message).await.map_err(failed)?;
        match confirmation {
            Confirmation::Ack(None) => Ok(()),
            Confirmation::Ack(Some(_)) | Confirmation::Nack(Some(_)) => {
                session.forget(&self.destination).await;
                line.spoil();
                let name = self.destination.name();
                Err(queue_error(format!(
                    "nothing is bound to `{name}` any more: it is declared again with the next message"
                )))
            }
            Confirmation::Nack(None) | Confirmation::NotRequested => Err(queue_error(format!(
                "RabbitMQ could not keep a message to `{}`",
                self.destination.name()
            ))),
        }
    }

    async fn line(&self, session: &Arc<Session>) -> Result<Arc<Line>, QueueError> {
        let mut kept = self.line.lock().await;
        if let Some(line) = kept.as_ref().filter(|line| line.serves(session)) {
            return Ok(Arc::clone(line));
        }
        session.declare(&self.destination).await.map_err(queue_error)?;
        let line = Arc::new(Line::open(session).await.map_err(failed)?);
        *kept = Some(Arc::clone(&line));
        Ok(line)
    }
}

impl Line {
    async fn open(session: &Arc<Session>) -> lapin::Result<Self> {
        let channel = session.connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(Self {
            session: Arc::clone(session),
            channel,
            order: Mutex::default(),
            spoiled: AtomicBool::new(false),
        })
    }

    fn serves(&self, session: &Arc<Session>) -> bool {
        Arc::ptr_eq(&self.session, session)
            && self.channel.status().connected()
            && !self.spoiled.load(Ordering::Relaxed)
    }

    fn spoil(&self) {
        self.spoiled.store(true, Ordering::Relaxed);
    }

    async fn publish(
        &self,
        destination: &Destination,
        message: &Outgoing,
    ) -> lapin::Result<Confirmation> {
        let mut given_up = GivenUp { line: self, settled: false };
        let confirmed = self.send(destination, message).await?.await;
        given_up.settled = true;
        confirmed
    }

    /// Lapin numbers a message and queues its frames in two steps of the first poll. If another message got in between,
    /// each would receive the other's confirm.
    async fn send(
        &self,
        destination: &Destination,
        message: &Outgoing,
    ) -> lapin::Result<PublisherConfirm> {
        let (exchange, key) = destination.route();
        let options =
            BasicPublishOptions { mandatory: destination.is_mandatory(), ..Default::default() };
        let properties = message.properties.clone();
        let mut sending =
            Box::pin(self.channel.basic_publish(exchange, key, options, &message.body, properties));
        let first = poll_fn(|context| {
            let _order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
            Poll::Ready(sending.as_mut().poll(context))
        });
        match first.await {
            Poll::Ready(sent) => sent,
            Poll::Pending => sending.await,
        }
    }
}

/// Marks a channel with a message whose confirm is no longer awaited. Lapin keeps such a confirm as long as the
/// channel lives, so the channel is replaced. Callers that still wait keep it alive until they are done.
struct GivenUp<'l> {
    line: &'l Line,
    settled: bool,
}

impl Drop for GivenUp<'_> {
    fn drop(&mut self) {
        if !self.settled {
            self.line.spoil();
        }
    }
}

fn failed(error: lapin::Error) -> QueueError {
    queue_error(plain(&error))
}
