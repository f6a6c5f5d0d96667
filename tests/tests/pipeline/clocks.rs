//! Two processes with different clocks: after a step of the server's clock, a process that started later is ahead of
//! the others.

use std::time::{Duration, Instant};

use gantry_domain::run::RunStatus;
use gantry_seams::runs::{self, Renewal};
use gantry_tests::pipeline::DOCKERFILE;

/// The period of a lease.
const PERIOD: Duration = Duration::from_millis(1500);

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_lease_holds_despite_a_scheduler_clock_ahead() {
    let gantry = super::start().await;
    let hello = gantry.git.repository("hello").unwrap();
    let first = hello.commit("main", DOCKERFILE).unwrap();
    gantry.task("hello", "hello:{{.Run.ID}}").await;
    gantry.schedule().await;
    gantry.deliver("d1", "hello", None, Some(&first)).await;
    gantry.schedule().await;
    let store = gantry.store.as_ref();
    let (pool, worker) = ("linux-amd64".parse().unwrap(), "slow-clock".parse().unwrap());
    let nonce = "1".repeat(32).parse().unwrap();
    let taken = runs::take(store, &pool, &worker, &nonce, Duration::ZERO).await.unwrap().unwrap();

    let mut scheduler = gantry.scheduler();
    (scheduler.settings.lease, scheduler.settings.sweep_interval) = (PERIOD, PERIOD / 20);
    let scheduling = tokio::spawn(scheduler.run(gantry.stop.clone()));
    let began = Instant::now();
    while began.elapsed() < PERIOD * 2 {
        // By the worker's clock the lease lasts for another period; by the other clock it expired a period ago.
        gantry.clock.advance(PERIOD);
        let renewed = runs::renew(store, taken.run.id, &taken.holder, Duration::ZERO).await;
        assert_eq!(renewed.unwrap(), Renewal::Held, "after {:?}", began.elapsed());
        tokio::time::sleep(PERIOD / 10).await;
    }
    // It is no longer renewed.
    gantry.clock.advance(PERIOD);
    let silent = Instant::now();
    while gantry.run("ca1").await.status() == RunStatus::Started {
        assert!(silent.elapsed() < Duration::from_secs(30), "it is never lost");
        tokio::time::sleep(PERIOD / 20).await;
    }
    gantry.stop.cancel();
    scheduling.await.unwrap();
}
