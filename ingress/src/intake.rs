//! Refuses new work while the store is nearly full, to leave the rest of its budget to existing runs.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gantry_seams::store::Store;
use tokio_util::sync::CancellationToken;

use crate::refusal::Refusal;

/// How often the store is asked. Requests use the last result.
const EVERY: Duration = Duration::from_secs(1);

/// Admits requests that add to the store: deliveries, uploads, new runs. Requests that read, end or remove something
/// are not checked, nor are workers' reports.
#[derive(Debug, Default)]
pub(crate) struct Intake {
    is_closed: AtomicBool,
}

impl Intake {
    /// Fails while new work is refused.
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        if self.is_closed.load(Ordering::Relaxed) { Err(Refusal::Full) } else { Ok(()) }
    }

    /// Updates the state until `stop` is cancelled. While the store does not answer the state stays as it is: requests
    /// fail by themselves then.
    pub(crate) async fn keep_looking(&self, store: &dyn Store, stop: &CancellationToken) {
        loop {
            match store.room().await {
                Ok(room) => self.set(room.is_closed()),
                Err(error) => tracing::debug!("how full the store is cannot be read: {error}"),
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(EVERY) => {}
            }
        }
    }

    fn set(&self, is_closed: bool) {
        let was_closed = self.is_closed.swap(is_closed, Ordering::Relaxed);
        if is_closed && !was_closed {
            tracing::error!(
                "the store is nearly full: hooks, uploads and new runs are answered 503 until there is room; raise \
                 `store.budget`, or shorten what `retention` keeps"
            );
        }
        if was_closed && !is_closed {
            tracing::info!("the store has room again: hooks, uploads and new runs are accepted");
        }
    }
}
