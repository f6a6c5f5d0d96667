//! The store's time without a request to the store for each reading.
//!
//! The time of receipt is for people and for the order of lists; no decision depends on it. So the hot path
//! extrapolates from a recent reading of the store's clock, at the slowest rate of that clock. The result is never
//! ahead of the store, so what is received later, by this process or its successor, never gets an earlier time.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use gantry_domain::timestamp::Timestamp;
use gantry_seams::store::{Store, StoreError};

/// How long a reading is used. The result is behind by at most half of this.
const TRUSTED_FOR: Duration = Duration::from_secs(1);

/// After its machine's clock was stepped back, the store's clock runs at half speed, and never slower.
const SLOWEST: u32 = 2;

#[derive(Debug, Default)]
pub(crate) struct StoreClock(Mutex<Option<(Timestamp, Instant)>>);

impl StoreClock {
    /// The store's time, or slightly earlier.
    pub(crate) async fn now(&self, store: &dyn Store) -> Result<Timestamp, StoreError> {
        let read = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((then, at)) = read
            && at.elapsed() < TRUSTED_FOR
        {
            return Ok(reckon(then, at.elapsed()));
        }
        let now = store.now().await?;
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((now, Instant::now()));
        Ok(now)
    }
}

/// The least that the store's clock can show, `elapsed` after it showed `then`.
fn reckon(then: Timestamp, elapsed: Duration) -> Timestamp {
    then.after(elapsed / SLOWEST)
}

#[cfg(test)]
mod tests {
    use gantry_seams::clock::SteadyClock;

    use super::*;

    #[test]
    fn an_extrapolated_time_is_never_ahead_of_the_store() {
        // The machine's clock was stepped back, so the store's clock runs at its slowest.
        let (store, long_ago) = (SteadyClock::start(1_000_000_000), 0);
        // `at` is before the first reading and `asked` after it. So a pause in between makes the store's clock later,
        // but not the extrapolated one.
        let at = Instant::now();
        let then = store.follow(long_ago);
        let asked = Instant::now();
        while at.elapsed() < Duration::from_millis(60) {
            let reckoned = reckon(then, asked.elapsed());
            assert!(reckoned <= store.follow(long_ago), "{reckoned}");
        }
        assert!(reckon(then, at.elapsed()) > then);
    }
}
