//! Invariants that hold when gantry is killed at any moment, and in the scaled mode also when its servers and
//! connections fail.
//!
//! `GANTRY_FAULT_SEED=7` plays only that round, `GANTRY_FAULT_SEED=1-200` a range. Seeds from 1001 use the real engine
//! and registry, from 1501 with the containerd image store, from 2000 the scaled mode; seeds from 10000 are like the
//! first ones. A seed determines pushes and faults, but not how threads are scheduled: a failed round may have to be
//! played a few times.

#![allow(clippy::unwrap_used, reason = "a round that cannot be played has failed")]

mod base_images;
mod crash;
mod disk;
mod evidence;
mod ledger;
mod parts;
mod plan;
mod poison;
mod report;
mod round;
mod scaled;
mod servers;
mod slow;
mod timers;
mod up;
mod verdict;

use std::ops::RangeInclusive;

use futures_util::StreamExt as _;

use crate::report::CutShort;

/// The rounds of every test run.
const SCRIPTED: RangeInclusive<u64> = 1..=2;
const REAL: RangeInclusive<u64> = 1001..=1001;
const CONTAINERD: RangeInclusive<u64> = 1501..=1501;

#[tokio::test(flavor = "multi_thread")]
async fn every_accepted_delivery_is_one_run_wherever_gantry_is_killed() {
    play(seeds(SCRIPTED, |seed| SCRIPTED.contains(&seed)), 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_gantry_leaves_nothing_in_a_real_engine_and_builds_what_was_accepted() {
    play(seeds(REAL, |seed| REAL.contains(&seed)), 1).await;
}

mod on_the_containerd_store {
    use super::{CONTAINERD, play, seeds};

    #[tokio::test(flavor = "multi_thread")]
    async fn a_killed_gantry_leaves_nothing_in_a_real_engine_and_builds_what_was_accepted() {
        play(seeds(CONTAINERD, |seed| CONTAINERD.contains(&seed)), 1).await;
    }
}

/// Plays rounds, `at_once` of them concurrently.
async fn play(seeds: Vec<u64>, at_once: usize) {
    let rounds = seeds.into_iter().map(|seed| tokio::spawn(round::play(seed)));
    let mut rounds = futures_util::stream::iter(rounds).buffered(at_once);
    let mut faults = Vec::new();
    let mut cut_short = CutShort::default();
    while let Some(report) = rounds.next().await {
        let report = report.unwrap();
        println!("{report}");
        cut_short.add(&report.cut_short);
        if report.has_faults() {
            faults.push(report.faults());
        }
    }
    println!("{cut_short}");
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

/// The requested seeds, or the usual ones.
#[allow(clippy::disallowed_methods, reason = "a test has no settings but these")]
fn seeds(usual: RangeInclusive<u64>, ours: impl Fn(u64) -> bool) -> Vec<u64> {
    let Ok(asked) = std::env::var("GANTRY_FAULT_SEED") else { return usual.collect() };
    let (first, last) = asked.split_once('-').unwrap_or((&asked, &asked));
    let asked: RangeInclusive<u64> = first.parse().unwrap()..=last.parse().unwrap();
    asked.filter(|seed| ours(*seed)).collect()
}
