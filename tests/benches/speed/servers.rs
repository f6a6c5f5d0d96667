//! Servers for one measurement: a Redis with nothing in it, on the disk that the build is on, and doorbells of its own.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use gantry_tests::backend::Vhost;
use gantry_tests::servers::rabbitmq::RabbitMq;
use gantry_tests::servers::redis::Redis;
use tokio::runtime::Runtime;

use crate::backend::Backend;
use crate::process;

/// They run until this is dropped.
pub(crate) struct Servers {
    redis: Redis,
    broker: Broker,
    /// The servers' processes belong to it.
    runtime: Runtime,
}

enum Broker {
    /// In the RabbitMQ that the environment names.
    Vhost(Vhost),
    /// One that may be killed.
    Private(Box<RabbitMq>),
}

impl Servers {
    /// Starts a Redis, and makes a vhost in the RabbitMQ of the whole run.
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

    /// Where they are.
    pub(crate) fn backend(&self) -> Backend {
        let amqp = match &self.broker {
            Broker::Vhost(vhost) => vhost.address(),
            Broker::Private(broker) => broker.url(),
        };
        Backend::Scaled { redis: self.redis.url(), amqp }
    }

    /// Takes the broker away, which must be its own.
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

    /// The process of RabbitMQ, which must be its own.
    pub(crate) fn broker_pid(&self) -> Result<u32> {
        match &self.broker {
            Broker::Private(broker) => broker.pid().context("it runs"),
            Broker::Vhost(_) => anyhow::bail!("others use this broker"),
        }
    }

    /// What Redis answers to a command.
    pub(crate) fn ask_redis(&self, words: &[&str]) -> Result<String> {
        let said =
            Command::new("redis-cli").args(["-u", &self.redis.url()]).args(words).output()?;
        let text = String::from_utf8(said.stdout)?;
        ensure!(said.status.success() && !text.starts_with("ERR"), "{words:?}: {text}");
        Ok(text)
    }

    /// A value of what Redis tells of itself, like `used_memory`.
    pub(crate) fn redis_info(&self, section: &str, name: &str) -> Result<String> {
        let text = self.ask_redis(&["INFO", section])?;
        let mut lines = text.lines().filter_map(|line| line.trim_end().split_once(':'));
        let found = lines.find(|(of, _)| *of == name).map(|(_, value)| value.to_owned());
        found.with_context(|| format!("Redis tells `{name}`"))
    }
}
