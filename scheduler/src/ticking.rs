//! Runs the parts of a scheduler: on a doorbell, or at an interval.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use gantry_ops::backoff::Backoff;
use gantry_ops::said::Said;
use gantry_ops::telemetry;
use gantry_seams::queue::Queue;
use gantry_seams::store::StoreError;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How often a loop polls the store when no doorbell rings.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// The first pause after a tick that moved something. There is probably more to do, and without a broker no doorbell
/// rings. Each tick that moves nothing doubles the pause, up to [`LOOK_AGAIN`].
const LOOK_SOON: Duration = Duration::from_millis(250);

/// The least time between two ticks: one tick serves all doorbells that rang in between.
const LOOKS_APART: Duration = Duration::from_millis(20);

/// The longest pause of a loop that is rung by the other parts of its process.
const LOOKS_OFTEN: Duration = Duration::from_secs(2);

/// How long a loop pauses after an error.
const REST: Duration = Duration::from_secs(1);

/// Ticks at the start, when a doorbell rings, soon after a tick that moved something, and every few seconds.
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

/// Keeps the queue empty for as long as it is polled.
async fn drain_doorbells<M: Send>(name: &'static str, doorbell: &Arc<dyn Queue<M>>) {
    loop {
        await_doorbell(name, doorbell).await;
    }
}

/// Waits until a doorbell rings. A closed one never does.
async fn await_doorbell<M: Send>(name: &'static str, doorbell: &Arc<dyn Queue<M>>) {
    match doorbell.claim().await {
        Ok(Some(claim)) => {
            telemetry::doorbell(name, claim.trace());
            // The store has the facts, so a redelivered doorbell does no harm.
            if let Err(error) = claim.done().await {
                tracing::debug!("{name}: {error}");
            }
        }
        Ok(None) => std::future::pending().await,
        Err(error) => {
            tracing::warn!("{name}: {error}; polling the store every few seconds instead");
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

/// Ticks at the start, when `rung`, after a short pause while there is something to do, and else after one that grows to
/// two seconds.
pub(crate) async fn often<F: Future<Output = Result<usize, StoreError>>>(
    name: &'static str,
    stop: &CancellationToken,
    rung: &Notify,
    tick: impl Fn() -> F,
) {
    let mut said = Said::default();
    let mut pause = Backoff::new(LOOKS_APART, LOOKS_OFTEN);
    loop {
        let ticked = tick().await;
        if matches!(ticked, Ok(1..)) {
            pause.reset();
        }
        rest_on_error(name, &mut said, stop, ticked).await;
        tokio::select! {
            () = stop.cancelled() => return,
            () = rung.notified() => tokio::time::sleep(LOOKS_APART).await,
            () = tokio::time::sleep(pause.wait()) => {}
        }
    }
}

/// Ticks at the start and then after the pause that the last tick returned.
pub(crate) async fn when_due<F: Future<Output = Result<Duration, StoreError>>>(
    name: &'static str,
    stop: &CancellationToken,
    tick: impl Fn() -> F,
) {
    let mut said = Said::default();
    loop {
        let ticked = tick().await;
        let pause = ticked.as_ref().copied().unwrap_or_default();
        rest_on_error(name, &mut said, stop, ticked).await;
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Pauses after an error, and logs it unless it is the same as the last one: if the store is down, every tick fails.
async fn rest_on_error<T>(
    name: &str,
    said: &mut Said,
    stop: &CancellationToken,
    ticked: Result<T, StoreError>,
) {
    let Err(error) = ticked else {
        said.over();
        return;
    };
    let error = error.to_string();
    if said.is_news(&error) {
        tracing::warn!("the {name} loop pauses: {error}");
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

    /// A queue with a number of doorbells, and none after those.
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

    /// Ticks until `is_enough(ticks, doorbells left)`. `moved` says whether a tick, counted from 0, moved something.
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
    async fn ticks_soon_after_a_change_without_doorbells() {
        let began = Instant::now();
        looks_until(0, |number| number < 4, |looks, _| looks == 6).await;
        // Four pauses of at most 250 ms and one of 500 ms, instead of five of five seconds.
        assert!(began.elapsed() < LOOK_AGAIN, "{:?}", began.elapsed());
    }

    #[tokio::test]
    async fn many_doorbells_cause_few_ticks() {
        let looks = looks_until(10_000, |_| false, |_, left| left == 0).await;
        assert!(looks < 1_000, "{looks} looks for 10 000 doorbells");
    }
}
