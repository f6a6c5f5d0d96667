//! The store's time without asking the store each time.
//!
//! When something was received is for people and for the order of lists; it decides nothing. So the hot path takes the
//! store's time as it was a moment ago, and goes on from there no faster than the store's clock ever does. So it is never
//! ahead of the store: what is received next, by this process or the one after it, is not dated before.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use gantry_domain::timestamp::Timestamp;
use gantry_seams::store::{Store, StoreError};

/// Half of this is the most that it is behind.
const TRUSTED_FOR: Duration = Duration::from_secs(1);

/// After a step back of the machine's clock the store's goes at half its pace, and at no time slower.
const SLOWEST: u32 = 2;

/// The store's time, near enough.
#[derive(Debug, Default)]
pub(crate) struct StoreClock(Mutex<Option<(Timestamp, Instant)>>);

impl StoreClock {
    /// The store's time, or a little earlier.
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

/// What a store's clock shows at least that showed `then`, `elapsed` ago.
fn reckon(then: Timestamp, elapsed: Duration) -> Timestamp {
    then.after(elapsed / SLOWEST)
}

#[cfg(test)]
mod tests {
    use gantry_seams::clock::SteadyClock;

    use super::*;

    #[test]
    fn a_time_that_is_reckoned_is_never_ahead_of_the_store_s_clock() {
        // The machine's clock was stepped back: the store's waits for it.
        let (store, long_ago) = (SteadyClock::start(1_000_000_000), 0);
        // Measured from before the store was asked and until before it is asked again, so that a pause in between makes the
        // store's clock later, and never the reckoned one.
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
