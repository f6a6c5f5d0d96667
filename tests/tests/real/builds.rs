//! Builds on a real engine, pushed to a real registry.

use gantry_domain::decide::planner;
use gantry_domain::run::{ErrorCode, RunStatus};
use gantry_domain::task::Task;
use gantry_ops::secret::SecretString;
use gantry_seams::requests::AcceptedRequest;
use gantry_seams::{runs, tasks};
use gantry_tests::backend::Backend;
use gantry_tests::pipeline::{TestPipeline, create_registry, image_build};
use gantry_tests::real;

/// An installation whose registry `real` is the real one.
pub(crate) async fn installation() -> TestPipeline {
    let gantry = TestPipeline::start(Backend::Embedded).await;
    create_registry(gantry.store.as_ref(), "real", &real::registry(), 8).await;
    gantry
}

/// A task in the real registry that builds this Dockerfile.
pub(crate) async fn task(gantry: &TestPipeline, name: &str, dockerfile: &str, image: &str) -> Task {
    let dockerfile = dockerfile.replace("BASE", &real::base_image());
    gantry.git.repository(name).unwrap().commit("main", &[("Dockerfile", &dockerfile)]).unwrap();
    gantry
        .task_with(name, image, |task| {
            task.id = format!("real/{name}").parse().unwrap();
            task.source_trigger = None;
        })
        .await
}

/// Requests a run of a task, and admits it.
pub(crate) async fn ask(gantry: &TestPipeline, task: &Task) -> gantry_domain::id::RunId {
    let draft = |event| {
        let by = TestPipeline::somebody();
        planner::for_task_request(task, task.recipe.clone(), event, by)
    };
    let AcceptedRequest::Started(run) = gantry.request(draft, None).await else {
        panic!("it is new")
    };
    gantry.schedule().await;
    run.id
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_pushes_the_committed_content_under_its_id() {
    let gantry = installation().await;
    let name = unique("hello");
    let task = task(
        &gantry,
        &name,
        "FROM BASE\nRUN echo built > /word\n",
        &format!("{name}:{{{{.Run.ID}}}}"),
    )
    .await;
    let id = ask(&gantry, &task).await;
    assert!(gantry.real_worker("w").turn(&gantry.stop).await.unwrap());
    let run = runs::find(gantry.store.as_ref(), id).await.unwrap().unwrap();
    let log = gantry.log(&id.to_string(), 1).await;
    assert_eq!(run.status(), RunStatus::Succeeded, "{:?}\n{log}", run.state);
    let product = run.state.done().unwrap().outcome.product().unwrap().clone();
    assert_eq!(product.outputs[0].image.to_string(), format!("{}/{name}:{id}", real::registry()));
    assert_eq!(product.bases[0].image.to_string(), real::base_image());
    assert!(log.contains("RUN echo built > /word"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fixed_tag_is_pushed_through_a_staging_tag() {
    let gantry = installation().await;
    let name = unique("staged");
    let task =
        task(&gantry, &name, "FROM BASE\nRUN echo staged\n", &format!("{name}:latest")).await;
    let id = ask(&gantry, &task).await;
    gantry.real_worker("w").turn(&gantry.stop).await.unwrap();
    let run = runs::find(gantry.store.as_ref(), id).await.unwrap().unwrap();
    assert_eq!(run.status(), RunStatus::Succeeded, "{:?}", run.state);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_step_is_failed_with_its_exit_code() {
    let gantry = installation().await;
    let name = unique("failing");
    let task = task(&gantry, &name, "FROM BASE\nRUN echo before; exit 42\n", &name).await;
    let id = ask(&gantry, &task).await;
    gantry.real_worker("w").turn(&gantry.stop).await.unwrap();
    let run = runs::find(gantry.store.as_ref(), id).await.unwrap().unwrap();
    let error = run.state.done().unwrap().outcome.error().unwrap();
    assert_eq!((error.code, error.exit_code), (ErrorCode::StepFailed, Some(42)), "{error}");
    assert!(gantry.log(&id.to_string(), 1).await.contains("before"));
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_equal_builds_see_only_their_own_secret() {
    let gantry = installation().await;
    let dockerfile =
        "FROM BASE\nARG TOKEN\nRUN sleep 1; echo -n \"$TOKEN\" | md5sum; echo said $TOKEN\n";
    let mut ids = Vec::new();
    for secret in ["first-secret", "second-secret"] {
        let name = unique(&secret[..5]);
        let mut one = task(&gantry, &name, dockerfile, &name).await;
        let seals_for = gantry_domain::registry::Registry::seals_for(one.prefix);
        let sealed = gantry.keyring.seal(&seals_for, &SecretString::from(secret)).unwrap();
        image_build(&mut one.recipe)
            .secret_build_args
            .insert("TOKEN".parse().unwrap(), sealed.clone());
        tasks::update(gantry.store.as_ref(), &one.id, |task| {
            image_build(&mut task.recipe)
                .secret_build_args
                .insert("TOKEN".parse().unwrap(), sealed.clone());
        })
        .await
        .unwrap();
        ids.push(ask(&gantry, &one).await);
    }
    let (one, other) = (gantry.real_worker("one"), gantry.real_worker("other"));
    let (first, second) = tokio::join!(one.turn(&gantry.stop), other.turn(&gantry.stop));
    assert!(first.unwrap() && second.unwrap());
    let logs = [gantry.log(&ids[0].to_string(), 1).await, gantry.log(&ids[1].to_string(), 1).await];
    let sum = |log: &str| {
        let line =
            log.lines().find(|line| line.ends_with("  -")).unwrap_or_else(|| panic!("{log}"));
        line.to_owned()
    };
    assert_ne!(sum(&logs[0]), sum(&logs[1]));
    for log in &logs {
        assert!(log.contains("said ***"), "{log}");
        assert!(!log.contains("-secret"), "{log}");
    }
}

/// A unique name, because the registry may be reused between test runs.
pub(crate) fn unique(name: &str) -> String {
    format!("{name}-{}", gantry_ops::secret::random_hex::<6>().unwrap().as_str())
}
