//! Rounds that take minutes, and rounds with all other seeds.

mod clock;
mod readers;

use std::ops::RangeInclusive;

use crate::parts::{CONTAINERD_SEEDS, REAL_SEEDS};
use crate::{CONTAINERD, REAL, SCRIPTED, play, scaled, seeds};

const MORE_SCRIPTED: RangeInclusive<u64> = 3..=18;
const MORE_REAL: RangeInclusive<u64> = 1002..=1005;
const MORE_CONTAINERD: RangeInclusive<u64> = 1502..=1502;

#[tokio::test(flavor = "multi_thread")]
async fn every_accepted_delivery_is_one_run_wherever_gantry_is_killed() {
    let is_scripted = |seed| !REAL_SEEDS.contains(&seed) && !scaled::SEEDS.contains(&seed);
    play(seeds(MORE_SCRIPTED, |seed| is_scripted(seed) && !SCRIPTED.contains(&seed)), 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_gantry_leaves_nothing_in_a_real_engine_and_builds_what_was_accepted() {
    let is_real = |seed| REAL_SEEDS.contains(&seed) && !CONTAINERD_SEEDS.contains(&seed);
    play(seeds(MORE_REAL, |seed| is_real(seed) && !REAL.contains(&seed)), 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_gantry_leaves_nothing_in_an_engine_with_the_containerd_store() {
    let is_ours = |seed| CONTAINERD_SEEDS.contains(&seed) && !CONTAINERD.contains(&seed);
    play(seeds(MORE_CONTAINERD, is_ours), 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_accepted_delivery_is_one_run_whatever_fails_in_the_scaled_mode() {
    let usual = scaled::USUAL_SEED..=scaled::USUAL_SEED;
    let mut wrong = Vec::new();
    for seed in seeds(usual, |seed| scaled::SEEDS.contains(&seed)) {
        let report = scaled::play(seed).await;
        println!("{report}");
        // Printed at once, because the following rounds take minutes.
        if report.has_faults() {
            println!("{}", report.faults());
            wrong.push(seed);
        }
    }
    assert!(wrong.is_empty(), "wrong, as said above: {wrong:?}");
}
