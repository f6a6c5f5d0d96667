//! Random mutations of examples, from a seed, so that a failure can be reproduced.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, RngExt as _, SeedableRng as _};

use super::Target;

/// The largest input.
const LONGEST: usize = 64 * 1024;

/// Runs a target on its examples, and then on `changes` mutations of them.
///
/// # Panics
/// If the target does, with the bytes.
pub fn play(target: &Target, seed: u64, changes: usize) {
    let examples = target.examples();
    let mut random = StdRng::seed_from_u64(seed);
    for example in &examples {
        give(target, seed, example);
    }
    for _ in 0..changes {
        give(target, seed, &changed(target, &examples, &mut random));
    }
}

fn give(target: &Target, seed: u64, bytes: &[u8]) {
    let began = Instant::now();
    if catch_unwind(AssertUnwindSafe(|| (target.run)(bytes))).is_err() {
        panic!("{} broke with seed {seed} on {}", target.name, bytes.escape_ascii());
    }
    // A thousand times what the slowest input takes: input of this size must not occupy a thread for long.
    assert!(
        began.elapsed() < Duration::from_secs(60),
        "{} on {}",
        target.name,
        bytes.escape_ascii()
    );
}

fn changed(target: &Target, examples: &[Vec<u8>], random: &mut StdRng) -> Vec<u8> {
    let mut bytes = examples.choose(random).cloned().unwrap_or_default();
    for _ in 0..random.random_range(1..6) {
        let at = random.random_range(0..=bytes.len());
        let end = (at + random.random_range(0..64)).min(bytes.len());
        match random.random_range(0..8) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.random_range(0..8),
            1 if at < bytes.len() => {
                bytes[at] = *b"\0\xff\x7f\x80\x1b\n\"\\/:@#".choose(random).unwrap()
            }
            2 => drop(bytes.drain(at..end)),
            3 => drop(bytes.splice(at..at, bytes[at..end].to_vec())),
            4 => bytes.truncate(at),
            5 => {
                let other = examples.choose(random).cloned().unwrap_or_default();
                let from = random.random_range(0..=other.len());
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            6 => {
                let mut noise = [0; 8];
                random.fill_bytes(&mut noise);
                drop(bytes.splice(at..at, noise));
            }
            _ => {
                let word = target.words.choose(random).copied().unwrap_or_default();
                drop(bytes.splice(at..end, word.bytes()));
            }
        }
    }
    bytes.truncate(LONGEST);
    bytes
}
