//! The servers of a round, the connections to them, and their faults.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use gantry_seams::runs;
use gantry_tests::proxy::{Flow, Proxy, Way};
use gantry_tests::servers::rabbitmq::{QueueLength, RabbitMq};
use gantry_tests::servers::redis::Redis;

use super::environment::{now, open_store};
use super::plan::{Fault, Kind};
use super::report::Played;
use crate::evidence::MANY;

/// The delay of each chunk on a slow connection.
const SLOW_BROKER: Duration = Duration::from_millis(300);
const SLOW_STORE: Duration = Duration::from_millis(30);

/// How many runs should be waiting, and the time limit for that.
const BACKLOG: usize = 2;
const BACKLOG_WITHIN: Duration = Duration::from_secs(20);

const LOOK: Duration = Duration::from_millis(20);

/// The side of a process in the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Workers,
    Others,
}

/// Redis and RabbitMQ, each behind a proxy for either side.
pub(crate) struct Servers {
    redis: Redis,
    rabbitmq: Vec<RabbitMq>,
    to_store: [Proxy; 2],
    to_brokers: [Vec<Proxy>; 2],
}

impl Servers {
    pub(crate) async fn start(brokers: usize) -> Result<Self> {
        let (redis, rabbitmq) = if brokers == 1 {
            let (redis, rabbitmq) = tokio::try_join!(Redis::start(), RabbitMq::start())?;
            (redis, vec![rabbitmq])
        } else {
            tokio::try_join!(Redis::start(), RabbitMq::start_cluster(brokers))?
        };
        let store = redis.address();
        let to_store = [Proxy::start(store).await?, Proxy::start(store).await?];
        let mut to_brokers = [Vec::new(), Vec::new()];
        for proxies in &mut to_brokers {
            for broker in &rabbitmq {
                proxies.push(Proxy::start(broker.address()).await?);
            }
        }
        Ok(Self { redis, rabbitmq, to_store, to_brokers })
    }

    pub(crate) fn redis(&self) -> &Redis {
        &self.redis
    }

    pub(crate) fn store(&self, side: Side) -> SocketAddr {
        self.to_store[side as usize].address()
    }

    pub(crate) fn brokers(&self, side: Side) -> impl Iterator<Item = SocketAddr> {
        self.to_brokers[side as usize].iter().map(Proxy::address)
    }

    pub(crate) async fn queues(&self) -> Result<Vec<QueueLength>> {
        self.rabbitmq[0].queues().await
    }

    /// Plays these faults in sequence.
    pub(crate) async fn suffer(&mut self, faults: &[Fault]) -> Result<Vec<Played>> {
        let mut played = Vec::new();
        for fault in faults {
            tokio::time::sleep(fault.after).await;
            if fault.kind == Kind::WipedBroker {
                // Without doorbells, workers leave runs waiting until they poll.
                self.workers_reach_the_broker(Way::Cut);
                self.until_runs_wait().await?;
            }
            let from = now();
            self.happen(fault).await?;
            played.push(Played { kind: fault.kind, from, until: now() });
        }
        Ok(played)
    }

    async fn happen(&mut self, fault: &Fault) -> Result<()> {
        let victim = fault.victim % self.rabbitmq.len();
        match fault.kind {
            Kind::KilledBroker | Kind::BrokerAway | Kind::WipedBroker => {
                let broker = &mut self.rabbitmq[victim];
                broker.kill().await?;
                if fault.kind == Kind::WipedBroker {
                    broker.wipe()?;
                }
                tokio::time::sleep(fault.lasts).await;
                broker.start_again().await?;
                self.workers_reach_the_broker(Way::CLEAR);
            }
            Kind::BrokerWithoutMemory => {
                self.rabbitmq[victim].lacks_memory().await?;
                tokio::time::sleep(fault.lasts).await;
                self.rabbitmq[victim].has_memory().await?;
            }
            Kind::PausedBroker => {
                self.rabbitmq[victim].pause()?;
                tokio::time::sleep(fault.lasts).await;
                self.rabbitmq[victim].resume()?;
            }
            Kind::PausedStore => {
                self.redis.pause()?;
                tokio::time::sleep(fault.lasts).await;
                self.redis.resume()?;
            }
            Kind::KilledStore | Kind::StoreAway => {
                self.redis.kill().await?;
                tokio::time::sleep(fault.lasts).await;
                self.redis.start_again().await?;
            }
            Kind::BrokerCut => self.brokers_are(fault, Way::Cut).await,
            Kind::BrokerHalfOpen => self.brokers_are(fault, half_open(fault)).await,
            Kind::BrokerSlow => self.brokers_are(fault, Way::both(Flow::Slow(SLOW_BROKER))).await,
            Kind::StoreCut => self.store_is(fault, Way::Cut).await,
            Kind::StoreHalfOpen => self.store_is(fault, half_open(fault)).await,
            Kind::StoreSlow => self.store_is(fault, Way::both(Flow::Slow(SLOW_STORE))).await,
            Kind::KilledIngress
            | Kind::KilledScheduler
            | Kind::KilledWorker
            | Kind::PausedWorker
            | Kind::PausedScheduler
            | Kind::RollingRestart
            | Kind::EngineAway => unreachable!("{} happens to a process", fault.kind),
        }
        Ok(())
    }

    fn workers_reach_the_broker(&self, way: Way) {
        self.to_brokers[Side::Workers as usize].iter().for_each(|proxy| proxy.set(way));
    }

    async fn store_is(&self, fault: &Fault, way: Way) {
        let proxies = self.to_store.iter().enumerate();
        let proxies = proxies.filter(|(side, _)| is_struck(fault, *side)).map(|(_, proxy)| proxy);
        for_a_while(proxies, way, fault.lasts).await;
    }

    async fn brokers_are(&self, fault: &Fault, way: Way) {
        let proxies = self.to_brokers.iter().enumerate();
        let proxies = proxies.filter(|(side, _)| is_struck(fault, *side)).flat_map(|(_, all)| all);
        for_a_while(proxies, way, fault.lasts).await;
    }

    async fn until_runs_wait(&self) -> Result<()> {
        let store = open_store(self).await?;
        let began = Instant::now();
        while runs::all_ready(store.as_ref(), MANY).await?.len() < BACKLOG {
            ensure!(began.elapsed() < BACKLOG_WITHIN, "no runs wait");
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }
}

/// A third of the connection faults are on the workers' side, a third on the other side, and a third on both.
fn is_struck(fault: &Fault, side: usize) -> bool {
    fault.victim % 3 != side
}

fn half_open(fault: &Fault) -> Way {
    match fault.victim / 3 % 3 {
        0 => Way::Open { to_server: Flow::Swallow, to_client: Flow::Pass },
        1 => Way::Open { to_server: Flow::Pass, to_client: Flow::Swallow },
        _ => Way::both(Flow::Swallow),
    }
}

async fn for_a_while<'a>(proxies: impl Iterator<Item = &'a Proxy>, way: Way, time: Duration) {
    let proxies: Vec<&Proxy> = proxies.collect();
    proxies.iter().for_each(|proxy| proxy.set(way));
    tokio::time::sleep(time).await;
    proxies.iter().for_each(|proxy| proxy.set(Way::CLEAR));
}
