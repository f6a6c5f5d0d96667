//! Rounds of the scaled mode: two ingress, two schedulers and three workers over Redis and RabbitMQ, pushed to at a steady
//! rate while, as the seed says it, processes, servers and connections fail.

mod driver;
mod environment;
mod plan;
mod report;
mod roles;
mod round;
mod servers;
mod silence;
mod verdict;

use std::ops::RangeInclusive;

use self::report::Report;

/// The seed that is played when none is asked for.
pub(crate) const USUAL_SEED: u64 = 2000;

/// Every seed of the scaled mode. From the last that is something special on they mix what they like.
pub(crate) const SEEDS: RangeInclusive<u64> = USUAL_SEED..=9999;

/// Three brokers, one of which is killed.
const CLUSTER_SEED: u64 = 2021;

/// Intervals as operators have them by default, and a worker that falls silent.
const SILENT_SEED: u64 = 2022;

/// Servers that stand still, with every connection open.
const PAUSED_SEED: u64 = 2023;

/// Plays the round of a seed.
pub(crate) async fn play(seed: u64) -> Report {
    if seed == SILENT_SEED { silence::play(seed).await } else { round::play(seed).await }
}
