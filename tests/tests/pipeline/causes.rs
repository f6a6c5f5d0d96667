//! What goes wrong, whose fault it is, and what the run says of it.

use gantry_domain::decide::planner;
use gantry_domain::event::{Event, EventKind};
use gantry_domain::run::{ErrorCode, Run, RunStatus};
use gantry_domain::task::Task;
use gantry_seams::requests::{self, Accepted, Idempotency, RunRequest};
use gantry_tests::git_server::Behaviour;
use gantry_tests::pipeline::TestPipeline;
use gantry_worker::engine::scripted::{Action, PushFailure};

const DOCKERFILE: &[(&str, &str)] = &[("Dockerfile", "FROM registry.test/busybox:1\nRUN true\n")];

/// Somebody asks for a run of a task.
pub(crate) async fn ask(gantry: &TestPipeline, task: &Task, key: Option<&str>) -> Accepted {
    let by = TestPipeline::somebody();
    let number = gantry.transcript().await.lines().count();
    let event = Event {
        id: format!("request/{number}").parse().unwrap(),
        registry: task.id.registry.clone(),
        received: gantry.clock.now(),
        trace: None,
        kind: EventKind::Requested { by: by.clone(), task: Some(task.id.clone()), rerun_of: None },
    };
    let request = RunRequest {
        draft: planner::for_task_request(task, task.build.clone(), event.id.clone(), by),
        event,
        prefix: "ca".parse().unwrap(),
        idempotency: key.map(|key| Idempotency {
            key: key.to_owned(),
            asked: task.id.to_string().into_bytes(),
        }),
    };
    requests::accept(gantry.store.as_ref(), request, gantry.keyring.as_ref()).await.unwrap()
}

/// The end of a run of a task that pushes to `hello`, after `prepare` has had its way.
async fn end_of_run(prepare: impl AsyncFnOnce(&TestPipeline, &mut Task)) -> Run {
    let gantry = super::start().await;
    gantry.git.repository("hello").unwrap().commit("main", DOCKERFILE).unwrap();
    let mut task = gantry.task("hello", "hello:{{.Run.ID}}").await;
    gantry.schedule().await;
    prepare(&gantry, &mut task).await;
    ask(&gantry, &task, None).await;
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
    let Accepted::Started(run) = ask(&gantry, &task, Some("k")).await else { panic!("it is new") };
    assert_eq!(ask(&gantry, &task, Some("k")).await, Accepted::Repeated(run.id));
    gantry.settle().await;
    assert_eq!(
        gantry.transcript().await,
        "ca1 Succeeded asked for with token t1 -> registry.test/hello:ca1"
    );
}

#[tokio::test]
async fn a_failing_step_is_the_user_s_and_tells_its_exit_code() {
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
async fn an_unknown_branch_is_the_user_s() {
    let run = end_of_run(async |gantry, task| {
        task.build.source = format!("{}#nowhere", gantry.git.url("hello")).parse().unwrap();
    })
    .await;
    let (status, code, text) = error(&run);
    assert_eq!((status, code), (RunStatus::Failed, ErrorCode::SourceNotFound));
    assert!(text.contains("`nowhere` is not in") && text.contains("check the branch"), "{text}");
}

#[tokio::test]
async fn a_missing_dockerfile_is_the_user_s() {
    let run =
        end_of_run(async |_, task| task.build.dockerfile = "app/Dockerfile".parse().unwrap()).await;
    let (status, code, text) = error(&run);
    assert_eq!((status, code), (RunStatus::Failed, ErrorCode::DockerfileNotFound));
    assert!(text.contains("there is no `app/Dockerfile` in the source"), "{text}");
}

#[tokio::test]
async fn wrong_git_credentials_are_the_user_s() {
    let run = end_of_run(async |gantry, _| gantry.git.require("mona", "right")).await;
    let (status, code, text) = error(&run);
    assert_eq!((status, code), (RunStatus::Failed, ErrorCode::SourceUnauthorized));
    assert!(text.contains("--git-access-token"), "{text}");
}

#[tokio::test]
async fn a_git_host_that_is_away_is_tried_three_times() {
    let run = end_of_run(async |gantry, _| gantry.git.behave(Behaviour::Status(502))).await;
    let (status, code, text) = error(&run);
    assert_eq!((status, code), (RunStatus::Error, ErrorCode::SourceUnreachable), "{text}");
    assert_eq!(run.attempts.len(), 3);
}

#[tokio::test]
async fn wrong_registry_credentials_are_found_before_the_build() {
    let run = end_of_run(async |gantry, _| gantry.registries.demand("right")).await;
    let (status, code, text) = error(&run);
    assert_eq!((status, code), (RunStatus::Failed, ErrorCode::RegistryUnauthorized));
    assert!(text.contains("registry.test refused access"), "{text}");
}

#[tokio::test]
async fn a_registry_that_answers_5xx_is_tried_again() {
    let run = end_of_run(async |gantry, _| gantry.registries.fail([503])).await;
    assert_eq!(run.status(), RunStatus::Succeeded);
    assert_eq!(run.attempts.len(), 2);
}

#[tokio::test]
async fn a_push_that_the_registry_cannot_take_is_tried_again() {
    let run = end_of_run(async |gantry, _| {
        gantry.engine.fail_push(&TestPipeline::repository("hello"), PushFailure::Registry);
    })
    .await;
    assert_eq!((run.status(), run.attempts.len()), (RunStatus::Succeeded, 2));
}

#[tokio::test]
async fn a_missing_base_is_the_user_s() {
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
async fn a_full_disk_and_an_engine_that_goes_away_are_the_infrastructure_s() {
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
