//! Ownership of runs, and the loss of the owner.

use std::time::Duration;

use gantry_domain::id::StepId;
use gantry_domain::run::{Outcome, RunStatus};
use gantry_domain::step::Steps;
use gantry_seams::runs::{self, Finish, Renewal, RunOpError};
use gantry_tests::pipeline::{DOCKERFILE, LEASE, TestPipeline};
use gantry_worker::engine::scripted::{Action, Gate};

/// An installation with one ready run, `ca1`.
async fn with_a_ready_run() -> TestPipeline {
    let gantry = super::start().await;
    let hello = gantry.git.repository("hello").unwrap();
    let first = hello.commit("main", DOCKERFILE).unwrap();
    gantry.task("hello", "hello:{{.Run.ID}}").await;
    gantry.schedule().await;
    gantry.deliver("d1", "hello", None, Some(&first)).await;
    gantry.schedule().await;
    gantry
}

async fn take(gantry: &TestPipeline, worker: &str, digit: &str) -> runs::TakenRun {
    let pool = "linux-amd64".parse().unwrap();
    let nonce = digit.repeat(32).parse().unwrap();
    let worker = worker.parse().unwrap();
    runs::take(gantry.store.as_ref(), &pool, &worker, &nonce, LEASE)
        .await
        .unwrap()
        .expect("a ready run")
}

fn push() -> StepId {
    "push".parse().unwrap()
}

#[tokio::test]
async fn a_lease_that_lapses_gives_the_run_to_another_and_the_first_is_refused() {
    let gantry = with_a_ready_run().await;
    let store = gantry.store.as_ref();
    let lost = take(&gantry, "lost", "1").await;
    assert!(runs::lapse(store, lost.run.id).await.unwrap().is_none(), "it holds still");

    gantry.clock.advance(LEASE + Duration::from_millis(1));
    assert!(runs::lapse(store, lost.run.id).await.unwrap().is_some());
    gantry.schedule().await;
    let second = take(&gantry, "second", "2").await;
    assert_eq!(second.holder.attempt, 2);

    assert_eq!(runs::renew(store, lost.run.id, &lost.holder, LEASE).await.unwrap(), Renewal::Lost);
    let outcome = Outcome::Canceled { by: TestPipeline::canceler() };
    let finish =
        runs::finish(store, lost.run.id, &lost.holder, Finish::Outcome(outcome), &Steps::default())
            .await;
    assert!(matches!(finish, Err(RunOpError::LeaseLost { .. })));
    let tagging = runs::tagging(store, lost.run.id, &lost.holder, &push(), &[], LEASE).await;
    assert!(matches!(tagging, Err(RunOpError::LeaseLost { .. })));
    assert_eq!(
        runs::renew(store, lost.run.id, &second.holder, LEASE).await.unwrap(),
        Renewal::Held
    );
}

#[tokio::test]
async fn a_run_whose_worker_is_lost_three_times_ends_as_error() {
    let gantry = with_a_ready_run().await;
    for digit in ["1", "2", "3"] {
        take(&gantry, "lost", digit).await;
        gantry.clock.advance(LEASE * 2);
        runs::lapse(gantry.store.as_ref(), "ca1".parse().unwrap()).await.unwrap().unwrap();
        gantry.schedule().await;
    }
    let run = gantry.run("ca1").await;
    assert_eq!(run.status(), RunStatus::Error);
    let error = run.state.done().unwrap().outcome.error().unwrap().to_string();
    assert!(error.contains("worker lost: lost stopped renewing its lease in attempt 3"), "{error}");
}

#[tokio::test]
async fn concurrent_workers_take_each_run_once() {
    let gantry = super::start().await;
    let hello = gantry.git.repository("hello").unwrap();
    let first = hello.commit("main", DOCKERFILE).unwrap();
    let source: gantry_domain::source::Source =
        format!("{}#main", gantry.git.url("hello")).parse().unwrap();
    for n in 0..8 {
        let source = source.clone();
        gantry
            .task_with(&format!("task-{n}"), "hello:{{.Run.ID}}", |task| {
                task.recipe.source = source
            })
            .await;
    }
    gantry.settle().await;
    gantry.deliver("d1", "hello", None, Some(&first)).await;
    gantry.schedule().await;
    let takes = (0..24).map(|n| {
        let store = gantry.store.clone();
        async move {
            let pool = "linux-amd64".parse().unwrap();
            let nonce = format!("{n:032x}").parse().unwrap();
            let worker = format!("w{n}").parse().unwrap();
            runs::take(store.as_ref(), &pool, &worker, &nonce, LEASE).await.unwrap()
        }
    });
    let taken = futures_util::future::join_all(takes).await;
    let ids: Vec<_> = taken.into_iter().flatten().map(|taken| taken.run.id).collect();
    let unique: std::collections::BTreeSet<_> = ids.iter().collect();
    assert_eq!((ids.len(), unique.len()), (8, 8));
}

#[tokio::test]
async fn a_tasks_limit_affects_only_its_runs() {
    let gantry = super::start().await;
    gantry.git.repository("hello").unwrap().commit("main", DOCKERFILE).unwrap();
    let source: gantry_domain::source::Source =
        format!("{}#main", gantry.git.url("hello")).parse().unwrap();
    let limited = gantry
        .task_with("limited", "hello:{{.Run.ID}}", |task| {
            task.recipe.source = source.clone();
            task.run_limit = std::num::NonZeroU32::new(1);
        })
        .await;
    let free = gantry
        .task_with("free", "hello:{{.Run.ID}}", |task| task.recipe.source = source.clone())
        .await;
    for task in [&limited, &limited, &free] {
        gantry.ask(task, None).await;
    }
    gantry.schedule().await;
    let ready = runs::all_ready(gantry.store.as_ref(), 10).await.unwrap();
    let ready: Vec<String> = ready.iter().map(|run| run.id.to_string()).collect();
    assert_eq!(ready, ["ca1", "ca3"]);
    let held = gantry.run("ca2").await;
    let gantry_domain::run::RunState::Waiting { reason, .. } = held.state else {
        panic!("it waits")
    };
    assert_eq!(reason.to_string(), "one of the task's 1 places for runs");
    gantry.settle().await;
    assert_eq!(gantry.run("ca2").await.status(), RunStatus::Succeeded);
}

#[tokio::test]
async fn requested_runs_are_taken_before_triggered_ones() {
    let gantry = with_a_ready_run().await;
    let task = gantry_seams::tasks::find(gantry.store.as_ref(), &"reg/hello".parse().unwrap())
        .await
        .unwrap()
        .unwrap();
    gantry.clock.advance(Duration::from_secs(60));
    gantry.ask(&task, None).await;
    gantry.schedule().await;
    assert_eq!(take(&gantry, "w", "1").await.run.id.to_string(), "ca2");
    assert_eq!(take(&gantry, "w", "2").await.run.id.to_string(), "ca1");
}

#[tokio::test]
async fn a_cancel_ends_a_queued_run_at_once_and_a_running_one_with_its_build() {
    let gantry = with_a_ready_run().await;
    let by = TestPipeline::canceler();
    let id = "ca1".parse().unwrap();
    assert_eq!(
        runs::cancel(gantry.store.as_ref(), id, &by).await.unwrap().status(),
        RunStatus::Canceled
    );

    let gantry = with_a_ready_run().await;
    gantry.engine.script(&TestPipeline::repository("hello"), [Action::Hang]);
    let worker = gantry.worker("worker-1");
    let canceling = async {
        gantry.engine.until_running(1).await;
        runs::cancel(gantry.store.as_ref(), id, &by).await.unwrap();
    };
    let (worked, ()) = tokio::join!(worker.turn(&gantry.stop), canceling);
    assert!(worked.unwrap());
    assert_eq!(gantry.engine.running(), 0);
    assert_eq!(gantry.run("ca1").await.status(), RunStatus::Canceled);
    assert!(gantry.log("ca1", 1).await.contains("canceled by token t1"));
}

#[tokio::test]
async fn a_shutdown_hands_the_run_back_without_counting_the_attempt() {
    let gantry = with_a_ready_run().await;
    gantry.engine.script(&TestPipeline::repository("hello"), [Action::Hang]);
    let worker = gantry.worker("worker-1");
    let stop = gantry.stop.child_token();
    let stopping = async {
        gantry.engine.until_running(1).await;
        stop.cancel();
    };
    let (worked, ()) = tokio::join!(worker.turn(&stop), stopping);
    assert!(worked.unwrap());
    assert_eq!(gantry.run("ca1").await.status(), RunStatus::Queued);
    gantry.settle().await;
    let run = gantry.run("ca1").await;
    assert_eq!(run.status(), RunStatus::Succeeded);
    assert_eq!(run.attempts.len(), 2);
}

#[tokio::test]
async fn a_cancel_after_the_push_moves_no_tag() {
    let gantry = with_a_ready_run().await;
    let gate = Gate::closed();
    gantry.engine.script(&TestPipeline::repository("hello"), [Action::Wait(gate.clone())]);
    let mut worker = gantry.worker("worker-1");
    // It never renews in this test, so only the request before tagging can notice the cancellation.
    worker.settings.lease.renew = Duration::from_secs(600);
    let canceling = async {
        gate.reached().await;
        runs::cancel(gantry.store.as_ref(), "ca1".parse().unwrap(), &TestPipeline::canceler())
            .await
            .unwrap();
        gate.open();
    };
    let (worked, ()) = tokio::join!(worker.turn(&gantry.stop), canceling);
    assert!(worked.unwrap());
    assert_eq!(gantry.run("ca1").await.status(), RunStatus::Canceled);
    assert_eq!(gantry.registries.tag("registry.test/hello:ca1"), None);
}

#[tokio::test]
async fn a_run_past_its_deadline_ends_as_timeout_with_its_build() {
    let gantry = super::start().await;
    let hello = gantry.git.repository("hello").unwrap();
    let first = hello.commit("main", DOCKERFILE).unwrap();
    gantry
        .task_with("hello", "hello:{{.Run.ID}}", |task| {
            task.recipe.timeout = gantry_domain::recipe::RunTimeout::from_seconds(1).unwrap();
        })
        .await;
    gantry.schedule().await;
    gantry.deliver("d1", "hello", None, Some(&first)).await;
    gantry.engine.script(&TestPipeline::repository("hello"), [Action::Hang]);
    gantry.settle().await;
    assert_eq!(
        gantry.transcript().await.split_once(" (").unwrap().1,
        "the run took longer than its 1 s: give it more with `--timeout`)"
    );
    assert_eq!(gantry.engine.running(), 0);
}

#[tokio::test]
async fn a_tag_that_a_lost_attempt_writes_late_is_put_right_by_the_next() {
    let gantry = with_a_ready_run().await;
    let store = gantry.store.as_ref();
    let lost = take(&gantry, "lost", "1").await;
    runs::began(store, lost.run.id, &lost.holder, None, &Steps::default()).await.unwrap();
    let tag = "registry.test/hello:ca1";
    let image = [tag.parse().unwrap()];
    runs::tagging(store, lost.run.id, &lost.holder, &push(), &image, LEASE).await.unwrap();
    gantry.clock.advance(LEASE * 2);
    runs::lapse(store, lost.run.id).await.unwrap().unwrap();

    let late = format!("sha256:{}", "e".repeat(64)).parse().unwrap();
    gantry.registries.overwrite_next(tag, &late);
    gantry.settle().await;
    let run = gantry.run("ca1").await;
    assert_eq!(run.attempts.len(), 2);
    let pushed = run.state.done().unwrap().outcome.product().unwrap().outputs[0].digest.clone();
    assert_eq!(gantry.registries.tag(tag), Some(pushed));
}

#[tokio::test]
async fn a_tag_that_a_lost_older_run_wrote_last_is_put_right_by_its_next_attempt() {
    let gantry = super::start().await;
    let store = gantry.store.as_ref();
    let hello = gantry.git.repository("hello").unwrap();
    let first = hello.commit("main", DOCKERFILE).unwrap();
    gantry.task("hello", "hello:latest").await;
    gantry.settle().await;
    let second = hello.commit("main", &[("file", "2")]).unwrap();
    let third = hello.commit("main", &[("file", "3")]).unwrap();
    gantry.deliver("d2", "hello", Some(&first), Some(&second)).await;
    gantry.deliver("d3", "hello", Some(&second), Some(&third)).await;
    gantry.schedule().await;

    let lost = take(&gantry, "lost", "1").await;
    runs::began(store, lost.run.id, &lost.holder, None, &Steps::default()).await.unwrap();
    let tag = "registry.test/hello:latest";
    runs::tagging(store, lost.run.id, &lost.holder, &push(), &[tag.parse().unwrap()], LEASE)
        .await
        .unwrap();
    assert!(gantry.worker("other").turn(&gantry.stop).await.unwrap());
    // The newer run has ended and checked its tag. Now the older one writes, and crashes before it can report that.
    let late = format!("sha256:{}", "e".repeat(64)).parse().unwrap();
    gantry.registries.have(tag, &late);
    gantry.clock.advance(LEASE * 2);
    runs::lapse(store, lost.run.id).await.unwrap().unwrap();
    gantry.settle().await;

    let (older, newer) = (gantry.run("ca1").await, gantry.run("ca2").await);
    assert_eq!(older.state.done().unwrap().outcome.product().unwrap().outputs, []);
    let newest = &newer.state.done().unwrap().outcome.product().unwrap().outputs[0];
    assert_eq!(gantry.registries.tag(tag), Some(newest.digest.clone()));
}
