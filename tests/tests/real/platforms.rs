//! Images for other platforms than the engine's, through emulation and in other pools.

use std::sync::Arc;

use gantry_domain::id::PoolName;
use gantry_domain::image::{Digest, ImageReference};
use gantry_domain::platform::Platform;
use gantry_domain::run::RunStatus;
use gantry_domain::task::Task;
use gantry_domain::worker::{EngineHealth, Worker as WorkerRecord};
use gantry_seams::{runs, workers};
use gantry_tests::narrow_engine::NarrowEngine;
use gantry_tests::pipeline::TestPipeline;
use gantry_tests::real;
use gantry_worker::engine::Engine as _;
use gantry_worker::engine::docker::DockerEngine;
use serde_json::Value;

use crate::builds::{ask, installation, unique};

/// A worker that reports what the real engine builds for.
async fn reported_worker(gantry: &TestPipeline) -> Vec<Platform> {
    let engine = DockerEngine::connect(&real::docker_host()).unwrap();
    let platforms = engine.platforms().await.unwrap();
    report(gantry, "w", Platform::default().pool(), &platforms).await;
    platforms
}

async fn report(gantry: &TestPipeline, id: &str, pool: PoolName, platforms: &[Platform]) {
    let record = WorkerRecord {
        id: id.parse().unwrap(),
        has_fixed_name: true,
        pool,
        platforms: platforms.to_vec(),
        slots: 2,
        runs: Vec::new(),
        version: "1".to_owned(),
        engine: EngineHealth::Ready { name: "an engine".to_owned() },
        free_disk: None,
        idle_because: None,
        last_seen: gantry.clock.now(),
    };
    workers::record_seen(gantry.store.as_ref(), &record).await.unwrap();
}

/// An image whose steps execute a busybox of its platform.
const DOCKERFILE: &str = "FROM scratch\nARG TARGETARCH\nCOPY busybox-$TARGETARCH /busybox\nRUN [\"/busybox\", \"uname\", \"-m\"]\n";

/// A task that builds an image from a static busybox of each platform.
async fn busybox_task(
    gantry: &TestPipeline,
    name: &str,
    platforms: &str,
    dockerfile: &str,
) -> Task {
    let repository = gantry.git.repository(name).unwrap();
    for (architecture, busybox) in
        [("arm64", real::arm64_busybox()), ("amd64", "/bin/busybox".into())]
    {
        let busybox = std::fs::read(busybox).unwrap();
        repository.write_program(&format!("busybox-{architecture}"), &busybox).unwrap();
    }
    repository.commit("main", &[("Dockerfile", dockerfile)]).unwrap();
    gantry
        .task_with(name, &format!("{name}:{{{{.Run.ID}}}}"), |task| {
            task.id = format!("real/{name}").parse().unwrap();
            task.source_trigger = None;
            task.recipe.platforms = platforms.parse().unwrap();
        })
        .await
}

/// Asks the registry for a manifest or blob of a repository.
async fn get(repository: &str, kind: &str, reference: &str) -> reqwest::Response {
    let _already = rustls::crypto::ring::default_provider().install_default();
    let url = format!("http://{}/v2/{repository}/{kind}/{reference}", real::registry());
    let accept = "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, \
                  application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json";
    reqwest::Client::new().get(url).header("accept", accept).send().await.unwrap()
}

/// What the tag of an image points to.
async fn tagged(image: &ImageReference) -> Option<Digest> {
    let (repository, tag) = (image.repository().as_str(), image.tag().unwrap().as_str());
    let answer = get(repository, "manifests", tag).await;
    if answer.status() == reqwest::StatusCode::NOT_FOUND {
        return None;
    }
    let digest = answer.headers()["docker-content-digest"].to_str().unwrap();
    Some(digest.parse().unwrap())
}

async fn read(repository: &str, kind: &str, digest: &Digest) -> Value {
    let answer = get(repository, kind, digest.as_str()).await.error_for_status().unwrap();
    serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap()
}

/// The platform in the configuration of an image.
async fn platform_of(repository: &str, manifest: &Digest) -> String {
    let manifest = read(repository, "manifests", manifest).await;
    let configuration = manifest["config"]["digest"].as_str().unwrap().parse().unwrap();
    let configuration = read(repository, "blobs", &configuration).await;
    let word = |name: &str| configuration[name].as_str().unwrap().to_owned();
    format!("{}/{}", word("os"), word("architecture"))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_for_arm64_is_built_through_emulation_and_says_so() {
    let gantry = installation().await;
    let arm: Platform = "linux/arm64".parse().unwrap();
    let platforms = reported_worker(&gantry).await;
    assert!(
        platforms.contains(&arm),
        "the engine has {platforms:?}: `deploy/bootstrap.sh install test` registers QEMU"
    );
    let name = unique("emulated");
    let task = busybox_task(&gantry, &name, "linux/arm64", DOCKERFILE).await;
    let id = ask(&gantry, &task).await;
    assert!(gantry.real_worker("w").turn(&gantry.stop).await.unwrap());

    let run = runs::find(gantry.store.as_ref(), id).await.unwrap().unwrap();
    let log = gantry.log(&id.to_string(), 1).await;
    assert_eq!(run.status(), RunStatus::Succeeded, "{:?}\n{log}", run.state);
    assert!(log.contains("aarch64"), "{log}");
    let pushed = run.state.done().unwrap().outcome.product().unwrap().outputs[0].clone();
    let expected: ImageReference = format!("{}/{name}:{id}", real::registry()).parse().unwrap();
    assert_eq!(pushed.image, expected);
    assert_eq!(platform_of(&name, &pushed.digest).await, "linux/arm64");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_has_an_image_for_each_platform_and_each_is_what_it_says() {
    let gantry = installation().await;
    reported_worker(&gantry).await;
    let name = unique("several");
    let task = busybox_task(&gantry, &name, "linux/arm64,linux/amd64", DOCKERFILE).await;
    let id = ask(&gantry, &task).await;
    assert!(gantry.real_worker("w").turn(&gantry.stop).await.unwrap());

    let run = runs::find(gantry.store.as_ref(), id).await.unwrap().unwrap();
    let log = gantry.log(&id.to_string(), 1).await;
    assert_eq!(run.status(), RunStatus::Succeeded, "{:?}\n{log}", run.state);
    assert!(log.contains("aarch64") && log.contains("x86_64"), "{log}");
    let pushed = run.state.done().unwrap().outcome.product().unwrap().outputs[0].clone();
    assert_eq!(children(&name, &pushed.digest).await, ["linux/arm64", "linux/amd64"]);
    let by_tag = tagged(&pushed.image).await;
    assert_eq!(by_tag, Some(pushed.digest));
}

/// The platforms of an index, whose images are what it says.
async fn children(name: &str, index: &Digest) -> Vec<String> {
    let index = read(name, "manifests", index).await;
    let mut platforms = Vec::new();
    for entry in index["manifests"].as_array().unwrap() {
        let digest = entry["digest"].as_str().unwrap().parse().unwrap();
        let stated = &entry["platform"];
        let word = |name: &str| stated[name].as_str().unwrap();
        let stated = format!("{}/{}", word("os"), word("architecture"));
        assert_eq!(platform_of(name, &digest).await, stated);
        platforms.push(stated);
    }
    platforms
}

#[tokio::test(flavor = "multi_thread")]
async fn legs_in_two_pools_are_one_index_of_images_that_are_what_it_says() {
    let gantry = installation().await;
    let (amd, arm): (Platform, Platform) = (Platform::default(), "linux/arm64".parse().unwrap());
    report(&gantry, "w", amd.pool(), std::slice::from_ref(&amd)).await;
    report(&gantry, "arm", arm.pool(), std::slice::from_ref(&arm)).await;
    let worker = |id: &str, platform: &Platform| {
        let mut worker = gantry.real_worker(id);
        let platforms = vec![platform.clone()];
        worker.engine = Arc::new(NarrowEngine { engine: Arc::clone(&worker.engine), platforms });
        worker.pool_key = Arc::new(gantry.keyring.pool_key(&platform.pool()));
        worker.settings.pool = platform.pool();
        worker
    };
    let name = unique("split");
    let task = busybox_task(&gantry, &name, "linux/amd64,linux/arm64", DOCKERFILE).await;
    let id = ask(&gantry, &task).await;
    let image: ImageReference = format!("{}/{name}:{id}", real::registry()).parse().unwrap();
    let amd = worker("w", &amd);
    gantry.settle_with(&amd).await;
    assert_eq!(tagged(&image).await, None, "tags move once, at the end");
    gantry.settle_with(&worker("arm", &arm)).await;
    gantry.settle_with(&amd).await;

    let run = runs::find(gantry.store.as_ref(), id).await.unwrap().unwrap();
    assert_eq!(run.status(), RunStatus::Succeeded, "{:?}", run.state);
    let pushed = run.state.done().unwrap().outcome.product().unwrap().outputs[0].clone();
    assert_eq!(tagged(&image).await, Some(pushed.digest.clone()));
    assert_eq!(children(&name, &pushed.digest).await, ["linux/amd64", "linux/arm64"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leg_that_fails_on_a_real_engine_moves_no_tag_and_is_named() {
    let gantry = installation().await;
    reported_worker(&gantry).await;
    let name = unique("half");
    let dockerfile = format!(
        "{DOCKERFILE}RUN [\"/busybox\", \"sh\", \"-c\", \"[ $(/busybox uname -m) != aarch64 ]\"]\n"
    );
    let task = busybox_task(&gantry, &name, "linux/amd64,linux/arm64", &dockerfile).await;
    let id = ask(&gantry, &task).await;
    assert!(gantry.real_worker("w").turn(&gantry.stop).await.unwrap());
    let run = runs::find(gantry.store.as_ref(), id).await.unwrap().unwrap();
    assert_eq!(run.status(), RunStatus::Failed, "{:?}", run.state);
    let error = run.state.done().unwrap().outcome.error().unwrap();
    assert_eq!(error.step.as_ref().unwrap().as_str(), "build-linux-arm64", "{error}");
    let image = format!("{}/{name}:{id}", real::registry()).parse().unwrap();
    assert_eq!(tagged(&image).await, None);
}
