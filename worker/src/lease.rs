//! Keeps the lease of one attempt: renews it, and notices a cancel and its loss.

use std::sync::Arc;
use std::time::Duration;

use gantry_domain::attempt::Holder;
use gantry_domain::id::RunId;
use gantry_seams::runs::{self, Renewal};
use gantry_seams::store::SharedStore;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long a lease lasts and how often it is renewed.
#[derive(Debug, Clone, Copy)]
pub struct LeaseTimes {
    /// From each renewal.
    pub period: Duration,
    /// Between renewals.
    pub renew: Duration,
}

/// A lease that is being kept. Dropped, it is kept no longer.
#[derive(Debug)]
pub(crate) struct KeptLease {
    /// The run.
    pub(crate) run: RunId,
    /// What its worker shows.
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
    /// Keeps a lease that was just taken. `ask` is notified when the run may have been asked to cancel.
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

    /// Returns once somebody asked to cancel.
    pub(crate) async fn cancel_asked(&self) {
        self.shared.cancel_asked.cancelled().await;
    }

    /// Returns once the lease is someone else's, or nobody's.
    pub(crate) async fn lost(&self) {
        self.shared.lost.cancelled().await;
    }

    /// How long a lease lasts from a renewal.
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
            // It builds on: the store may be back before anyone else takes the run. Tagging asks the store itself.
            Err(error) => {
                tracing::warn!(run.id = %run, "the lease of run {run} was not renewed: {error}")
            }
        }
    }
}
