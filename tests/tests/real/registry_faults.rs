//! Whole runs on the real engine with a failing registry: they are retried, and never the user's failure.

use std::time::Duration;

use bollard::Docker;
use gantry_domain::attempt::AttemptEnd;
use gantry_domain::id::RunId;
use gantry_domain::run::{ErrorCode, Run, RunStatus};
use gantry_seams::runs;
use gantry_tests::backend::Backend;
use gantry_tests::faulty_registry::{Fault, FaultyRegistry};
use gantry_tests::on_each_engine;
use gantry_tests::pipeline::{TestPipeline, create_registry};
use gantry_tests::real::{self, Engine};
use gantry_worker::Worker;

use crate::builds::{ask, unique};

on_each_engine! { slow on the default engine:
    what_passes_soon_costs_no_attempt,
    a_broken_layer_upload_costs_at_most_one_attempt,
    a_push_that_breaks_off_at_its_manifest_and_an_image_that_is_another_are_tried_again,
    a_registry_that_wants_to_be_left_alone_is_for_as_long_as_ten_minutes,
    a_registry_that_stays_broken_ends_the_run_as_error_after_three_attempts,
}

/// A run that pushes to the registry with the tag `tag`.
struct Pushing {
    gantry: TestPipeline,
    engine: Engine,
    registry: FaultyRegistry,
    run: RunId,
}

impl Pushing {
    async fn start(engine: Engine, tag: &str) -> Self {
        let gantry = TestPipeline::start(Backend::Embedded).await;
        let registry = FaultyRegistry::start(&real::registry()).await.unwrap();
        create_registry(gantry.store.as_ref(), "real", &registry.host(), 8).await;
        let name = unique("faults");
        let dockerfile = format!("FROM {}/busybox:1\nRUN echo {name} > /word\n", registry.host());
        let files = [("Dockerfile", dockerfile.as_str())];
        gantry.git.repository(&name).unwrap().commit("main", &files).unwrap();
        let task = gantry
            .task_with(&name, &format!("{name}:{tag}"), |task| {
                task.id = format!("real/{name}").parse().unwrap();
                task.source_trigger = None;
            })
            .await;
        let run = ask(&gantry, &task).await;
        Self { gantry, engine, registry, run }
    }

    fn worker(&self) -> Worker {
        self.gantry.real_worker_on("w", &self.engine.docker_host())
    }

    /// Executes one attempt.
    async fn turn(&self) -> Run {
        assert!(self.worker().turn(&self.gantry.stop).await.unwrap());
        self.run().await
    }

    async fn run(&self) -> Run {
        runs::find(self.gantry.store.as_ref(), self.run).await.unwrap().unwrap()
    }

    /// Executes the next attempt, after its pause.
    async fn turn_after(&self, pause: Duration) -> Run {
        self.gantry.clock.advance(pause);
        self.gantry.schedule().await;
        self.turn().await
    }
}

/// Whether the engine has the containerd image store; the default engine may have it as well.
async fn has_containerd_store(on: Engine) -> bool {
    let address = on.docker_host();
    let docker = Docker::connect_with_unix(&address, 60, bollard::API_DEFAULT_VERSION).unwrap();
    let status = docker.info().await.unwrap().driver_status.unwrap_or_default();
    status.iter().flatten().any(|word| word.contains("containerd.snapshotter"))
}

fn succeeded(run: &Run, attempts: usize) {
    assert_eq!((run.status(), run.attempts.len()), (RunStatus::Succeeded, attempts), "{run:#?}");
}

/// Checks that the last attempt failed because of the infrastructure, and that there will be another one.
fn waits(run: &Run, words: &str) {
    assert_eq!(run.status(), RunStatus::Queued, "{run:#?}");
    let end = &run.attempts.last().unwrap().end;
    let (AttemptEnd::InfrastructureFailed { error } | AttemptEnd::Unavailable { error }) = end
    else {
        panic!("{end:?}")
    };
    assert!(error.contains(words), "{error}");
}

async fn what_passes_soon_costs_no_attempt(on: Engine) {
    let one = Pushing::start(on, "latest").await;
    one.registry.plan(1, "GET", "/v2/", Fault::Status(429, Some(1)));
    one.registry.plan(1, "HEAD", "/busybox/manifests/1", Fault::Status(502, None));
    if !has_containerd_store(on).await {
        // With the classic store the engine itself retries a layer after five seconds.
        one.registry.plan(1, "PATCH", "/blobs/uploads/", Fault::BreaksAfter(1));
    }
    one.registry.plan(1, "PUT", "/manifests/latest", Fault::Status(500, None));
    one.registry.plan(1, "PUT", "/manifests/latest", Fault::BreaksAfter(64));
    succeeded(&one.turn().await, 1);
    assert!(one.registry.is_done(), "{:#?}", one.registry.requests());
}

async fn a_broken_layer_upload_costs_at_most_one_attempt(on: Engine) {
    let one = Pushing::start(on, "latest").await;
    // The containerd store uploads a layer in one request, and does not retry it.
    let method = if has_containerd_store(on).await { "PUT" } else { "PATCH" };
    one.registry.plan(1, method, "/blobs/uploads/", Fault::BreaksAfter(1));
    let run = one.turn().await;
    if run.status() == RunStatus::Queued {
        waits(&run, "could not take");
        succeeded(&one.turn_after(Duration::from_secs(6)).await, 2);
    } else {
        succeeded(&run, 1);
    }
    assert!(one.registry.is_done(), "{:#?}", one.registry.requests());
}

async fn a_push_that_breaks_off_at_its_manifest_and_an_image_that_is_another_are_tried_again(
    on: Engine,
) {
    let one = Pushing::start(on, "{{.Run.ID}}").await;
    one.registry.plan(1, "PUT", "/manifests/", Fault::BreaksAfter(64));
    waits(&one.turn().await, "EOF");
    one.registry.plan(1, "GET", "/manifests/gantry-staging-", Fault::WrongBody);
    waits(&one.turn_after(Duration::from_secs(6)).await, "is not the one of its digest");
    succeeded(&one.turn_after(Duration::from_secs(25)).await, 3);
}

async fn a_registry_that_wants_to_be_left_alone_is_for_as_long_as_ten_minutes(on: Engine) {
    let one = Pushing::start(on, "latest").await;
    one.registry.plan(1, "PUT", "/manifests/latest", Fault::Status(429, Some(86_400)));
    waits(&one.turn().await, "429 Too Many Requests, and wants to be left alone for 86400s");
    one.gantry.clock.advance(Duration::from_secs(590));
    one.gantry.schedule().await;
    // The scan of its task is all that can be taken.
    while one.worker().turn(&one.gantry.stop).await.unwrap() {}
    waits(&one.run().await, "429");
    succeeded(&one.turn_after(Duration::from_secs(20)).await, 2);
}

async fn a_registry_that_stays_broken_ends_the_run_as_error_after_three_attempts(on: Engine) {
    let one = Pushing::start(on, "latest").await;
    one.registry.plan(usize::MAX, "PUT", "/manifests/gantry-staging-", Fault::Status(500, None));
    waits(&one.turn().await, "500");
    waits(&one.turn_after(Duration::from_secs(6)).await, "500");
    let run = one.turn_after(Duration::from_secs(25)).await;
    let error = run.state.done().unwrap().outcome.error().unwrap();
    assert_eq!((run.status(), error.code), (RunStatus::Error, ErrorCode::RegistryUnavailable));
    assert!(error.to_string().contains("could not take"), "{error}");
    assert_eq!(run.attempts.len(), 3);
}
