//! Failures of runs: whose fault they are, and what the run reports.

use std::time::Duration;

use gantry_domain::run::{ErrorCode, Run, RunState, RunStatus};
use gantry_domain::task::Task;
use gantry_seams::requests::AcceptedRequest;
use gantry_seams::runs;
use gantry_tests::git_server::Behaviour;
use gantry_tests::pipeline::{DOCKERFILE, TestPipeline, image_build};
use gantry_worker::engine::scripted::{Action, PushFailure};

/// The end of a run of a task that pushes to `hello`, after `prepare`.
async fn end_of_run(prepare: impl AsyncFnOnce(&TestPipeline, &mut Task)) -> Run {
    let gantry = super::start().await;
    gantry.git.repository("hello").unwrap().commit("main", DOCKERFILE).unwrap();
    let mut task = gantry.task("hello", "hello:{{.Run.ID}}").await;
    gantry.schedule().await;
    prepare(&gantry, &mut task).await;
    gantry.ask(&task, None).await;
    gantry.settle().await;
    gantry.run("ca1").await
}

fn error(run: &Run) -> (RunStatus, ErrorCode, String) {
    let error = run.state.done().unwrap().outcome.error().expect("it went wrong");
    (run.status(), error.code, error.to_string())
}

#[tokio::test]
async fn a_request_with_the_same_key_is_the_same_run() {
    let gantry = super::start().await;
    gantry.git.repository("hello").unwrap().commit("main", DOCKERFILE).unwrap();
    let task = gantry.task("hello", "hello:{{.Run.ID}}").await;
    let AcceptedRequest::Started(run) = gantry.ask(&task, Some("k")).await else {
        panic!("it is new")
    };
    assert_eq!(gantry.ask(&task, Some("k")).await, AcceptedRequest::Repeated(run.id));
    gantry.settle().await;
    assert_eq!(
        gantry.transcript().await,
        "ca1 Succeeded asked for with token t1 -> registry.test/hello:ca1"
    );
}

#[tokio::test]
async fn a_failing_step_is_a_user_error_with_its_exit_code() {
    let run = end_of_run(async |gantry, _| {
        gantry.engine.script(&TestPipeline::repository("hello"), [Action::Exit(42)]);
    })
    .await;
    let (status, code, text) = error(&run);
    assert_eq!((status, code), (RunStatus::Failed, ErrorCode::StepFailed));
    assert!(
        text.starts_with("step `build`: ") && text.ends_with("ended with exit code 42"),
        "{text}"
    );
    assert_eq!(run.state.done().unwrap().outcome.error().unwrap().exit_code, Some(42));
    assert_eq!(run.attempts.len(), 1);
}

#[tokio::test]
async fn an_unknown_branch_is_a_user_error() {
    let run = end_of_run(async |gantry, task| {
        task.recipe.source = format!("{}#nowhere", gantry.git.url("hello")).parse().unwrap();
    })
    .await;
    let (status, code, text) = error(&run);
    assert_eq!((status, code), (RunStatus::Failed, ErrorCode::SourceNotFound));
    assert!(
        text.contains("`nowhere` is not in") && text.contains("check the name of the branch"),
        "{text}"
    );
}

#[tokio::test]
async fn a_missing_dockerfile_is_a_user_error() {
    let run = end_of_run(async |_, task| {
        image_build(&mut task.recipe).dockerfile = "app/Dockerfile".parse().unwrap()
    })
    .await;
    let (status, code, text) = error(&run);
    assert_eq!((status, code), (RunStatus::Failed, ErrorCode::DockerfileNotFound));
    assert!(text.contains("there is no `app/Dockerfile` in the source"), "{text}");
}

#[tokio::test]
async fn wrong_git_credentials_are_a_user_error() {
    let run = end_of_run(async |gantry, _| gantry.git.require("mona", "right")).await;
    let (status, code, text) = error(&run);
    assert_eq!((status, code), (RunStatus::Failed, ErrorCode::SourceUnauthorized));
    assert!(text.contains("--git-access-token"), "{text}");
}

#[tokio::test]
async fn a_failing_git_host_is_tried_three_times() {
    let run = end_of_run(async |gantry, _| gantry.git.behave(Behaviour::Status(500))).await;
    let (status, code, text) = error(&run);
    assert_eq!((status, code), (RunStatus::Error, ErrorCode::SourceUnreachable), "{text}");
    assert_eq!(run.attempts.len(), 3);
}

#[tokio::test]
async fn a_git_host_that_stays_away_is_waited_for_an_hour_and_named() {
    let run = end_of_run(async |gantry, _| gantry.git.behave(Behaviour::Status(502))).await;
    let (status, code, text) = error(&run);
    assert_eq!((status, code), (RunStatus::Error, ErrorCode::SourceUnreachable), "{text}");
    assert!(
        text.contains("/hello.git did not answer") && text.contains("gave up after 6"),
        "{text}"
    );
    assert!((10..30).contains(&run.attempts.len()), "{}", run.attempts.len());
    let waited = run.state.done().unwrap().at.since(run.attempts[0].ended);
    assert!((3600..4200).contains(&waited.as_secs()), "{waited:?}");
    assert!(run.attempts.iter().rev().skip(1).all(|attempt| !attempt.end.counts()));
}

#[tokio::test]
async fn an_outage_costs_no_attempt_and_the_run_says_what_is_away_since_when() {
    type Change = fn(&TestPipeline);
    let outages: [(&str, Change, Change); 3] = [
        (
            "/hello.git did not answer",
            |gantry| gantry.git.behave(Behaviour::Status(503)),
            |gantry| gantry.git.behave(Behaviour::Serve),
        ),
        ("registry.test could not answer", |gantry| gantry.registries.fail(vec![503; 7]), |_| {}),
        (
            "the container engine at",
            |gantry| gantry.engine.go_away(),
            |gantry| gantry.engine.come_back(),
        ),
    ];
    for (words, away, back) in outages {
        let gantry = super::start().await;
        gantry.git.repository("hello").unwrap().commit("main", DOCKERFILE).unwrap();
        let task = gantry.task("hello", "hello:{{.Run.ID}}").await;
        gantry.settle().await;
        away(&gantry);
        gantry.ask(&task, None).await;
        let began = gantry.clock.now();
        let worker = gantry.worker("worker-1");
        for pause in [5, 10, 20, 40, 80, 160, 300] {
            gantry.schedule().await;
            assert!(worker.turn(&gantry.stop).await.unwrap(), "{words}: {pause}");
            let run = gantry.run("ca1").await;
            let RunState::Waiting { reason, .. } = &run.state else { panic!("{:?}", run.state) };
            let until = gantry.clock.now().after(Duration::from_secs(pause));
            let said = reason.to_string();
            let since = format!("missing since {began}; it is tried again at {until}: ");
            assert!(said.contains(&since) && said.contains(words), "{said}");
            // It is not retried before the pause is over.
            gantry.schedule().await;
            assert!(!worker.turn(&gantry.stop).await.unwrap(), "{words}: {pause}");
            gantry.clock.advance(Duration::from_secs(pause));
        }
        back(&gantry);
        gantry.settle().await;
        let run = gantry.run("ca1").await;
        assert_eq!((run.status(), run.attempts.len()), (RunStatus::Succeeded, 8), "{words}");
    }
}

#[tokio::test]
async fn a_run_waiting_for_an_outage_can_be_cancelled() {
    let gantry = super::start().await;
    gantry.git.repository("hello").unwrap().commit("main", DOCKERFILE).unwrap();
    let task = gantry.task("hello", "hello:{{.Run.ID}}").await;
    gantry.schedule().await;
    gantry.git.behave(Behaviour::Status(503));
    gantry.ask(&task, None).await;
    gantry.schedule().await;
    assert!(gantry.worker("worker-1").turn(&gantry.stop).await.unwrap());
    let somebody = TestPipeline::canceler();
    runs::cancel(gantry.store.as_ref(), "ca1".parse().unwrap(), &somebody).await.unwrap();
    assert_eq!(gantry.run("ca1").await.status(), RunStatus::Canceled);
}

#[tokio::test]
async fn a_pushed_commit_that_the_host_does_not_show_yet_is_waited_for() {
    for is_shown_in_time in [true, false] {
        let gantry = super::start().await;
        let hello = gantry.git.repository("hello").unwrap();
        let first = hello.commit("main", DOCKERFILE).unwrap();
        gantry.task("hello", "hello:{{.Run.ID}}").await;
        gantry.schedule().await;
        // The host has sent a hook for a commit that the server which is asked does not have yet.
        hello.git(&["commit", "-q", "--allow-empty", "-m", "2"]).unwrap();
        let second = hello.git(&["rev-parse", "HEAD"]).unwrap();
        hello.hide(&second).unwrap();
        gantry.deliver("d2", "hello", Some(&first), Some(&second)).await;
        gantry.schedule().await;
        assert!(gantry.worker("worker-1").turn(&gantry.stop).await.unwrap());
        let run = gantry.run("ca1").await;
        let RunState::Waiting { reason, .. } = &run.state else { panic!("{:?}", run.state) };
        assert!(reason.to_string().contains(&format!("`{second}` is not in")), "{reason}");
        if is_shown_in_time {
            hello.show(&second).unwrap();
            hello.git(&["push", "-q", "origin", "HEAD:refs/heads/main"]).unwrap();
        }
        gantry.settle().await;
        let run = gantry.run("ca1").await;
        if is_shown_in_time {
            assert_eq!((run.status(), run.attempts.len()), (RunStatus::Succeeded, 2));
        } else {
            let (status, code, _) = error(&run);
            assert_eq!((status, code), (RunStatus::Failed, ErrorCode::SourceNotFound));
            let waited = run.state.done().unwrap().at.since(run.attempts[0].ended);
            assert!((180..600).contains(&waited.as_secs()), "{waited:?}");
        }
    }
}

#[tokio::test]
async fn wrong_registry_credentials_are_found_before_the_build() {
    let run = end_of_run(async |gantry, _| gantry.registries.demand("right")).await;
    let (status, code, text) = error(&run);
    assert_eq!((status, code), (RunStatus::Failed, ErrorCode::RegistryUnauthorized));
    assert!(text.contains("registry.test refused access"), "{text}");
}

#[tokio::test]
async fn a_registry_answering_5xx_is_retried() {
    let run = end_of_run(async |gantry, _| gantry.registries.fail([503])).await;
    assert_eq!(run.status(), RunStatus::Succeeded);
    assert_eq!(run.attempts.len(), 2);
}

#[tokio::test]
async fn a_refused_push_is_retried() {
    let run = end_of_run(async |gantry, _| {
        gantry.engine.fail_push(&TestPipeline::repository("hello"), PushFailure::Registry);
    })
    .await;
    assert_eq!((run.status(), run.attempts.len()), (RunStatus::Succeeded, 2));
}

#[tokio::test]
async fn a_missing_base_is_a_user_error() {
    let run = end_of_run(async |gantry, _| {
        let hello = gantry.git.repository("hello").unwrap();
        hello.commit("main", &[("Dockerfile", "FROM registry.test/nothing:1\n")]).unwrap();
    })
    .await;
    let (status, code, text) = error(&run);
    assert_eq!((status, code), (RunStatus::Failed, ErrorCode::BaseNotFound));
    assert!(text.contains("registry.test/nothing:1 is not in registry.test"), "{text}");
}

#[tokio::test]
async fn full_disks_and_lost_engines_are_infrastructure_errors() {
    let run = end_of_run(async |gantry, _| {
        gantry.engine.script(&TestPipeline::repository("hello"), [Action::FillDisk]);
    })
    .await;
    assert_eq!((run.status(), run.attempts.len()), (RunStatus::Succeeded, 2));
    let first = format!("{:?}", run.attempts[0].end);
    assert!(first.contains("the engine's disk is full: free space under its data root"), "{first}");

    let run = end_of_run(async |gantry, _| {
        gantry.engine.script(&TestPipeline::repository("hello"), [Action::GoAway]);
    })
    .await;
    let (status, code, text) = error(&run);
    assert_eq!((status, code), (RunStatus::Error, ErrorCode::EngineUnavailable));
    assert!(text.contains("is it running"), "{text}");
}

#[tokio::test]
async fn an_image_that_is_not_the_one_that_was_built_is_pushed_again_and_never_tagged() {
    // Another process replaces the image once, or at every push of the first attempt.
    for (times, attempts) in [(1, 1), (5, 2)] {
        let gantry = super::start().await;
        let hello = gantry.git.repository("hello").unwrap();
        hello.commit("main", DOCKERFILE).unwrap();
        let task =
            gantry.task_with("hello", "hello:latest", |task| task.source_trigger = None).await;
        gantry.schedule().await;
        gantry.ask(&task, None).await;
        gantry.settle().await;
        let another = gantry.registries.tag("registry.test/hello:latest").unwrap();

        hello.commit("main", &[("file", "changed")]).unwrap();
        for _ in 0..times {
            gantry.engine.exchange_push(&TestPipeline::repository("hello"), &another);
        }
        gantry.ask(&task, None).await;
        gantry.settle().await;
        let run = gantry.run("ca2").await;
        assert_eq!((run.status(), run.attempts.len()), (RunStatus::Succeeded, attempts), "{run:?}");
        let product = run.state.done().unwrap().outcome.product().unwrap();
        let tag = gantry.registries.tag("registry.test/hello:latest").unwrap();
        assert_eq!(tag, product.outputs[0].digest);
        assert_ne!(tag, another, "the tag shows what the run built");
        let first = format!("{:?}", run.attempts[0].end);
        assert_eq!(first.contains("is not the image that was built"), attempts == 2, "{first}");
    }
}
