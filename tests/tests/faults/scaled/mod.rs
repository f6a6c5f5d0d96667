//! Rounds of the scaled mode: two ingresses, two schedulers and three workers over Redis and RabbitMQ receive pushes at
//! a steady rate, timers are due, and a base image changes, while processes, servers and connections fail, as determined
//! by the seed.

mod driver;
mod environment;
mod plan;
mod report;
mod roles;
mod round;
mod servers;
mod silence;
mod timed;
mod verdict;

use std::ops::RangeInclusive;

pub(crate) use self::environment::now;
use self::report::Report;

/// The seed of an ordinary test run.
pub(crate) const USUAL_SEED: u64 = 2000;

/// All seeds of the scaled mode. Those after the special seeds combine faults at random.
pub(crate) const SEEDS: RangeInclusive<u64> = USUAL_SEED..=9999;

/// A cluster of three brokers, one of which is killed.
const CLUSTER_SEED: u64 = 2021;

/// Default intervals, and a worker that is killed.
const SILENT_SEED: u64 = 2022;

/// Paused servers with open connections.
const PAUSED_SEED: u64 = 2023;

/// Plays the round of a seed.
pub(crate) async fn play(seed: u64) -> Report {
    if seed == SILENT_SEED { silence::play(seed).await } else { round::play(seed).await }
}
