//! A running worker: what it takes, what it reports, and what it cleans up.

use std::time::Duration;

use gantry_domain::run::{Run, RunStatus};
use gantry_domain::worker::EngineHealth;
use gantry_seams::{runs, workers};
use gantry_tests::git_server::Behaviour;
use gantry_tests::pipeline::{DOCKERFILE, TestPipeline};
use gantry_worker::engine::scripted::{Action, Gate};
use gantry_worker::engine::{Engine as _, Leftover, LeftoverKind};
use tokio_util::sync::CancellationToken;

/// Runs scheduler and worker like `gantry up`, until `until` completes.
async fn running<T>(gantry: &TestPipeline, until: impl Future<Output = T>) -> T {
    let stop = CancellationToken::new();
    let scheduler = gantry.scheduler().run(stop.clone());
    let worker = gantry.worker("worker-1").run(stop.clone());
    let driving = async {
        let result = until.await;
        stop.cancel();
        result
    };
    let ((), (), result) = tokio::join!(scheduler, worker, driving);
    result
}

/// Waits until a run satisfies a condition, which is checked whenever its record changes.
async fn until(gantry: &TestPipeline, id: &str, is_so: impl Fn(&Run) -> bool) -> Run {
    let mut watch = runs::watch(gantry.store.as_ref(), id.parse().unwrap());
    loop {
        let found = runs::find(gantry.store.as_ref(), id.parse().unwrap()).await.unwrap();
        if let Some(run) = found.filter(&is_so) {
            return run;
        }
        tokio::time::timeout(Duration::from_secs(30), watch.changed()).await.expect("it moves on");
    }
}

async fn with_a_task() -> (TestPipeline, gantry_domain::task::Task) {
    let gantry = super::start().await;
    gantry.git.repository("hello").unwrap().commit("main", DOCKERFILE).unwrap();
    let task = gantry.task("hello", "hello:{{.Run.ID}}").await;
    gantry.schedule().await;
    (gantry, task)
}

#[tokio::test]
async fn a_requested_run_is_executed_by_the_loops() {
    let (gantry, task) = with_a_task().await;
    let run = running(&gantry, async {
        gantry.ask(&task, None).await;
        until(&gantry, "ca1", |run| run.status().is_terminal()).await
    })
    .await;
    assert_eq!(run.status(), RunStatus::Succeeded);
}

#[tokio::test]
async fn a_worker_reports_and_is_removed_at_shutdown() {
    let (gantry, task) = with_a_task().await;
    let gate = Gate::closed();
    gantry.engine.script(&TestPipeline::repository("hello"), [Action::Wait(gate.clone())]);
    running(&gantry, async {
        gantry.ask(&task, None).await;
        gate.reached().await;
        let seen = workers::list(gantry.store.as_ref(), 10).await.unwrap();
        assert_eq!(seen[0].engine, EngineHealth::Ready { name: "a scripted engine".to_owned() });
        assert_eq!(seen[0].idle_because, None);
        gate.open();
        until(&gantry, "ca1", |run| run.status().is_terminal()).await;
    })
    .await;
    assert_eq!(workers::list(gantry.store.as_ref(), 10).await.unwrap(), []);
}

#[tokio::test]
async fn without_an_engine_a_worker_takes_no_runs_and_reports_why() {
    let (gantry, task) = with_a_task().await;
    gantry.engine.go_away();
    running(&gantry, async {
        gantry.ask(&task, None).await;
        let run = until(&gantry, "ca1", |run| {
            matches!(run.state, gantry_domain::run::RunState::Ready { .. })
        })
        .await;
        assert!(run.attempts.is_empty());
        let seen = workers::list(gantry.store.as_ref(), 10).await.unwrap();
        assert!(seen[0].idle_because.as_ref().unwrap().contains("is it running"), "{seen:?}");
        gantry.engine.come_back();
        until(&gantry, "ca1", |run| run.status() == RunStatus::Succeeded).await;
    })
    .await;
}

#[tokio::test]
async fn below_min_free_a_worker_takes_no_runs_and_reports_why() {
    let (gantry, _) = with_a_task().await;
    let mut worker = gantry.worker("worker-1");
    worker.settings.min_free = u64::MAX;
    let stop = CancellationToken::new();
    let looking = async {
        loop {
            if let Some(seen) = workers::list(gantry.store.as_ref(), 1).await.unwrap().pop() {
                stop.cancel();
                return seen;
            }
            tokio::task::yield_now().await;
        }
    };
    let ((), seen) = tokio::join!(worker.run(stop.clone()), looking);
    assert!(seen.idle_because.unwrap().contains("less than `worker.min_free`"));
}

#[tokio::test]
async fn only_leftovers_of_dead_attempts_are_removed() {
    let (gantry, task) = with_a_task().await;
    let gate = Gate::closed();
    gantry.engine.script(&TestPipeline::repository("hello"), [Action::Wait(gate.clone())]);
    let worker = gantry.worker("worker-1");
    let installation = worker.settings.installation.clone();
    let leftover = |id: &str, attempt| Leftover {
        kind: LeftoverKind::Container,
        id: id.to_owned(),
        owner: Some(("ca1".parse().unwrap(), attempt)),
    };
    gantry.ask(&task, None).await;
    gantry.schedule().await;
    let checking = async {
        gate.reached().await;
        gantry.engine.leave(&installation, leftover("alive", 1));
        gantry.engine.leave(&installation, leftover("dead", 7));
        let stop = CancellationToken::new();
        let sweeping = gantry.worker("worker-2").run(stop.clone());
        let looking = async {
            while gantry.engine.leftovers(&installation).await.unwrap().len() > 1 {
                tokio::task::yield_now().await;
            }
            stop.cancel();
        };
        tokio::join!(sweeping, looking);
        let left = gantry.engine.leftovers(&installation).await.unwrap();
        assert_eq!(left, [leftover("alive", 1)]);
        gate.open();
    };
    let (worked, ()) = tokio::join!(worker.turn(&gantry.stop), checking);
    assert!(worked.unwrap());
}

#[tokio::test]
async fn a_cancel_during_the_fetch_ends_it() {
    let (gantry, task) = with_a_task().await;
    gantry.git.behave(Behaviour::Silence);
    gantry.ask(&task, None).await;
    gantry.schedule().await;
    let worker = gantry.worker("worker-1");
    let canceling = async {
        until(&gantry, "ca1", |run| run.status() == RunStatus::Started).await;
        runs::cancel(gantry.store.as_ref(), "ca1".parse().unwrap(), &TestPipeline::canceler())
            .await
            .unwrap();
    };
    let (worked, ()) = tokio::join!(worker.turn(&gantry.stop), canceling);
    assert!(worked.unwrap());
    assert_eq!(gantry.run("ca1").await.status(), RunStatus::Canceled);
}

#[tokio::test]
async fn an_unnotified_cancel_ends_the_run_before_its_first_step() {
    let (gantry, task) = with_a_task().await;
    gantry.ask(&task, None).await;
    gantry.schedule().await;
    let mut worker = gantry.worker("worker-1");
    // It never renews in this test, so only the request before the first step can notice the cancellation.
    worker.settings.lease.renew = Duration::from_secs(600);
    let canceling = async {
        until(&gantry, "ca1", |run| run.status() == RunStatus::Started).await;
        runs::cancel(gantry.store.as_ref(), "ca1".parse().unwrap(), &TestPipeline::canceler())
            .await
            .unwrap();
    };
    let (worked, ()) = tokio::join!(worker.turn(&gantry.stop), canceling);
    assert!(worked.unwrap());
    let run = gantry.run("ca1").await;
    assert_eq!(run.status(), RunStatus::Canceled);
    assert_eq!(run.attempts[0].end, gantry_domain::attempt::AttemptEnd::Finished);
    assert_eq!(gantry.engine.asked().len(), 0);
}
