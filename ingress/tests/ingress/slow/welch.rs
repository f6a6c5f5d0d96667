//! Whether two kinds of input can be distinguished by the time that they take: Welch's t-test on random-order samples.
//!
//! As in dudect, the slow tail of both kinds is cut off at one limit, and |t| < 4.5 means that they cannot be
//! distinguished. With a real difference t grows with the number of samples, so noise is ruled out by taking more of
//! them.

use std::hash::{BuildHasher as _, RandomState};
use std::time::{Duration, Instant};

/// The threshold of |t| above which two kinds of input are distinguished.
pub(crate) const TOLD_APART: f64 = 4.5;

/// Each further round doubles the samples.
const ROUNDS: u32 = 5;

/// One sample in this many, the slowest, is left out, because it was interrupted.
const LEFT_OUT: usize = 10;

/// How long `deed` takes, without its preparation.
pub(crate) fn timed(deed: impl FnOnce()) -> Duration {
    let began = Instant::now();
    deed();
    began.elapsed()
}

/// |t| of the first round in which the two could not be distinguished, or of the last round. The first round takes
/// `samples` samples.
pub(crate) fn told(
    samples: usize,
    mut a: impl FnMut() -> Duration,
    mut b: impl FnMut() -> Duration,
) -> f64 {
    let mut t = f64::INFINITY;
    for doubling in 0..ROUNDS {
        t = round(samples << doubling, [&mut a, &mut b]);
        if t < TOLD_APART {
            break;
        }
    }
    t
}

/// Whether the two are distinguished in any round.
#[allow(dead_code, reason = "only the check of the check asks")]
pub(crate) fn can_be_told(
    samples: usize,
    mut a: impl FnMut() -> Duration,
    mut b: impl FnMut() -> Duration,
) -> bool {
    (0..ROUNDS).any(|doubling| round(samples << doubling, [&mut a, &mut b]) > TOLD_APART)
}

fn round(samples: usize, mut kinds: [&mut dyn FnMut() -> Duration; 2]) -> f64 {
    // A random order, so that periodic effects hit both kinds.
    let order = RandomState::new();
    let mut taken: Vec<(bool, f64)> = (0..samples)
        .map(|number| {
            let second = order.hash_one(number) & 1 == 1;
            (second, kinds[usize::from(second)]().as_secs_f64())
        })
        .collect();
    taken.sort_by(|a, b| a.1.total_cmp(&b.1));
    taken.truncate(samples - samples / LEFT_OUT);
    let of = |kind| taken.iter().filter(move |sample| sample.0 == kind).map(|sample| sample.1);
    let ((mean_a, share_a), (mean_b, share_b)) = (moments(of(false)), moments(of(true)));
    (mean_a - mean_b).abs() / (share_a + share_b).sqrt()
}

/// The mean, and the variance of the mean.
fn moments(samples: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let count = samples.clone().count() as f64;
    let mean = samples.clone().sum::<f64>() / count;
    let variance = samples.map(|sample| (sample - mean).powi(2)).sum::<f64>() / (count - 1.0);
    (mean, variance / count)
}
