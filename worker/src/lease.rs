//! Keeps the lease of an attempt: renews it, and detects cancellation and loss.

use std::sync::Arc;
use std::time::Duration;

use gantry_domain::attempt::Holder;
use gantry_domain::id::RunId;
use gantry_seams::runs::{self, Renewal};
use gantry_seams::store::SharedStore;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The duration of a lease, and the interval of renewals.
#[derive(Debug, Clone, Copy)]
pub struct LeaseTimes {
    /// The duration, from each renewal.
    pub period: Duration,
    /// The interval of renewals.
    pub renew: Duration,
}

/// A lease that is renewed until this is dropped.
#[derive(Debug)]
pub(crate) struct KeptLease {
    /// The run.
    pub(crate) run: RunId,
    /// The claim of its worker.
    pub(crate) holder: Holder,
    times: LeaseTimes,
    shared: Arc<Shared>,
    keeper: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    cancel_asked: CancellationToken,
    lost: CancellationToken,
}

impl KeptLease {
    /// Keeps a lease that was just taken. `ask` is notified when cancellation may have been requested.
    pub(crate) fn keep(
        store: SharedStore,
        run: RunId,
        holder: Holder,
        times: LeaseTimes,
        ask: Arc<Notify>,
    ) -> Self {
        let shared = Arc::new(Shared {
            cancel_asked: CancellationToken::new(),
            lost: CancellationToken::new(),
        });
        let keeper =
            tokio::spawn(keep(store, run, holder.clone(), times, Arc::clone(&shared), ask));
        Self { run, holder, times, shared, keeper }
    }

    /// Returns once cancellation was requested.
    pub(crate) async fn cancel_asked(&self) {
        self.shared.cancel_asked.cancelled().await;
    }

    /// Returns once the lease is lost.
    pub(crate) async fn lost(&self) {
        self.shared.lost.cancelled().await;
    }

    /// The duration of the lease from a renewal.
    pub(crate) fn period(&self) -> Duration {
        self.times.period
    }
}

impl Drop for KeptLease {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

async fn keep(
    store: SharedStore,
    run: RunId,
    holder: Holder,
    times: LeaseTimes,
    shared: Arc<Shared>,
    ask: Arc<Notify>,
) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(times.renew) => {}
            () = ask.notified() => {}
        }
        match runs::renew(store.as_ref(), run, &holder, times.period).await {
            Ok(Renewal::Held) => {}
            Ok(Renewal::CancelAsked) => shared.cancel_asked.cancel(),
            Ok(Renewal::Lost) => {
                shared.lost.cancel();
                return;
            }
            // The build continues: the store may be back before another worker takes the run. Tagging asks the store
            // itself.
            Err(error) => {
                tracing::warn!(run.id = %run, "the lease of run {run} was not renewed: {error}")
            }
        }
    }
}
