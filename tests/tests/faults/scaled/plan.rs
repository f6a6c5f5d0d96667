//! The faults of a round, derived from its seed.

use std::fmt;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::{CLUSTER_SEED, PAUSED_SEED, USUAL_SEED};

/// A round.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// The number of the broker's nodes.
    pub(crate) brokers: usize,
    /// Faults of servers and connections, in sequence.
    pub(crate) servers: Vec<Fault>,
    /// Faults of processes at the same time, in sequence.
    pub(crate) roles: Vec<Fault>,
}

/// A fault that ends again.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fault {
    pub(crate) kind: Kind,
    /// The pause after the previous fault.
    pub(crate) after: Duration,
    /// The duration, in addition to restarts.
    pub(crate) lasts: Duration,
    /// Selects the victim among the possible ones.
    pub(crate) victim: usize,
}

/// The kinds of faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    KilledIngress,
    KilledScheduler,
    KilledWorker,
    /// Paused for longer than its leases last.
    PausedWorker,
    PausedScheduler,
    RollingRestart,
    /// One worker's engine is unavailable.
    EngineAway,
    KilledBroker,
    /// Killed, and down for long.
    BrokerAway,
    /// Killed, and wiped while runs wait.
    WipedBroker,
    BrokerWithoutMemory,
    PausedBroker,
    BrokerCut,
    BrokerHalfOpen,
    BrokerSlow,
    KilledStore,
    PausedStore,
    /// Killed, and down for long.
    StoreAway,
    StoreCut,
    StoreHalfOpen,
    StoreSlow,
}

use Kind::{
    BrokerAway, BrokerCut, BrokerHalfOpen, BrokerSlow, BrokerWithoutMemory, EngineAway,
    KilledBroker, KilledIngress, KilledScheduler, KilledStore, KilledWorker, PausedBroker,
    PausedScheduler, PausedStore, PausedWorker, RollingRestart, StoreAway, StoreCut, StoreHalfOpen,
    StoreSlow, WipedBroker,
};

const OF_ROLES: [Kind; 7] = [
    KilledIngress,
    KilledScheduler,
    KilledWorker,
    PausedWorker,
    PausedScheduler,
    RollingRestart,
    EngineAway,
];

const OF_SERVERS: [Kind; 12] = [
    KilledBroker,
    WipedBroker,
    BrokerWithoutMemory,
    BrokerCut,
    BrokerHalfOpen,
    BrokerSlow,
    KilledStore,
    StoreCut,
    StoreHalfOpen,
    StoreSlow,
    BrokerAway,
    StoreAway,
];

/// The number of faults at the end of [`OF_SERVERS`] that take the whole round.
const LONG: usize = 2;

impl Plan {
    pub(crate) fn of(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let (servers, roles) = match seed {
            USUAL_SEED => {
                (vec![KilledBroker, KilledStore], vec![KilledWorker, PausedWorker, KilledIngress])
            }
            CLUSTER_SEED => (vec![KilledBroker], vec![KilledScheduler]),
            PAUSED_SEED => (vec![PausedBroker, PausedStore], Vec::new()),
            _ => kinds(&mut random, usize::try_from(seed).unwrap()),
        };
        let mut faults =
            |kinds: Vec<Kind>| kinds.into_iter().map(|kind| Fault::of(kind, &mut random)).collect();
        let brokers = if seed == CLUSTER_SEED { 3 } else { 1 };
        Self { brokers, servers: faults(servers), roles: faults(roles) }
    }
}

/// Each kind comes first in some round, with up to three others.
fn kinds(random: &mut StdRng, seed: usize) -> (Vec<Kind>, Vec<Kind>) {
    let (mut servers, mut roles) = (Vec::new(), Vec::new());
    let turn = (seed - 1) % (OF_ROLES.len() + OF_SERVERS.len());
    match OF_SERVERS.get(turn) {
        Some(kind) => servers.push(*kind),
        None => roles.push(OF_ROLES[turn - OF_SERVERS.len()]),
    }
    for _ in 0..random.random_range(0..=3) {
        if roles.len() < 2 && random.random() {
            roles.push(OF_ROLES[random.random_range(0..OF_ROLES.len())]);
        } else if servers.is_empty() {
            servers.push(OF_SERVERS[random.random_range(0..OF_SERVERS.len() - LONG)]);
        }
    }
    (servers, roles)
}

impl Fault {
    fn of(kind: Kind, random: &mut StdRng) -> Self {
        let (least, most) = kind.lasts();
        Self {
            kind,
            after: Duration::from_millis(random.random_range(1000..=4000)),
            lasts: random.random_range(least..=most),
            victim: random.random_range(0..64),
        }
    }
}

impl Kind {
    fn lasts(self) -> (Duration, Duration) {
        let millis = |least, most| (Duration::from_millis(least), Duration::from_millis(most));
        match self {
            KilledIngress | KilledScheduler | KilledWorker | KilledStore => millis(0, 1500),
            KilledBroker | WipedBroker | RollingRestart => millis(0, 1000),
            PausedWorker => millis(4500, 7000),
            PausedScheduler | EngineAway | BrokerSlow | StoreSlow => millis(3000, 6000),
            BrokerCut | StoreCut | BrokerWithoutMemory | PausedBroker | PausedStore => {
                millis(3000, 8000)
            }
            BrokerHalfOpen | StoreHalfOpen => millis(7000, 10_000),
            BrokerAway => millis(12_000, 12_000),
            StoreAway => millis(20_000, 20_000),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            KilledIngress => "ingress killed",
            KilledScheduler => "scheduler killed",
            KilledWorker => "worker killed",
            PausedWorker => "worker paused",
            PausedScheduler => "scheduler paused",
            RollingRestart => "rolling restart",
            EngineAway => "engine away",
            KilledBroker => "broker killed",
            BrokerAway => "broker away",
            WipedBroker => "broker wiped",
            BrokerWithoutMemory => "broker without memory",
            PausedBroker => "broker paused",
            BrokerCut => "broker cut off",
            BrokerHalfOpen => "broker half open",
            BrokerSlow => "broker slow",
            KilledStore => "store killed",
            PausedStore => "store paused",
            StoreAway => "store away",
            StoreCut => "store cut off",
            StoreHalfOpen => "store half open",
            StoreSlow => "store slow",
        })
    }
}
