//! Servers for one measurement: an empty Redis, on the disk with the build, and a separate broker or vhost.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use gantry_tests::backend::Vhost;
use gantry_tests::servers::rabbitmq::RabbitMq;
use gantry_tests::servers::redis::Redis;
use tokio::runtime::Runtime;

use crate::backend::Backend;
use crate::process;

/// Servers that run until this is dropped.
pub(crate) struct Servers {
    redis: Redis,
    broker: Broker,
    /// The runtime of the servers' processes.
    runtime: Runtime,
}

enum Broker {
    /// A vhost in the RabbitMQ that the environment names.
    Vhost(Vhost),
    /// A separate RabbitMQ, which can be killed.
    Private(Box<RabbitMq>),
}

impl Servers {
    /// Starts a Redis, and creates a vhost in the shared RabbitMQ.
    pub(crate) fn start() -> Result<Self> {
        let runtime = Runtime::new()?;
        let redis = runtime.block_on(Redis::start_in(process::folder()?))?;
        let broker = Broker::Vhost(runtime.block_on(Vhost::make()));
        Ok(Self { redis, broker, runtime })
    }

    /// Starts a Redis and a RabbitMQ.
    pub(crate) fn with_own_broker() -> Result<Self> {
        let runtime = Runtime::new()?;
        let redis = runtime.block_on(Redis::start_in(process::folder()?))?;
        let broker = Broker::Private(Box::new(runtime.block_on(RabbitMq::start())?));
        Ok(Self { redis, broker, runtime })
    }

    /// The addresses of the servers.
    pub(crate) fn backend(&self) -> Backend {
        let amqp = match &self.broker {
            Broker::Vhost(vhost) => vhost.address(),
            Broker::Private(broker) => broker.url(),
        };
        Backend::Scaled { redis: self.redis.url(), amqp }
    }

    /// Kills the broker, which must be a separate one.
    pub(crate) fn kill_broker(&mut self) -> Result<()> {
        match &mut self.broker {
            Broker::Private(broker) => self.runtime.block_on(broker.kill()),
            Broker::Vhost(_) => anyhow::bail!("others use this broker"),
        }
    }

    /// The process of Redis.
    pub(crate) fn redis_pid(&self) -> Result<u32> {
        self.redis.pid().context("it runs")
    }

    /// The process of RabbitMQ, which must be a separate one.
    pub(crate) fn broker_pid(&self) -> Result<u32> {
        match &self.broker {
            Broker::Private(broker) => broker.pid().context("it runs"),
            Broker::Vhost(_) => anyhow::bail!("others use this broker"),
        }
    }

    /// Redis's response to a command.
    pub(crate) fn ask_redis(&self, words: &[&str]) -> Result<String> {
        let said =
            Command::new("redis-cli").args(["-u", &self.redis.url()]).args(words).output()?;
        let text = String::from_utf8(said.stdout)?;
        ensure!(said.status.success() && !text.starts_with("ERR"), "{words:?}: {text}");
        Ok(text)
    }

    /// A value from Redis's `INFO`, like `used_memory`.
    pub(crate) fn redis_info(&self, section: &str, name: &str) -> Result<String> {
        let text = self.ask_redis(&["INFO", section])?;
        let mut lines = text.lines().filter_map(|line| line.trim_end().split_once(':'));
        let found = lines.find(|(of, _)| *of == name).map(|(_, value)| value.to_owned());
        found.with_context(|| format!("Redis tells `{name}`"))
    }
}
