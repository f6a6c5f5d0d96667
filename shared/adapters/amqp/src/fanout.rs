//! Messages to all listeners.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use gantry_seams::queue::{Fanout, Listener, QueueError};
use lapin::Consumer;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::{FieldTable, ShortString};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::backoff::Backoff;
use crate::dial::plain;
use crate::error::queue_error;
use crate::link::{Link, Session};
use crate::message;
use crate::publisher::Publisher;
use crate::topology::{Destination, declare_inbox};

/// The time limit for the broker's answer, after which it is asked again.
const ANSWER: Duration = Duration::from_secs(5);
/// How many messages may be on their way to a listener.
const PREFETCH: u16 = 64;

/// Sends each message to all current listeners.
#[derive(Debug)]
pub struct AmqpFanout<M> {
    publisher: Publisher,
    destination: Destination,
    link: Arc<Link>,
    shutdown: CancellationToken,
    messages: PhantomData<fn(M)>,
}

impl<M> AmqpFanout<M> {
    pub(crate) fn new(
        destination: Destination,
        publishing: Arc<Link>,
        claiming: Arc<Link>,
        shutdown: CancellationToken,
    ) -> Self {
        let publisher = Publisher::new(publishing, destination.clone());
        Self { publisher, destination, link: claiming, shutdown, messages: PhantomData }
    }
}

#[async_trait]
impl<M: Serialize + DeserializeOwned + Send + Sync + 'static> Fanout<M> for AmqpFanout<M> {
    async fn publish(&self, message: M) -> Result<(), QueueError> {
        self.publisher.publish(&message::encode(&message, None)?).await
    }

    /// Never fails: without a connection no messages arrive, just as when a connection is lost.
    async fn listen(&self) -> Result<Box<dyn Listener<M>>, QueueError> {
        let mut listener = AmqpListener {
            destination: self.destination.clone(),
            link: Arc::clone(&self.link),
            inbox: None,
            backoff: Backoff::new(),
            shutdown: self.shutdown.clone(),
            messages: PhantomData,
        };
        if self.link.state().is_ok() {
            listener.open().await;
        }
        Ok(Box::new(listener))
    }
}

struct AmqpListener<M> {
    destination: Destination,
    link: Arc<Link>,
    inbox: Option<Consumer>,
    backoff: Backoff,
    shutdown: CancellationToken,
    messages: PhantomData<fn() -> M>,
}

impl<M: DeserializeOwned> AmqpListener<M> {
    /// Subscribes once there is a connection.
    async fn open(&mut self) {
        match self.inbox().await {
            Ok(inbox) => self.inbox = inbox,
            Err(error) => {
                warn!("cannot listen to `{}`: {}", self.destination.name(), error.message);
                self.backoff.pause().await;
            }
        }
    }

    async fn inbox(&self) -> Result<Option<Consumer>, QueueError> {
        let Some(session) = self.link.session().await else { return Ok(None) };
        match timeout(ANSWER, self.ear_over(&session)).await {
            Ok(inbox) => inbox.map(Some),
            Err(_) => Err(queue_error("RabbitMQ did not answer")),
        }
    }

    async fn ear_over(&self, session: &Arc<Session>) -> Result<Consumer, QueueError> {
        session.declare(&self.destination).await.map_err(queue_error)?;
        let consuming = async {
            let channel = session.connection.create_channel().await?;
            channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
            let queue = declare_inbox(&channel, self.destination.name()).await?;
            let options = BasicConsumeOptions { exclusive: true, ..Default::default() };
            channel
                .basic_consume(queue, ShortString::default(), options, FieldTable::default())
                .await
        };
        consuming.await.map_err(|error: lapin::Error| queue_error(plain(&error)))
    }

    /// The next message that decodes.
    async fn next_message(&mut self) -> M {
        loop {
            let Some(inbox) = &mut self.inbox else {
                self.open().await;
                continue;
            };
            let Some(Ok(delivery)) = inbox.next().await else {
                self.inbox = None;
                self.backoff.pause().await;
                continue;
            };
            self.backoff.reset();
            // If this fails, the message is only delivered a second time.
            let _ = delivery.ack(BasicAckOptions::default()).await;
            match message::decode(&delivery.data) {
                Ok(message) => return message,
                Err(error) => {
                    warn!("a message of `{}` was skipped: {error}", self.destination.name())
                }
            }
        }
    }
}

#[async_trait]
impl<M: DeserializeOwned + Send + 'static> Listener<M> for AmqpListener<M> {
    async fn next(&mut self) -> Option<M> {
        let shutdown = self.shutdown.clone();
        tokio::select! {
            biased;
            () = shutdown.cancelled() => None,
            message = self.next_message() => Some(message),
        }
    }
}
