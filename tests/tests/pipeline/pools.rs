//! Pools without workers, and drained workers.

use std::time::Duration;

use gantry_domain::platform::Platform;
use gantry_domain::run::{ErrorCode, RunState, RunStatus};
use gantry_domain::timestamp::Timestamp;
use gantry_domain::worker::{EngineHealth, Worker as WorkerRecord};
use gantry_seams::{runs, workers};
use gantry_tests::pipeline::{DOCKERFILE, QUEUE_TIMEOUT, TestPipeline};
use tokio_util::sync::CancellationToken;

const MINUTE: Duration = Duration::from_secs(60);

/// An installation with one ready run, `ca1`, that was requested.
async fn with_a_ready_run() -> TestPipeline {
    let gantry = super::start().await;
    gantry.git.repository("hello").unwrap().commit("main", DOCKERFILE).unwrap();
    let task = gantry.task("hello", "hello:{{.Run.ID}}").await;
    gantry.settle().await;
    gantry.ask(&task, None).await;
    gantry.schedule().await;
    gantry
}

/// A worker that reports, and is too busy to take runs.
async fn busy_worker(gantry: &TestPipeline) {
    let record = WorkerRecord {
        id: "busy".parse().unwrap(),
        has_fixed_name: true,
        pool: Platform::default().pool(),
        platforms: vec![Platform::default()],
        slots: 1,
        runs: vec!["cz9".parse().unwrap()],
        version: "1".to_owned(),
        engine: EngineHealth::Ready { name: "an engine".to_owned() },
        free_disk: None,
        idle_because: None,
        last_seen: gantry.clock.now(),
    };
    workers::record_seen(gantry.store.as_ref(), &record).await.unwrap();
}

/// A pass of a scheduler that has always seen the store.
async fn end_stranded_runs(gantry: &TestPipeline) -> usize {
    let began = Timestamp::default();
    gantry.scheduler().sweeper().end_stranded_runs(gantry.clock.now(), began).await.unwrap()
}

#[tokio::test]
async fn a_run_in_a_pool_without_workers_ends_after_the_queue_timeout_and_says_what_to_do() {
    let gantry = with_a_ready_run().await;
    gantry.clock.advance(QUEUE_TIMEOUT - MINUTE);
    assert_eq!(end_stranded_runs(&gantry).await, 0);
    gantry.clock.advance(MINUTE);
    assert_eq!(end_stranded_runs(&gantry).await, 1);

    let run = gantry.run("ca1").await;
    assert_eq!(run.status(), RunStatus::Error);
    let error = run.state.done().unwrap().outcome.error().unwrap();
    assert_eq!(error.code, ErrorCode::NoWorker);
    assert_eq!(
        error.message,
        "nobody took it in 3600 s, `runs.queue_timeout`, since there is no worker in pool linux-amd64: start one with \
         `gantry worker --pool linux-amd64`; then run it again"
    );
    assert_eq!(end_stranded_runs(&gantry).await, 0, "it ended once");
}

#[tokio::test]
async fn a_run_in_a_busy_pool_waits_without_limit() {
    let gantry = with_a_ready_run().await;
    for _ in 0..3 {
        gantry.clock.advance(QUEUE_TIMEOUT);
        busy_worker(&gantry).await;
        assert_eq!(end_stranded_runs(&gantry).await, 0);
    }
    assert!(matches!(gantry.run("ca1").await.state, RunState::Ready { .. }));
}

#[tokio::test]
async fn the_time_without_workers_begins_when_the_last_one_was_seen() {
    let gantry = with_a_ready_run().await;
    gantry.clock.advance(QUEUE_TIMEOUT * 2);
    busy_worker(&gantry).await;
    workers::forget(gantry.store.as_ref(), &"busy".parse().unwrap()).await.unwrap();
    gantry.clock.advance(QUEUE_TIMEOUT - MINUTE);
    assert_eq!(end_stranded_runs(&gantry).await, 0);
    gantry.clock.advance(MINUTE);
    assert_eq!(end_stranded_runs(&gantry).await, 1);
}

#[tokio::test]
async fn time_without_a_scheduler_does_not_count() {
    let gantry = with_a_ready_run().await;
    gantry.clock.advance(QUEUE_TIMEOUT * 100);
    let began = gantry.clock.now();
    let scheduler = gantry.scheduler();
    assert_eq!(scheduler.sweeper().end_stranded_runs(gantry.clock.now(), began).await.unwrap(), 0);
    gantry.clock.advance(QUEUE_TIMEOUT);
    assert_eq!(scheduler.sweeper().end_stranded_runs(gantry.clock.now(), began).await.unwrap(), 1);
}

#[tokio::test]
async fn the_scheduler_loop_ends_stranded_runs() {
    let gantry = with_a_ready_run().await;
    let mut scheduler = gantry.scheduler();
    scheduler.settings.sweep_interval = Duration::from_millis(1);
    let stop = CancellationToken::new();
    let looking = async {
        let mut watch = runs::watch(gantry.store.as_ref(), "ca1".parse().unwrap());
        while gantry.run("ca1").await.status() != RunStatus::Error {
            gantry.clock.advance(QUEUE_TIMEOUT);
            let _ = tokio::time::timeout(Duration::from_millis(10), watch.changed()).await;
        }
        stop.cancel();
    };
    let both = async { tokio::join!(scheduler.run(stop.clone()), looking) };
    tokio::time::timeout(Duration::from_secs(30), both).await.expect("it ends");
}

/// Runs a worker like a process does, until `until` completes.
async fn working<T>(gantry: &TestPipeline, until: impl Future<Output = T>) -> T {
    let stop = CancellationToken::new();
    let driving = async {
        let result = until.await;
        stop.cancel();
        result
    };
    tokio::join!(gantry.worker("worker-1").run(stop.clone()), driving).1
}

async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while !is_so().await {
        assert!(tokio::time::Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Checks that a run is not taken. Nothing signals that, so it waits for a while.
async fn is_left_alone(gantry: &TestPipeline, run: &str) {
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert!(matches!(gantry.run(run).await.state, RunState::Ready { .. }));
    }
}

#[tokio::test]
async fn a_drained_worker_finishes_its_runs_and_can_be_resumed() {
    let gantry = super::start().await;
    gantry.git.repository("hello").unwrap().commit("main", DOCKERFILE).unwrap();
    let task = gantry.task("hello", "hello:{{.Run.ID}}").await;
    let gate = gantry_worker::engine::scripted::Gate::closed();
    let wait = gantry_worker::engine::scripted::Action::Wait(gate.clone());
    gantry.engine.script(&TestPipeline::repository("hello"), [wait]);
    gantry.ask(&task, None).await;
    gantry.schedule().await;
    let (store, id) = (gantry.store.as_ref(), "worker-1".parse().unwrap());
    working(&gantry, async {
        gate.reached().await;
        assert!(workers::drain(store, &id, &TestPipeline::somebody()).await.unwrap());
        // It may poll once more before it notices the drain.
        until("the worker says that it is there", async || {
            workers::workforce(store).await.unwrap().lacks(&task.recipe.platforms.pool()).is_some()
        })
        .await;
        gate.open();
        until("what it had is done", async || {
            gantry.run("ca1").await.status() == RunStatus::Succeeded
        })
        .await;
        gantry.ask(&task, None).await;
        gantry.schedule().await;
        is_left_alone(&gantry, "ca2").await;
    })
    .await;

    // A worker of the same name is drained from its start.
    working(&gantry, async {
        until("it is there again", async || !workers::list(store, 10).await.unwrap().is_empty())
            .await;
        is_left_alone(&gantry, "ca2").await;
        assert!(workers::resume(store, &id).await.unwrap());
        until("it takes runs at once", async || {
            gantry.run("ca2").await.status() == RunStatus::Succeeded
        })
        .await;
    })
    .await;
    assert!(!workers::drain(store, &id, &TestPipeline::somebody()).await.unwrap(), "it is gone");
}

#[tokio::test]
async fn the_drain_of_a_randomly_named_worker_is_removed_with_it() {
    let gantry = super::start().await;
    busy_worker(&gantry).await;
    let (store, id) = (gantry.store.as_ref(), "busy".parse().unwrap());
    let is_drained = async || workers::workforce(store).await.unwrap().drained.contains_key(&id);
    for (has_fixed_name, is_kept) in [(true, true), (false, false)] {
        let mut record = workers::list(store, 1).await.unwrap().pop().unwrap();
        record.has_fixed_name = has_fixed_name;
        record.last_seen = gantry.clock.now();
        workers::record_seen(store, &record).await.unwrap();
        workers::drain(store, &id, &TestPipeline::somebody()).await.unwrap();
        gantry.clock.advance(Duration::from_secs(600));
        assert_eq!(workers::forget_silent(store, MINUTE).await.unwrap(), 1);
        assert_eq!(is_drained().await, is_kept);
        workers::record_seen(store, &record).await.unwrap();
    }
}
