//! Refuses new work while the store is nearly full: the rest of its budget is for runs that exist already.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gantry_seams::store::Store;
use tokio_util::sync::CancellationToken;

use crate::refusal::Refusal;

/// How often the store is asked. No request asks it.
const EVERY: Duration = Duration::from_secs(1);

/// Admits what adds to the store: deliveries, uploads, new runs. Requests that read, end or remove something do not ask
/// it, nor do workers that report on their runs.
#[derive(Debug, Default)]
pub(crate) struct Intake {
    is_closed: AtomicBool,
}

impl Intake {
    /// Goes on only while something new is taken.
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        if self.is_closed.load(Ordering::Relaxed) { Err(Refusal::Full) } else { Ok(()) }
    }

    /// Looks until `stop` is cancelled. A store that does not answer changes nothing: requests learn that by
    /// themselves.
    pub(crate) async fn keep_looking(&self, store: &dyn Store, stop: &CancellationToken) {
        loop {
            match store.room().await {
                Ok(room) => self.set(room.is_closed()),
                Err(error) => tracing::debug!("nobody knows how full the store is: {error}"),
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
            tracing::info!("the store has room again: hooks, uploads and new runs are taken");
        }
    }
}
