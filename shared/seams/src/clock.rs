//! The clocks of stores.
//!
//! Leases and limits are measured with the store's clock, so it must not jump: a wall clock that is stepped by hand, or
//! after the machine slept, must not end every lease at once. It also never goes back behind a time that a record may
//! hold.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use gantry_domain::timestamp::Timestamp;

/// A store's source of time.
#[derive(Debug, Clone, Default)]
pub enum Clock {
    /// The wall clock of the store's machine, without its jumps.
    #[default]
    Wall,
    /// A clock that a test advances.
    Manual(ManualClock),
}

/// A clock that only moves when it is advanced. Clones share one clock.
#[derive(Debug, Clone)]
pub struct ManualClock(Arc<AtomicI64>);

impl ManualClock {
    /// A clock that shows `at`.
    #[must_use]
    pub fn new(at: Timestamp) -> Self {
        Self(Arc::new(AtomicI64::new(at.as_millis())))
    }

    /// The current time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::SeqCst))
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        let millis = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        self.0.fetch_add(millis, Ordering::SeqCst);
    }
}

/// A clock that follows another one smoothly: it never goes back, and it catches up with a jump gradually.
#[derive(Debug)]
pub struct SteadyClock {
    last: Mutex<Reading>,
}

#[derive(Debug, Clone, Copy)]
struct Reading {
    taken: Instant,
    /// Nanoseconds since the epoch. Milliseconds would accumulate rounding errors when the clock is read often.
    nanos: i64,
}

impl SteadyClock {
    /// Starts at `nanos` since the epoch.
    #[must_use]
    pub fn start(nanos: i64) -> Self {
        Self { last: Mutex::new(Reading { taken: Instant::now(), nanos }) }
    }

    /// The time to show when the followed clock shows `wall`, in nanoseconds since the epoch.
    pub fn follow(&self, wall: i64) -> Timestamp {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let elapsed = last.taken.elapsed();
        // Only even nanoseconds: losing half a nanosecond at each reading adds up to milliseconds when read in a loop.
        let elapsed = elapsed - Duration::from_nanos(u64::from(elapsed.subsec_nanos() % 2));
        let nanos = follow(last.nanos, elapsed, wall);
        *last = Reading { taken: last.taken + elapsed, nanos };
        Timestamp::from_millis(nanos / NANOS_PER_MILLI)
    }
}

const NANOS_PER_MILLI: i64 = 1_000_000;

/// The clock's next reading, `elapsed` after it showed `last`.
///
/// It follows the wall clock, but at no more than one and a half times and no less than half of the real speed. So a
/// lease of 30 s that is renewed every 10 s is still held while the clock catches up.
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
    fn the_clock_follows_a_stepped_wall_clock_slowly() {
        let ten = Duration::from_secs(10);
        assert_eq!(follow(0, ten, 10 * SECOND), 10 * SECOND);
        assert_eq!(follow(0, ten, 3600 * SECOND), 15 * SECOND);
        assert_eq!(follow(0, ten, -3600 * SECOND), 5 * SECOND);
    }
}
