//! When the parts of a scheduler look at the store: at a doorbell, or at an interval.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use gantry_ops::backoff::Backoff;
use gantry_ops::said::Said;
use gantry_ops::telemetry;
use gantry_seams::queue::Queue;
use gantry_seams::store::StoreError;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How often a loop looks at the store though no doorbell rang and nothing moves.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// How soon it looks again when something moved: where one event or place was, the next is not far, and without a broker
/// nobody tells. Each look that moves nothing doubles this, up to [`LOOK_AGAIN`].
const LOOK_SOON: Duration = Duration::from_millis(250);

/// How far two looks are apart in a crowd of doorbells: one look is for all that rang meanwhile.
const LOOKS_APART: Duration = Duration::from_millis(20);

/// How long a loop rests when the store is away.
const REST: Duration = Duration::from_secs(1);

/// Ticks when a doorbell rings, at the start, soon after something moved, and every few seconds.
pub(crate) async fn on_doorbell<M: Send, F: Future<Output = Result<usize, StoreError>>>(
    name: &'static str,
    stop: &CancellationToken,
    doorbell: &Arc<dyn Queue<M>>,
    tick: impl Fn() -> F,
) {
    let mut said = Said::default();
    let mut pause = Backoff::new(LOOK_SOON, LOOK_AGAIN);
    loop {
        let ticked = tick().await;
        if matches!(ticked, Ok(1..)) {
            pause.reset();
        }
        rest_on_error(name, &mut said, stop, ticked).await;
        let apart = Instant::now() + LOOKS_APART;
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause.wait()) => continue,
            () = await_doorbell(name, doorbell) => {}
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep_until(apart) => {}
            () = drain_doorbells(name, doorbell) => {}
        }
    }
}

/// Takes every doorbell from now on.
async fn drain_doorbells<M: Send>(name: &'static str, doorbell: &Arc<dyn Queue<M>>) {
    loop {
        await_doorbell(name, doorbell).await;
    }
}

/// Waits until a doorbell rings. One that is closed rings no more.
async fn await_doorbell<M: Send>(name: &'static str, doorbell: &Arc<dyn Queue<M>>) {
    match doorbell.claim().await {
        Ok(Some(claim)) => {
            telemetry::doorbell(name, claim.trace());
            // The record says the rest, so a doorbell that comes again is as good as one that does not.
            if let Err(error) = claim.done().await {
                tracing::debug!("{name}: {error}");
            }
        }
        Ok(None) => std::future::pending().await,
        Err(error) => {
            tracing::warn!("{name}: {error}; the store is looked at every few seconds instead");
            tokio::time::sleep(REST).await;
        }
    }
}

/// Ticks at the start and then at each interval.
pub(crate) async fn every<F: Future<Output = Result<usize, StoreError>>>(
    name: &'static str,
    stop: &CancellationToken,
    interval: Duration,
    tick: impl Fn() -> F,
) {
    let mut said = Said::default();
    loop {
        rest_on_error(name, &mut said, stop, tick().await).await;
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(interval) => {}
        }
    }
}

/// Rests after an error, and says it if it is not what was said last: a store that is away is so at every tick.
async fn rest_on_error(
    name: &str,
    said: &mut Said,
    stop: &CancellationToken,
    ticked: Result<usize, StoreError>,
) {
    let Err(error) = ticked else {
        said.over();
        return;
    };
    let error = error.to_string();
    if said.is_news(&error) {
        tracing::warn!("the {name} loop rests: {error}");
    }
    tokio::select! {
        () = stop.cancelled() => {}
        () = tokio::time::sleep(REST) => {}
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;
    use gantry_domain::trace::TraceParent;
    use gantry_seams::queue::{Acknowledge, Claim, QueueError};

    use super::*;

    /// So many doorbells at once, and then none.
    struct Rings(AtomicUsize);

    #[async_trait]
    impl Queue<()> for Rings {
        async fn publish(&self, (): (), _: Option<TraceParent>) -> Result<(), QueueError> {
            Ok(())
        }

        async fn claim(&self) -> Result<Option<Claim<()>>, QueueError> {
            let left =
                self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
            match left {
                Ok(_) => Ok(Some(Claim::new((), None, Box::new(Done)))),
                Err(_) => std::future::pending().await,
            }
        }
    }

    struct Done;

    #[async_trait]
    impl Acknowledge for Done {
        async fn acknowledge(self: Box<Self>) -> Result<(), QueueError> {
            Ok(())
        }
    }

    /// Looks until `is_enough`, each with its number from 0, which says whether something moved.
    async fn looks_until(
        rings: usize,
        moved: impl Fn(usize) -> bool,
        is_enough: impl Fn(usize, usize) -> bool,
    ) -> usize {
        let (looks, stop) = (AtomicUsize::new(0), CancellationToken::new());
        let rings = Arc::new(Rings(AtomicUsize::new(rings)));
        let doorbell = Arc::clone(&rings) as Arc<dyn Queue<()>>;
        let look = || {
            let number = looks.fetch_add(1, Ordering::SeqCst);
            if is_enough(number + 1, rings.0.load(Ordering::SeqCst)) {
                stop.cancel();
            }
            std::future::ready(Ok(usize::from(moved(number))))
        };
        let looking = on_doorbell("test", &stop, &doorbell, look);
        tokio::time::timeout(Duration::from_secs(10), looking).await.expect("enough looks");
        looks.load(Ordering::SeqCst)
    }

    #[tokio::test(start_paused = true)]
    async fn what_moves_is_looked_after_soon_though_nobody_rings() {
        let began = Instant::now();
        looks_until(0, |number| number < 4, |looks, _| looks == 6).await;
        // Four times at most a quarter of a second, and then a half: not twenty-five seconds.
        assert!(began.elapsed() < LOOK_AGAIN, "{:?}", began.elapsed());
    }

    #[tokio::test]
    async fn a_crowd_of_doorbells_is_a_few_looks() {
        let looks = looks_until(10_000, |_| false, |_, left| left == 0).await;
        assert!(looks < 1_000, "{looks} looks for 10 000 doorbells");
    }
}
