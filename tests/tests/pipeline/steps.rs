//! The steps of a run are recorded separately for each attempt.

use std::time::Duration;

use gantry_domain::run::RunStatus;
use gantry_domain::step::{StepEnd, StepKind, StepState, Steps};
use gantry_scheduler::Retention;
use gantry_seams::{runs, steps};
use gantry_tests::pipeline::{LEASE, TestPipeline};
use gantry_worker::engine::scripted::Action;

/// An installation with one ready run, `ca1`.
async fn asked(actions: impl IntoIterator<Item = Action>) -> TestPipeline {
    let gantry = super::start().await;
    gantry.ready_run(actions).await;
    gantry
}

async fn steps_of(gantry: &TestPipeline, attempt: u32) -> Vec<(String, &'static str)> {
    let steps = steps::find(gantry.store.as_ref(), "ca1".parse().unwrap(), attempt).await.unwrap();
    steps.iter().map(|step| (step.id.to_string(), word(&step.state))).collect()
}

fn word(state: &StepState) -> &'static str {
    match state {
        StepState::Waiting => "waiting",
        StepState::Running { .. } => "running",
        StepState::Ended { end: StepEnd::Succeeded { .. }, .. } => "succeeded",
        StepState::Ended { end: StepEnd::Failed { .. }, .. } => "failed",
        StepState::Ended { end: StepEnd::Stopped, .. } => "stopped",
    }
}

fn pair(id: &str, state: &'static str) -> (String, &'static str) {
    (id.to_owned(), state)
}

#[tokio::test]
async fn the_steps_are_build_and_push() {
    let gantry = asked([]).await;
    gantry.settle().await;
    assert_eq!(gantry.run("ca1").await.status(), RunStatus::Succeeded);
    assert_eq!(steps_of(&gantry, 1).await, [pair("build", "succeeded"), pair("push", "succeeded")]);
}

#[tokio::test]
async fn after_a_failed_step_none_begins() {
    let gantry = asked([Action::Exit(3)]).await;
    gantry.settle().await;
    assert_eq!(gantry.run("ca1").await.status(), RunStatus::Failed);
    assert_eq!(steps_of(&gantry, 1).await, [pair("build", "failed"), pair("push", "waiting")]);
}

#[tokio::test]
async fn the_step_of_a_cancelled_run_is_stopped() {
    let gantry = asked([Action::Hang]).await;
    let worker = gantry.worker("worker-1");
    let canceling = async {
        gantry.engine.until_running(1).await;
        let running = [pair("build", "running"), pair("push", "waiting")];
        while steps_of(&gantry, 1).await != running {
            tokio::task::yield_now().await;
        }
        let by = TestPipeline::canceler();
        runs::cancel(gantry.store.as_ref(), "ca1".parse().unwrap(), &by).await.unwrap();
    };
    let (worked, ()) = tokio::join!(worker.turn(&gantry.stop), canceling);
    assert!(worked.unwrap());
    assert_eq!(steps_of(&gantry, 1).await, [pair("build", "stopped"), pair("push", "waiting")]);
}

#[tokio::test]
async fn each_attempt_has_its_own_steps() {
    let gantry = asked([]).await;
    let store = gantry.store.as_ref();
    let (pool, nonce) = ("linux-amd64".parse().unwrap(), "1".repeat(32).parse().unwrap());
    let lost =
        runs::take(store, &pool, &"lost".parse().unwrap(), &nonce, LEASE).await.unwrap().unwrap();
    let mut begun = Steps::planned([("build".parse().unwrap(), StepKind::Build, vec![])]);
    begun.begin(0, gantry.clock.now());
    runs::began(store, lost.run.id, &lost.holder, None, &begun).await.unwrap();
    gantry.clock.advance(LEASE * 2);
    runs::lapse(store, lost.run.id).await.unwrap().unwrap();
    gantry.settle().await;
    assert_eq!(steps_of(&gantry, 1).await, [pair("build", "running")], "nobody knows how far");
    assert_eq!(steps_of(&gantry, 2).await, [pair("build", "succeeded"), pair("push", "succeeded")]);

    let mut scheduler = gantry.scheduler();
    scheduler.settings.retention = Retention { runs: Duration::ZERO, ..Retention::default() };
    gantry.clock.advance(Duration::from_secs(1));
    scheduler.keeper().forget_old().await.unwrap();
    for attempt in [1, 2] {
        assert_eq!(steps_of(&gantry, attempt).await, [], "they go with their run");
    }
}
