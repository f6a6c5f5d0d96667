//! The store and the queues of a test pipeline, in either mode.

use std::sync::Arc;

use gantry_amqp::{AmqpOptions, AmqpQueues};
use gantry_local::queues;
use gantry_ops::secret::{SecretString, random_hex};
use gantry_redis::{RedisOptions, RedisStore};
use gantry_seams::clock::{Clock, ManualClock};
use gantry_seams::queue::Queues;
use gantry_seams::store::SharedStore;
use gantry_sqlite::{Options, SqliteStore};
use tokio_util::sync::CancellationToken;

use crate::real;

/// The kinds of store and queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// SQLite, and channels in memory.
    Embedded,
    /// Redis with a separate prefix, and RabbitMQ with a separate vhost.
    Scaled,
}

/// The store and the queues of one installation.
pub(crate) struct StartedBackend {
    pub(crate) store: SharedStore,
    pub(crate) queues: Queues,
    /// Deleted on drop.
    pub(crate) vhost: Option<Vhost>,
}

impl Backend {
    pub(crate) async fn start(
        self,
        clock: &ManualClock,
        stop: &CancellationToken,
    ) -> StartedBackend {
        let clock = Clock::Manual(clock.clone());
        match self {
            Self::Embedded => {
                let store = SqliteStore::in_memory(Options { clock, ..Options::default() });
                let store: SharedStore = Arc::new(store.expect("a store"));
                StartedBackend { store, queues: queues(stop), vhost: None }
            }
            Self::Scaled => {
                let vhost = Vhost::make().await;
                let store = scaled_store(clock).await;
                StartedBackend { store, queues: vhost.queues(stop).await, vhost: Some(vhost) }
            }
        }
    }
}

async fn scaled_store(clock: Clock) -> SharedStore {
    let mut options = RedisOptions::parse(&real::redis()).expect("the URL of a Redis");
    options.prefix = fresh();
    options.clock = clock;
    Arc::new(RedisStore::connect(options).await.expect("a store"))
}

/// A vhost of RabbitMQ for one test.
pub struct Vhost {
    name: String,
    api: String,
}

impl Vhost {
    /// Creates a vhost.
    ///
    /// # Panics
    /// If the broker refuses.
    pub async fn make() -> Self {
        // The TLS provider is global. An error means that it was already installed.
        let _already = rustls::crypto::ring::default_provider().install_default();
        let vhost = Self { name: fresh(), api: real::rabbitmq_api() };
        // A busy broker sometimes closes a connection. Creating a vhost is idempotent.
        for _ in 0..4 {
            if vhost.put().await.is_ok() {
                return vhost;
            }
        }
        vhost.put().await.expect("a vhost");
        vhost
    }

    async fn put(&self) -> reqwest::Result<()> {
        let made = reqwest::Client::new().put(self.url()).basic_auth("guest", Some("guest"));
        made.send().await?.error_for_status().map(drop)
    }

    /// The vhost's address, without the password.
    #[must_use]
    pub fn address(&self) -> String {
        format!("{}/{}", real::amqp(), self.name)
    }

    async fn queues(&self, stop: &CancellationToken) -> Queues {
        let options = AmqpOptions::parse(&[self.address()], SecretString::from("guest"));
        let options = options.expect("the URL of a broker");
        AmqpQueues::connect(options, stop).await.expect("a broker").queues()
    }

    fn url(&self) -> String {
        format!("{}/api/vhosts/{}", self.api, self.name)
    }
}

impl Drop for Vhost {
    /// Deletes the vhost on a separate thread, because the test's runtime is about to end. If that fails, the vhost
    /// disappears with the broker.
    fn drop(&mut self) {
        let url = self.url();
        let _removed = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
            let removed = reqwest::Client::new().delete(url).basic_auth("guest", Some("guest"));
            runtime.block_on(removed.send()).ok()
        })
        .join();
    }
}

fn fresh() -> String {
    format!("test-{}", random_hex::<8>().expect("random bytes").as_str())
}
