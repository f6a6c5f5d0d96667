//! The doorbells of an installation, over RabbitMQ.

use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use async_trait::async_trait;
use gantry_domain::id::PoolName;
use gantry_domain::trace::TraceParent;
use gantry_seams::queue::{Acknowledge, Claim, JobQueues, PoolHasWork, Queue, QueueError, Queues};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::consumer::Deliveries;
use crate::dial::Dialer;
use crate::error::ConnectError;
use crate::fanout::AmqpFanout;
use crate::link::Link;
use crate::message;
use crate::options::AmqpOptions;
use crate::publisher::Publisher;
use crate::topology::{self, Destination};

/// The connections to a broker, kept open until this and all its queues are dropped.
#[derive(Debug, Clone)]
pub struct AmqpQueues {
    publishing: Arc<Link>,
    claiming: Arc<Link>,
    shutdown: CancellationToken,
}

impl AmqpQueues {
    /// Tries each address once, and declares what every role needs. When `shutdown` is cancelled, claims and listeners
    /// end; publishing continues, because a draining role still rings doorbells.
    ///
    /// # Errors
    /// [`ConnectError`]; [`ConnectError::is_temporary`] tells whether a retry may succeed.
    pub async fn connect(
        options: AmqpOptions,
        shutdown: &CancellationToken,
    ) -> Result<Self, ConnectError> {
        let dialer = Arc::new(Dialer::new(options)?);
        let publishing = Arc::new(Link::make(Arc::clone(&dialer)).await?);
        let claiming = Arc::new(Link::make(Arc::clone(&dialer)).await?);
        if let Some(session) = publishing.session().await {
            for destination in [topology::events(), topology::runs(), topology::control()] {
                let declared = session.declare(&destination).await;
                declared.map_err(|error| error.at_start(dialer.options()))?;
            }
        }
        Ok(Self { publishing, claiming, shutdown: shutdown.clone() })
    }

    /// The doorbells of the installation.
    #[must_use]
    pub fn queues(&self) -> Queues {
        Queues {
            events: Arc::new(self.of(topology::events())),
            runs: Arc::new(self.of(topology::runs())),
            jobs: Arc::new(AmqpJobs { queues: self.clone(), by_pool: Mutex::default() }),
            control: Arc::new(self.fanout(topology::CONTROL)),
        }
    }

    /// A queue of any messages, with room for `room` of them.
    #[must_use]
    pub fn queue<M>(&self, name: &str, room: u32) -> AmqpQueue<M> {
        self.of(Destination::Queue { name: name.to_owned(), room })
    }

    /// A fanout of any messages.
    #[must_use]
    pub fn fanout<M>(&self, name: &str) -> AmqpFanout<M> {
        AmqpFanout::new(
            Destination::Fanout { name: name.to_owned() },
            Arc::clone(&self.publishing),
            Arc::clone(&self.claiming),
            self.shutdown.clone(),
        )
    }

    /// Whether messages can be published and claimed now.
    ///
    /// # Errors
    /// What is wrong, and for how long.
    pub fn state(&self) -> Result<(), String> {
        self.publishing.state().and_then(|()| self.claiming.state())
    }

    fn of<M>(&self, destination: Destination) -> AmqpQueue<M> {
        AmqpQueue {
            publisher: Publisher::new(Arc::clone(&self.publishing), destination.clone()),
            deliveries: OnceLock::new(),
            destination,
            claiming: Arc::clone(&self.claiming),
            shutdown: self.shutdown.clone(),
            messages: PhantomData,
        }
    }
}

/// One queue of the broker.
#[derive(Debug)]
pub struct AmqpQueue<M> {
    publisher: Publisher,
    /// Created lazily: most processes only publish or only claim.
    deliveries: OnceLock<Deliveries>,
    destination: Destination,
    claiming: Arc<Link>,
    shutdown: CancellationToken,
    messages: PhantomData<fn(M) -> M>,
}

impl<M: DeserializeOwned> AmqpQueue<M> {
    /// The next message that decodes. One that does not is acknowledged, because it would be redelivered for ever.
    async fn next(&self) -> Result<Option<Claim<M>>, QueueError> {
        let deliveries = self.deliveries.get_or_init(|| {
            Deliveries::of(
                self.destination.clone(),
                Arc::clone(&self.claiming),
                self.shutdown.clone(),
            )
        });
        while let Some(held) = deliveries.next().await {
            let Some(delivery) = held.delivery() else { continue };
            match message::decode(&delivery.data) {
                Ok(message) => {
                    let trace = message::trace(delivery);
                    return Ok(Some(Claim::new(message, trace, Box::new(held))));
                }
                Err(error) => {
                    warn!("a message of `{}` was skipped: {error}", self.destination.name());
                    Box::new(held).acknowledge().await?;
                }
            }
        }
        Ok(None)
    }
}

#[async_trait]
impl<M: Serialize + DeserializeOwned + Send + Sync + 'static> Queue<M> for AmqpQueue<M> {
    async fn publish(&self, message: M, trace: Option<TraceParent>) -> Result<(), QueueError> {
        self.publisher.publish(&message::encode(&message, trace.as_ref())?).await
    }

    async fn claim(&self) -> Result<Option<Claim<M>>, QueueError> {
        tokio::select! {
            biased;
            () = self.shutdown.cancelled() => Ok(None),
            claimed = self.next() => claimed,
        }
    }
}

/// The queues of pools, each created on first use.
struct AmqpJobs {
    queues: AmqpQueues,
    by_pool: Mutex<HashMap<PoolName, Arc<AmqpQueue<PoolHasWork>>>>,
}

impl JobQueues for AmqpJobs {
    fn pool(&self, pool: &PoolName) -> Arc<dyn Queue<PoolHasWork>> {
        let mut by_pool = self.by_pool.lock().unwrap_or_else(PoisonError::into_inner);
        let queue = by_pool
            .entry(pool.clone())
            .or_insert_with(|| Arc::new(self.queues.of(topology::jobs(pool))));
        Arc::clone(queue) as Arc<dyn Queue<PoolHasWork>>
    }
}
