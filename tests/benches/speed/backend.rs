//! The store and the queues of a measured gantry: a file and channels, or servers.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, bail};
use gantry_amqp::{AmqpOptions, AmqpQueues};
use gantry_local::queues;
use gantry_ops::secret::SecretString;
use gantry_redis::{RedisOptions, RedisStore};
use gantry_seams::queue::Queues;
use gantry_seams::store::SharedStore;
use gantry_sqlite::{Options, SqliteStore};
use gantry_tests::servers::rabbitmq::PASSWORD;
use tokio_util::sync::CancellationToken;

/// Where the store and the queues are.
#[derive(Debug, Clone)]
pub(crate) enum Backend {
    /// SQLite in the folder, and channels in memory.
    Embedded,
    /// The addresses of a Redis and of a RabbitMQ.
    Scaled {
        /// The Redis.
        redis: String,
        /// The RabbitMQ, with its vhost.
        amqp: String,
    },
}

impl Backend {
    /// Parses the result of [`Backend::words`].
    pub(crate) fn of_words(words: &[String]) -> Result<Self> {
        match words {
            [] => Ok(Self::Embedded),
            [redis, amqp] => Ok(Self::Scaled { redis: redis.clone(), amqp: amqp.clone() }),
            _ => bail!("expected no words, or the URLs of a Redis and a RabbitMQ: {words:?}"),
        }
    }

    /// The arguments for another process with the same backend.
    pub(crate) fn words(&self) -> Vec<&str> {
        match self {
            Self::Embedded => Vec::new(),
            Self::Scaled { redis, amqp } => vec![redis, amqp],
        }
    }

    /// Opens the store, separately in each process.
    pub(crate) async fn store(&self, folder: &Path) -> Result<SharedStore> {
        match self {
            Self::Embedded => {
                Ok(Arc::new(SqliteStore::open(folder.join("gantry.db"), Options::default())?))
            }
            Self::Scaled { redis, .. } => {
                Ok(Arc::new(RedisStore::connect(RedisOptions::parse(redis)?).await?))
            }
        }
    }

    /// Connects to the queues.
    pub(crate) async fn queues(&self, stop: &CancellationToken) -> Result<Queues> {
        match self {
            Self::Embedded => Ok(queues(stop)),
            Self::Scaled { amqp, .. } => {
                let options =
                    AmqpOptions::parse(std::slice::from_ref(amqp), SecretString::from(PASSWORD))?;
                Ok(AmqpQueues::connect(options, stop).await?.queues())
            }
        }
    }
}
