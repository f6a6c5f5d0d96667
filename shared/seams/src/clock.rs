//! What stores measure time with.
//!
//! Leases and limits are measured with a store's clock, so it may not jump: a wall clock that is stepped, by hand or after
//! a sleep, must not end every lease at once. And it never goes back behind a time that a record may hold.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use gantry_domain::timestamp::Timestamp;

/// What a store takes for the time.
#[derive(Debug, Clone, Default)]
pub enum Clock {
    /// The clock of the machine that the store is on, without its jumps.
    #[default]
    Wall,
    /// A clock that a test moves.
    Manual(ManualClock),
}

/// A clock that stands still until it is moved. Clones are the same clock.
#[derive(Debug, Clone)]
pub struct ManualClock(Arc<AtomicI64>);

impl ManualClock {
    /// A clock that stands at `at`.
    #[must_use]
    pub fn new(at: Timestamp) -> Self {
        Self(Arc::new(AtomicI64::new(at.as_millis())))
    }

    /// What it shows.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::SeqCst))
    }

    /// Moves it on.
    pub fn advance(&self, by: Duration) {
        let millis = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        self.0.fetch_add(millis, Ordering::SeqCst);
    }
}

/// A clock that follows another one steadily: it never goes back, and it catches up with a jump instead of making it.
#[derive(Debug)]
pub struct SteadyClock {
    last: Mutex<Reading>,
}

#[derive(Debug, Clone, Copy)]
struct Reading {
    taken: Instant,
    /// Nanoseconds since the epoch: clocks that are read often would lose what is rounded away.
    nanos: i64,
}

impl SteadyClock {
    /// Begins at `nanos` since the epoch.
    #[must_use]
    pub fn start(nanos: i64) -> Self {
        Self { last: Mutex::new(Reading { taken: Instant::now(), nanos }) }
    }

    /// What it shows when the clock that it follows shows `wall`, in nanoseconds since the epoch.
    pub fn follow(&self, wall: i64) -> Timestamp {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let elapsed = last.taken.elapsed();
        // In whole pairs: half a nanosecond lost at each reading is a millisecond to who reads in a loop.
        let elapsed = elapsed - Duration::from_nanos(u64::from(elapsed.subsec_nanos() % 2));
        let nanos = follow(last.nanos, elapsed, wall);
        *last = Reading { taken: last.taken + elapsed, nanos };
        Timestamp::from_millis(nanos / NANOS_PER_MILLI)
    }
}

const NANOS_PER_MILLI: i64 = 1_000_000;

/// Where the clock stands that stood at `last`, `elapsed` ago.
///
/// It follows the wall, but never faster than one and a half times, nor slower than half of what really elapsed. A
/// lease of 30 s that is renewed each 10 s is still held while the clock catches up.
fn follow(last: i64, elapsed: Duration, wall: i64) -> i64 {
    let elapsed = i64::try_from(elapsed.as_nanos()).unwrap_or(i64::MAX);
    let slowest = last.saturating_add(elapsed / 2);
    let fastest = last.saturating_add(elapsed).saturating_add(elapsed / 2);
    wall.clamp(slowest, fastest)
}

/// A time in nanoseconds since the epoch.
#[must_use]
pub fn nanos(at: Timestamp) -> i64 {
    at.as_millis().saturating_mul(NANOS_PER_MILLI)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    #[test]
    fn the_clock_follows_a_right_wall_exactly_and_a_stepped_one_slowly() {
        let ten = Duration::from_secs(10);
        assert_eq!(follow(0, ten, 10 * SECOND), 10 * SECOND);
        assert_eq!(follow(0, ten, 3600 * SECOND), 15 * SECOND);
        assert_eq!(follow(0, ten, -3600 * SECOND), 5 * SECOND);
    }
}
