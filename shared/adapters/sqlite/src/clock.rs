//! The store's clock.
//!
//! Leases and limits are measured with it, so it may not jump: a wall clock that is stepped, by hand or after a sleep,
//! must not end every lease at once. And it never goes back behind a time that a record may hold.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use gantry_domain::timestamp::Timestamp;

/// What a store measures time with.
#[derive(Debug, Clone, Default)]
pub enum Clock {
    /// The machine's clock, without its jumps.
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

/// A clock that began no earlier than what is stored.
#[derive(Debug)]
pub(crate) struct StoreClock {
    source: Clock,
    last: Mutex<Reading>,
}

#[derive(Debug, Clone, Copy)]
struct Reading {
    taken: Instant,
    /// Nanoseconds since the epoch: clocks that are read often would lose what is rounded away.
    nanos: i64,
}

impl StoreClock {
    /// Begins at the source's time, or at `least` if that is later.
    pub(crate) fn start(source: Clock, least: Timestamp) -> Self {
        let begin = match &source {
            Clock::Wall => wall_nanos(),
            Clock::Manual(manual) => nanos(manual.now()),
        };
        let last = Reading { taken: Instant::now(), nanos: begin.max(nanos(least)) };
        Self { source, last: Mutex::new(last) }
    }

    pub(crate) fn now(&self) -> Timestamp {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = Instant::now();
        let nanos = match &self.source {
            Clock::Wall => follow(last.nanos, taken.duration_since(last.taken), wall_nanos()),
            Clock::Manual(manual) => nanos(manual.now()).max(last.nanos),
        };
        *last = Reading { taken, nanos };
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

fn nanos(at: Timestamp) -> i64 {
    at.as_millis().saturating_mul(NANOS_PER_MILLI)
}

#[expect(clippy::disallowed_methods, reason = "this is where the store's clock comes from")]
fn wall_nanos() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
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

    #[test]
    fn the_clock_begins_no_earlier_than_what_is_stored() {
        let manual = ManualClock::new(Timestamp::from_millis(1_000));
        let clock = StoreClock::start(Clock::Manual(manual.clone()), Timestamp::from_millis(1_500));
        assert_eq!(clock.now(), Timestamp::from_millis(1_500));
        manual.advance(Duration::from_secs(1));
        assert_eq!(clock.now(), Timestamp::from_millis(2_000));

        let ahead = Timestamp::from_millis(wall_nanos() / NANOS_PER_MILLI + 60_000);
        assert!(StoreClock::start(Clock::Wall, ahead).now() >= ahead);
    }
}
