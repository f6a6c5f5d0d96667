//! The store's clock: the machine's, but never behind what is stored.

use std::time::{SystemTime, UNIX_EPOCH};

use gantry_domain::timestamp::Timestamp;
use gantry_seams::clock::{Clock, SteadyClock, nanos};

/// A clock that never shows a time before `least`.
#[derive(Debug)]
pub(crate) struct StoreClock {
    source: Clock,
    steady: SteadyClock,
    least: Timestamp,
}

impl StoreClock {
    /// Starts at the source's time, or at `least` if that is later.
    pub(crate) fn start(source: Clock, least: Timestamp) -> Self {
        let steady = SteadyClock::start(wall_nanos().max(nanos(least)));
        Self { source, steady, least }
    }

    pub(crate) fn now(&self) -> Timestamp {
        match &self.source {
            Clock::Wall => self.steady.follow(wall_nanos()),
            Clock::Manual(manual) => manual.now().max(self.least),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "this is where the store's clock comes from")]
fn wall_nanos() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use gantry_seams::clock::ManualClock;

    use super::*;

    #[test]
    fn the_clock_starts_no_earlier_than_the_stored_time() {
        let manual = ManualClock::new(Timestamp::from_millis(1_000));
        let clock = StoreClock::start(Clock::Manual(manual.clone()), Timestamp::from_millis(1_500));
        assert_eq!(clock.now(), Timestamp::from_millis(1_500));
        manual.advance(Duration::from_secs(1));
        assert_eq!(clock.now(), Timestamp::from_millis(2_000));

        let ahead = Timestamp::from_millis(wall_nanos() / 1_000_000 + 60_000);
        assert!(StoreClock::start(Clock::Wall, ahead).now() >= ahead);
    }
}
