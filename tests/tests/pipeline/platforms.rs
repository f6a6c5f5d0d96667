//! Platforms without workers of their own, whose runs go to pools that emulate them; images for several platforms.

use std::time::Duration;

use gantry_domain::id::PoolName;
use gantry_domain::image::Digest;
use gantry_domain::platform::Platform;
use gantry_domain::run::{ErrorCode, Run, RunState, RunStatus};
use gantry_domain::task::Task;
use gantry_domain::worker::{EngineHealth, Worker as WorkerRecord};
use gantry_ops::secret::{ExposeSecret as _, SecretString};
use gantry_seams::{runs, workers};
use gantry_tests::pipeline::{BASE, DOCKERFILE, REGISTRY, TestPipeline, image_build};
use gantry_worker::engine::scripted::Action;
use serde_json::Value;

/// A worker that reports its platforms.
pub(crate) async fn worker(gantry: &TestPipeline, id: &str, pool: &str, platforms: &[&str]) {
    let record = WorkerRecord {
        id: id.parse().unwrap(),
        has_fixed_name: true,
        pool: pool.parse().unwrap(),
        platforms: platforms.iter().map(|platform| platform.parse().unwrap()).collect(),
        slots: 1,
        runs: Vec::new(),
        version: "1".to_owned(),
        engine: EngineHealth::Ready { name: "an engine".to_owned() },
        free_disk: None,
        idle_because: None,
        last_seen: gantry.clock.now(),
    };
    workers::record_seen(gantry.store.as_ref(), &record).await.unwrap();
}

/// A task that builds for a platform, with a secret build argument.
async fn task_for(gantry: &TestPipeline, name: &str, platform: &str) -> Task {
    gantry.git.repository(name).unwrap().commit("main", DOCKERFILE).unwrap();
    let secret = SecretString::from("s3cret");
    let sealed = gantry.keyring.seal(&TestPipeline::seals_for(), &secret).unwrap();
    let change = |task: &mut Task| {
        task.recipe.platforms = platform.parse().unwrap();
        let build = image_build(&mut task.recipe);
        build.secret_build_args.insert("TOKEN".parse().unwrap(), sealed);
    };
    let task = gantry.task_with(name, &format!("{name}:{{{{.Run.ID}}}}"), change).await;
    gantry.settle().await;
    task
}

async fn pool_of(gantry: &TestPipeline, run: &str) -> Option<PoolName> {
    match gantry.run(run).await.state {
        RunState::Ready { pool, .. } => Some(pool),
        RunState::Waiting { .. }
        | RunState::Started { .. }
        | RunState::Running { .. }
        | RunState::Done(_) => None,
    }
}

#[tokio::test]
async fn a_run_goes_to_the_pool_of_its_platform_and_without_one_to_a_pool_that_emulates_it() {
    let gantry = super::start().await;
    let arm: Platform = "linux/arm64".parse().unwrap();
    let task = task_for(&gantry, "hello", "linux/arm64").await;
    worker(&gantry, "worker-1", "linux-amd64", &["linux/amd64"]).await;
    worker(&gantry, "native", "linux-arm64", &["linux/arm64"]).await;
    gantry.ask(&task, None).await;
    gantry.schedule().await;
    assert_eq!(pool_of(&gantry, "ca1").await, Some(arm.pool()));

    gantry.clock.advance(Duration::from_secs(120));
    worker(&gantry, "worker-1", "linux-amd64", &["linux/amd64", "linux/arm64"]).await;
    gantry.ask(&task, None).await;
    gantry.schedule().await;
    assert_eq!(pool_of(&gantry, "ca2").await, Some(Platform::default().pool()));

    gantry.engine.emulate([arm.clone()]);
    gantry.settle().await;
    let run = gantry.run("ca2").await;
    assert_eq!(run.status(), RunStatus::Succeeded, "{:?}", run.state);
    let order = gantry.engine.asked().pop().unwrap().order;
    assert_eq!(order.platform, arm);
    let token = order.secret_build_args.get("TOKEN").map(|value| value.expose_secret());
    assert_eq!(token, Some("s3cret"), "its secrets are sealed for the pool that builds it");
    let image = run.state.done().unwrap().outcome.product().unwrap().outputs[0].digest.clone();
    let lineage = gantry_seams::lineages::find(gantry.store.as_ref(), &image).await.unwrap();
    assert_eq!(lineage.unwrap().platforms, arm.into());
}

#[tokio::test]
async fn runs_of_an_emulated_platform_and_those_of_the_engine_itself_take_turns() {
    let gantry = super::start().await;
    let (own, arm) = (
        task_for(&gantry, "own", "linux/amd64").await,
        task_for(&gantry, "arm", "linux/arm64").await,
    );
    worker(&gantry, "worker-1", "linux-amd64", &["linux/amd64", "linux/arm64"]).await;
    for task in [&own, &own, &own, &arm, &arm, &arm] {
        gantry.ask(task, None).await;
    }
    let (store, pool) = (gantry.store.as_ref(), Platform::default().pool());
    let (worker, nonce) = ("worker-1".parse().unwrap(), "1".repeat(32).parse().unwrap());
    let mut taken = Vec::new();
    for _ in 0..6 {
        gantry.schedule().await;
        let lease = Duration::from_secs(30);
        let next = runs::take(store, &pool, &worker, &nonce, lease).await.unwrap().unwrap();
        taken.push(next.run.recipe.platforms.first().architecture().to_owned());
    }
    assert_eq!(taken, ["amd64", "arm64", "amd64", "arm64", "amd64", "arm64"]);
    gantry.leaves_work();
}

#[tokio::test]
async fn an_engine_that_no_longer_emulates_a_platform_refuses_its_builds_with_the_remedy() {
    let gantry = super::start().await;
    let task = task_for(&gantry, "hello", "linux/arm64").await;
    worker(&gantry, "worker-1", "linux-amd64", &["linux/amd64", "linux/arm64"]).await;
    gantry.ask(&task, None).await;
    gantry.settle().await;
    let run = gantry.run("ca1").await;
    let error = run.state.done().unwrap().outcome.error().unwrap();
    assert_eq!((run.status(), error.code), (RunStatus::Failed, ErrorCode::BuildRefused));
    assert_eq!(
        error.message,
        "the engine of this worker does not build for linux/arm64: start a worker in pool linux-arm64 and run it there with \
         `--platform linux/arm64`, or let this one emulate it: install `qemu-user-static` on its machine, and register it \
         with `binfmt_misc`"
    );
    assert!(gantry.engine.asked().is_empty());
}

#[tokio::test]
async fn a_run_for_windows_waits_for_a_pool_that_has_it() {
    let gantry = super::start().await;
    let task = task_for(&gantry, "hello", "windows/amd64").await;
    worker(&gantry, "worker-1", "linux-amd64", &["linux/amd64", "linux/arm64"]).await;
    gantry.ask(&task, None).await;
    gantry.schedule().await;
    let pool = pool_of(&gantry, "ca1").await.unwrap();
    assert_eq!(pool.as_str(), "windows-amd64");
    let lack = workers::workforce(gantry.store.as_ref()).await.unwrap().lacks(&pool).unwrap();
    assert_eq!(
        lack.to_string(),
        "there is no worker in pool windows-amd64: start one with `gantry worker --pool windows-amd64`"
    );
}

const BOTH: &str = "linux/amd64,linux/arm64";

/// An installation whose engine builds for amd64 and arm64, with a task `web:latest` for both.
async fn with_both() -> (TestPipeline, Task) {
    let gantry = super::start().await;
    gantry.engine.emulate(["linux/arm64".parse().unwrap()]);
    worker(&gantry, "worker-1", "linux-amd64", &["linux/amd64", "linux/arm64"]).await;
    gantry.git.repository("web").unwrap().commit("main", DOCKERFILE).unwrap();
    let change = |task: &mut Task| {
        task.recipe.platforms = BOTH.parse().unwrap();
        task.source_trigger = None;
    };
    let task = gantry.task_with("web", "web:latest", change).await;
    gantry.settle().await;
    (gantry, task)
}

pub(crate) fn error(run: &Run) -> String {
    run.state.done().unwrap().outcome.error().unwrap().to_string()
}

/// The platforms and digests in the index with this digest.
pub(crate) fn entries(gantry: &TestPipeline, index: &Digest) -> Vec<(String, String)> {
    let index = gantry.registries.index(index).expect("an index");
    let index: Value = serde_json::from_slice(&index.bytes).unwrap();
    let word = |value: &Value| value.as_str().unwrap().to_owned();
    let entry = |entry: &Value| {
        let platform = &entry["platform"];
        let name = format!("{}/{}", word(&platform["os"]), word(&platform["architecture"]));
        (name, word(&entry["digest"]))
    };
    index["manifests"].as_array().unwrap().iter().map(entry).collect()
}

#[tokio::test]
async fn a_build_for_several_platforms_is_one_index_with_exactly_those() {
    let (gantry, task) = with_both().await;
    gantry.ask(&task, None).await;
    gantry.settle().await;
    let run = gantry.run("ca1").await;
    assert_eq!(run.status(), RunStatus::Succeeded, "{:?}", run.state);
    let product = run.state.done().unwrap().outcome.product().unwrap();
    let [output] = &product.outputs[..] else { panic!("{product:?}") };
    assert_eq!(gantry.registries.tag(&output.image.to_string()), Some(output.digest.clone()));

    let listed = entries(&gantry, &output.digest);
    let children = output.children.iter();
    let children: Vec<(String, String)> =
        children.map(|child| (child.platform.to_string(), child.digest.to_string())).collect();
    assert_eq!(listed, children);
    let platforms: Vec<&str> = listed.iter().map(|(platform, _)| platform.as_str()).collect();
    assert_eq!(platforms, ["linux/amd64", "linux/arm64"]);
    assert_ne!(listed[0].1, listed[1].1);

    let orders = gantry.engine.asked();
    let bases = orders.iter().map(|asked| asked.order.dockerfile.lines().next().unwrap());
    let bases: std::collections::BTreeSet<&str> = bases.collect();
    assert_eq!((orders.len(), bases.len()), (2, 1), "both legs are on one base: {bases:?}");
    let steps = gantry_seams::steps::find(gantry.store.as_ref(), run.id, 1).await.unwrap();
    let steps: Vec<String> = steps.iter().map(|step| step.id.to_string()).collect();
    assert_eq!(steps, ["build-linux-amd64", "build-linux-arm64", "push"]);
    let log = gantry.log("ca1", 1).await;
    assert!(log.contains("  linux/arm64 at sha256:"), "{log}");
    for digest in children.iter().map(|(_, digest)| digest).chain([&output.digest.to_string()]) {
        let digest = digest.parse().unwrap();
        let lineage = gantry_seams::lineages::find(gantry.store.as_ref(), &digest).await.unwrap();
        assert_eq!(lineage.expect("its lineage").run, run.id);
    }
}

#[tokio::test]
async fn a_leg_that_fails_moves_no_tag_and_the_run_says_which() {
    let (gantry, task) = with_both().await;
    let fail = [Action::Exit(3)];
    gantry.engine.script(&TestPipeline::repository("web"), fail);
    gantry.ask(&task, None).await;
    gantry.settle().await;
    let run = gantry.run("ca1").await;
    assert_eq!(run.status(), RunStatus::Failed);
    assert!(error(&run).contains("build-linux-"), "{}", error(&run));
    assert_eq!(gantry.registries.tag(&format!("{REGISTRY}/web:latest")), None);
}

#[tokio::test]
async fn an_image_that_the_registry_has_lost_is_in_no_index_and_the_next_attempt_pushes_it_again() {
    let (gantry, task) = with_both().await;
    gantry.registries.lose_next_child();
    gantry.ask(&task, None).await;
    gantry.schedule().await;
    gantry.worker("worker-1").turn(&gantry.stop).await.unwrap();
    let tag = format!("{REGISTRY}/web:latest");
    assert_eq!(gantry.registries.tag(&tag), None);
    let run = gantry.run("ca1").await;
    assert!(matches!(run.state, RunState::Waiting { .. }), "{:?}", run.state);

    gantry.clock.advance(Duration::from_secs(50));
    gantry.settle().await;
    assert_eq!(gantry.run("ca1").await.status(), RunStatus::Succeeded);
    assert_eq!(entries(&gantry, &gantry.registries.tag(&tag).unwrap()).len(), 2);
}

#[tokio::test]
async fn a_platform_that_its_engine_no_longer_builds_for_is_refused_with_the_remedy() {
    let (gantry, task) = with_both().await;
    gantry.engine.emulate([]);
    gantry.ask(&task, None).await;
    gantry.settle().await;
    let run = gantry.run("ca1").await;
    assert_eq!(run.status(), RunStatus::Failed);
    assert!(error(&run).contains("does not build for linux/arm64"), "{}", error(&run));
    assert_eq!(gantry.registries.tag(&format!("{REGISTRY}/web:latest")), None);
}

#[tokio::test]
async fn a_base_that_changes_for_one_platform_rebuilds_all_on_the_new_index() {
    let (gantry, task) = with_both().await;
    let platforms = |arm: &'static str| [("linux/amd64", "same"), ("linux/arm64", arm)];
    gantry.registries.have_index(BASE, &platforms("one"));
    gantry.ask(&task, None).await;
    gantry.settle().await;
    let look = async || {
        gantry.clock.advance(Duration::from_secs(3600));
        worker(&gantry, "worker-1", "linux-amd64", &["linux/amd64", "linux/arm64"]).await;
        while gantry.scheduler().watch_images().await.unwrap() {}
        gantry.settle().await;
    };
    look().await;
    assert_eq!(gantry.engine.asked().len(), 2, "nothing has changed");

    let new = gantry.registries.have_index(BASE, &platforms("two"));
    for _ in 0..3 {
        look().await;
    }
    let orders = gantry.engine.asked();
    assert_eq!(orders.len(), 4, "both legs, once");
    let on_new = orders[2..].iter().filter(|it| it.order.dockerfile.contains(new.as_str()));
    assert_eq!(on_new.count(), 2, "{:?}", orders[2].order.dockerfile);
    assert_eq!(gantry.run("ca2").await.status(), RunStatus::Succeeded);
}
