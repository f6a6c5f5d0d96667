//! Implements the store.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use deadpool_redis::redis::aio::MultiplexedConnection;
use deadpool_redis::redis::{Cmd, FromRedisValue, RedisError, cmd};
use gantry_domain::timestamp::Timestamp;
use gantry_seams::clock::{Clock, SteadyClock};
use gantry_seams::store::{
    Batch, CommitError, Entry, From, Index, Key, Record, Room, Store, StoreError, Watch,
};

use crate::checks;
use crate::commit::{Scripts, excess};
use crate::connect_error::ConnectError;
use crate::connections::Connections;
use crate::dial::Dialer;
use crate::info::Info;
use crate::keys::Names;
use crate::link::Link;
use crate::options::{RedisOptions, Servers};
use crate::place::{bound, entry};

/// A store in Redis. Any number of processes may use the same prefix.
#[derive(Debug)]
pub struct RedisStore {
    connections: Connections,
    scripts: Scripts,
    pub(crate) names: Names,
    clock: Clock,
    steady: SteadyClock,
    budget: Option<u64>,
    /// How long a commit waits for a replica, if one is required.
    replica: Option<Duration>,
}

impl RedisStore {
    /// Connects once, and checks that the store can be kept there. After that broken connections are reopened
    /// automatically.
    ///
    /// # Errors
    /// [`ConnectError`]; [`ConnectError::is_temporary`] tells whether a retry may succeed.
    pub async fn connect(options: RedisOptions) -> Result<Self, ConnectError> {
        let dialer = Dialer::new(&options)?;
        let names = Names::new(options.prefix.clone());
        let (link, told) = dialer.dial().await?;
        checks::check(&link, &names, &options).await?;
        let time = wall_nanos(&mut link.reader()).await;
        let steady = SteadyClock::start(time.map_err(|error| link.peer.error("TIME", error))?);
        let replica = match &options.servers {
            Servers::Single { .. } => None,
            Servers::Sentinel { .. } => Some(options.patience / 2),
        };
        let RedisOptions { clock, budget, patience, .. } = options;
        let connections =
            Connections::hold(dialer, (Arc::new(link), told), names.clone(), patience);
        Ok(Self { connections, scripts: Scripts::new(), names, clock, steady, budget, replica })
    }

    pub(crate) async fn ask<T: FromRedisValue>(&self, question: &Cmd) -> Result<T, StoreError> {
        let link = self.connections.link().await?;
        question.query_async(&mut link.reader()).await.map_err(|error| link.failed(&error))
    }

    /// Waits until a replica has what was committed on this connection.
    async fn replicated(
        &self,
        link: &Link,
        mut writer: MultiplexedConnection,
    ) -> Result<(), StoreError> {
        let Some(patience) = self.replica else { return Ok(()) };
        let millis = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX).max(1);
        let mut wait = cmd("WAIT");
        wait.arg(1).arg(millis);
        let replicas: u64 =
            wait.query_async(&mut writer).await.map_err(|error| link.failed(&error))?;
        if replicas == 0 {
            // The master may have been cut off; the sentinels know the current one.
            link.give_up();
            let message = "it was committed, but no replica has it: a failover may lose it";
            return Err(StoreError::Unavailable { message: message.to_owned() });
        }
        Ok(())
    }
}

#[async_trait]
impl Store for RedisStore {
    async fn load(&self, keys: &[Key]) -> Result<Vec<Option<Record>>, StoreError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let mut question = cmd("MGET");
        for key in keys {
            question.arg(self.names.record(key));
        }
        let values: Vec<Option<Bytes>> = self.ask(&question).await?;
        Ok(values.into_iter().map(|value| value.map(record)).collect())
    }

    async fn range(
        &self,
        index: &Index,
        from: From,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        let mut question = cmd("ZRANGE");
        question.arg(self.names.order(index)).arg(bound(&from)).arg("+");
        question.arg("BYLEX").arg("LIMIT").arg(0).arg(i64::try_from(limit).unwrap_or(i64::MAX));
        let elements: Vec<Bytes> = self.ask(&question).await?;
        elements
            .iter()
            .map(|element| entry(element).ok_or_else(|| foreign(index.as_str())))
            .collect()
    }

    async fn commit(&self, batch: Batch) -> Result<(), CommitError> {
        if batch.is_empty() && batch.expect.is_empty() {
            return Ok(());
        }
        if let Some(message) = excess(&batch) {
            return Err(StoreError::Unavailable { message }.into());
        }
        let link = self.connections.link().await?;
        let mut writer = link.writer();
        let call = self.scripts.commit(&self.names, &batch);
        let refused: usize =
            call.invoke_async(&mut writer).await.map_err(|error| link.failed(&error))?;
        match refused.checked_sub(1).and_then(|refused| batch.expect.get(refused)) {
            Some((key, _)) => Err(CommitError::Conflict { key: key.clone() }),
            None if batch.is_empty() => Ok(()),
            None => Ok(self.replicated(&link, writer).await?),
        }
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        match &self.clock {
            Clock::Manual(manual) => Ok(manual.now()),
            Clock::Wall => {
                let link = self.connections.link().await?;
                let wall = wall_nanos(&mut link.reader()).await;
                Ok(self.steady.follow(wall.map_err(|error| link.failed(&error))?))
            }
        }
    }

    async fn room(&self) -> Result<Room, StoreError> {
        let link = self.connections.link().await?;
        let info = Info::of(&mut link.reader()).await.map_err(|error| link.failed(&error))?;
        let maxmemory = Some(info.number("maxmemory")).filter(|most| *most != 0);
        // The lower limit applies.
        let most = maxmemory.into_iter().chain(self.budget).min();
        Ok(Room { used: info.number("used_memory"), most })
    }

    fn watch(&self, key: &Key) -> Watch {
        self.connections.watch(key)
    }
}

/// The server's clock, in nanoseconds since the epoch.
async fn wall_nanos(connection: &mut MultiplexedConnection) -> Result<i64, RedisError> {
    let (seconds, micros): (i64, i64) = cmd("TIME").query_async(connection).await?;
    Ok(seconds.saturating_mul(1_000_000).saturating_add(micros).saturating_mul(1_000))
}

/// A value too short to contain a version was not written by gantry, and will not decode. Returning an error here would
/// fail all other records of the same read.
fn record(mut value: Bytes) -> Record {
    match value.first_chunk() {
        Some(version) => {
            let version = u64::from_be_bytes(*version);
            Record { version, bytes: value.split_off(size_of::<u64>()) }
        }
        None => Record { version: 0, bytes: value },
    }
}

pub(crate) fn foreign(name: &str) -> StoreError {
    let message = format!("what stands under {name} was not written by gantry");
    StoreError::Unavailable { message }
}
