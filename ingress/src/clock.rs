//! The store's time without asking the store each time.
//!
//! When something was received is for people and for the order of lists; it decides nothing. So the hot path takes the
//! store's time as it was a few seconds ago, and this process's steady clock from there.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use gantry_domain::timestamp::Timestamp;
use gantry_seams::store::{Store, StoreError};

const TRUSTED_FOR: Duration = Duration::from_secs(5);

/// The store's time, near enough.
#[derive(Debug, Default)]
pub(crate) struct StoreClock(Mutex<Option<(Timestamp, Instant)>>);

impl StoreClock {
    /// The store's time, to some milliseconds.
    pub(crate) async fn now(&self, store: &dyn Store) -> Result<Timestamp, StoreError> {
        let read = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((then, at)) = read
            && at.elapsed() < TRUSTED_FOR
        {
            return Ok(then.after(at.elapsed()));
        }
        let now = store.now().await?;
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((now, Instant::now()));
        Ok(now)
    }
}
