//! A registry, task or hook created again under the name of a deleted one is a new object, and nothing of the old one
//! affects it.

use gantry_domain::decide::planner;
use gantry_domain::registry::Registry;
use gantry_domain::run::RunStatus;
use gantry_domain::sealed::Sealed;
use gantry_domain::task::Task;
use gantry_ops::secret::SecretString;
use gantry_seams::AddError;
use gantry_seams::registries::{self, Deleted};
use gantry_seams::requests::AcceptedRequest;
use gantry_seams::{hooks, tasks};
use gantry_tests::pipeline::{DOCKERFILE, REGISTRY, TestPipeline, create_registry};

/// Deletes the registry `reg` with everything that belongs to it.
async fn delete_registry(gantry: &TestPipeline) {
    let (store, name) = (gantry.store.as_ref(), "reg".parse().unwrap());
    for task in tasks::list(store, Some(&name), None, 10).await.unwrap() {
        assert!(tasks::delete(store, &task.id).await.unwrap());
    }
    for hook in hooks::list(store, Some(&name), None, 10).await.unwrap() {
        hooks::delete(store, &hook).await.unwrap();
    }
    let registry = registries::find(store, &name).await.unwrap().unwrap();
    let deleted = registries::delete(store, &name, registry.prefix).await.unwrap();
    assert_eq!(deleted, Deleted::Gone);
}

/// Creates the registry `reg` again, with this host.
async fn make_again(gantry: &TestPipeline, host: &str) -> Registry {
    delete_registry(gantry).await;
    create_registry(gantry.store.as_ref(), "reg", host, 8).await
}

async fn quick_build(gantry: &TestPipeline, like: &Task, git_token: Option<Sealed>) -> String {
    let draft = |event| {
        let by = TestPipeline::somebody();
        let registry = like.id.registry.clone();
        planner::for_quick_run(registry, like.recipe.clone(), git_token, event, by)
    };
    let AcceptedRequest::Started(run) = gantry.request(draft, None).await else {
        panic!("it is new")
    };
    run.id.to_string()
}

#[tokio::test]
async fn an_event_of_a_former_registry_starts_nothing_in_the_one_that_has_its_name() {
    let gantry = super::start().await;
    let hello = gantry.git.repository("hello").unwrap();
    let commit = hello.commit("main", DOCKERFILE).unwrap();
    gantry.task("hello", "hello:latest").await;
    gantry.settle().await;
    let (event, _) = gantry.deliver("d1", "hello", None, Some(&commit)).await;
    make_again(&gantry, REGISTRY).await;
    gantry.task("hello", "hello:latest").await;
    gantry.settle().await;
    let decision = gantry.decision(&event).await;
    assert!(decision.contains("registry reg was deleted"), "{decision}");
    assert_eq!(gantry.transcript().await, "", "no run was started");
}

#[tokio::test]
async fn a_task_that_is_made_again_builds_a_head_that_the_former_built() {
    let gantry = super::start().await;
    let hello = gantry.git.repository("hello").unwrap();
    let commit = hello.commit("main", DOCKERFILE).unwrap();
    let former = gantry.task("hello", "hello:{{.Run.ID}}").await;
    gantry.settle().await;
    gantry.deliver("d1", "hello", None, Some(&commit)).await;
    gantry.settle().await;
    assert_eq!(gantry.run("ca1").await.status(), RunStatus::Succeeded);

    tasks::delete(gantry.store.as_ref(), &former.id).await.unwrap();
    let task = gantry.task("hello", "hello:{{.Run.ID}}").await;
    assert!(task.created > former.created, "in the same millisecond, by the clock of the store");
    let (event, _) = gantry.deliver("d2", "hello", None, Some(&commit)).await;
    gantry.settle().await;
    let decision = gantry.decision(&event).await;
    assert!(decision.contains("ca2"), "{decision}");
    assert_eq!(gantry.run("ca2").await.status(), RunStatus::Succeeded);
}

#[tokio::test]
async fn a_run_of_a_deleted_registry_is_not_built_for_its_namesake() {
    let gantry = super::start().await;
    gantry.git.repository("hello").unwrap().commit("main", DOCKERFILE).unwrap();
    let task = gantry.task("hello", "hello:latest").await;
    let (waiting, ready) =
        (quick_build(&gantry, &task, None).await, quick_build(&gantry, &task, None).await);
    assert_eq!((waiting.as_str(), ready.as_str()), ("ca1", "ca2"));
    make_again(&gantry, "other.test").await;
    gantry.settle().await;
    for run in ["ca1", "ca2"] {
        let run = gantry.run(run).await;
        assert_eq!(run.status(), RunStatus::Error);
        let why = run.state.done().unwrap().outcome.error().unwrap().message.clone();
        assert_eq!(why, "registry reg was deleted");
    }
}

#[tokio::test]
async fn a_ready_run_of_a_deleted_registry_is_not_pushed_to_its_namesake() {
    let gantry = super::start().await;
    gantry.git.repository("hello").unwrap().commit("main", DOCKERFILE).unwrap();
    let task = gantry.task("hello", "hello:latest").await;
    quick_build(&gantry, &task, None).await;
    gantry.schedule().await;
    make_again(&gantry, "other.test").await;
    gantry.settle().await;
    let run = gantry.run("ca1").await;
    let done = run.state.done().unwrap();
    assert!(done.outcome.error().unwrap().message.contains("registry reg was deleted"), "{done:?}");
}

#[tokio::test]
async fn a_secret_of_a_former_registry_opens_for_no_other() {
    let gantry = super::start().await;
    gantry.git.repository("hello").unwrap().commit("main", DOCKERFILE).unwrap();
    let sealed = gantry
        .keyring
        .seal(&TestPipeline::seals_for(), &SecretString::from("s3cr3t-of-the-former"))
        .unwrap();
    make_again(&gantry, REGISTRY).await;
    let task = gantry.task("hello", "hello:latest").await;
    let run = quick_build(&gantry, &task, Some(sealed)).await;
    assert_eq!(run, "cb1");
    gantry.settle().await;
    let run = gantry.run("cb1").await;
    assert_eq!(run.status(), RunStatus::Error, "{run:?}");
    assert_eq!(run.attempts, [], "no worker got it");
}

#[tokio::test]
async fn limits_do_not_count_runs_of_a_deleted_namesake() {
    let gantry = super::start().await;
    gantry.git.repository("hello").unwrap().commit("main", DOCKERFILE).unwrap();
    let task = gantry.task("hello", "hello:latest").await;
    for _ in 0..8 {
        quick_build(&gantry, &task, None).await;
    }
    gantry.schedule().await;
    assert!(gantry.run("ca8").await.state.holds_a_place());
    let again = make_again(&gantry, REGISTRY).await;
    let task = gantry.task("hello", "hello:latest").await;
    assert_eq!(task.prefix, again.prefix);
    quick_build(&gantry, &task, None).await;
    gantry.schedule().await;
    let run = gantry.run("cb1").await;
    assert!(run.state.holds_a_place(), "{run:?}");
}

#[tokio::test]
async fn deleting_a_registry_conflicts_with_a_concurrent_new_task() {
    let gantry = super::start().await;
    let (store, name) = (gantry.store.as_ref(), "reg".parse().unwrap());
    gantry.git.repository("hello").unwrap().commit("main", DOCKERFILE).unwrap();
    let like = gantry.task("hello", "hello:latest").await;
    delete_registry(&gantry).await;
    let (mut deleted, mut created) = (0, 0);
    for _ in 0..40 {
        let registry = create_registry(store, "reg", REGISTRY, 8).await;
        let task = Task { prefix: registry.prefix, ..like.clone() };
        let outcome = tokio::join!(
            registries::delete(store, &name, registry.prefix),
            tasks::create(store, &task)
        );
        match outcome {
            (Ok(Deleted::Gone), Err(AddError::NoRegistry { .. })) => deleted += 1,
            (Ok(Deleted::StillHasTasks), Ok(_)) => {
                created += 1;
                delete_registry(&gantry).await;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(deleted + created, 40);
    assert!(matches!(
        tasks::create(store, &like).await,
        Err(AddError::NoRegistry { registry }) if registry == name
    ));
}
