//! Several workers on one engine: whatever they push at the same moment, each tag shows what its own run built.

use std::io::Read as _;
use std::num::NonZeroU32;

use flate2::read::GzDecoder;
use futures_util::future::join_all;
use gantry_domain::decide::planner;
use gantry_domain::task::Task;
use gantry_ops::secret::random_hex;
use gantry_seams::registries::{self, NewRegistry};
use gantry_tests::git_server::TestRepository;
use gantry_tests::ground::Ground;
use gantry_tests::pipeline::TestPipeline;
use gantry_tests::real;
use serde_json::Value;

const DOCKERFILE: &str = "FROM scratch\nCOPY file /file\n";

const WORKERS: usize = 3;

/// Branches of one repository, whose tasks push to one repository of the registry, a tag each.
const BRANCHES: usize = 6;

/// 102 runs in all.
const ROUNDS: usize = 17;

#[tokio::test(flavor = "multi_thread")]
async fn three_workers_on_one_engine_never_tag_each_others_images() {
    assert_tags_show_what_was_built(&real::docker_host()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_workers_on_one_engine_with_the_containerd_store_never_tag_each_others_images() {
    assert_tags_show_what_was_built(&real::containerd_docker_host()).await;
}

async fn assert_tags_show_what_was_built(docker_host: &str) {
    let gantry = TestPipeline::start(Ground::Embedded).await;
    let registry = NewRegistry {
        name: "real".parse().unwrap(),
        host: real::registry().parse().unwrap(),
        credentials: None,
        run_limit: NonZeroU32::new(100).unwrap(),
    };
    registries::create(gantry.store.as_ref(), registry).await.unwrap();
    let repository = format!("shared-{}", random_hex::<6>().unwrap().as_str());
    let source = gantry.git.repository("app").unwrap();
    let mut tasks = Vec::new();
    for branch in 0..BRANCHES {
        tasks.push(task(&gantry, branch, &repository).await);
    }
    let workers: Vec<_> = (0..WORKERS)
        .map(|number| gantry.real_worker_on(&format!("worker-{number}"), docker_host))
        .collect();
    for round in 0..ROUNDS {
        for (branch, task) in tasks.iter().enumerate() {
            commit(&source, branch, round);
            ask(&gantry, task).await;
        }
        gantry.schedule().await;
        let work =
            workers.iter().map(async |worker| while worker.turn(&gantry.stop).await.unwrap() {});
        join_all(work).await;
        // What failed for now is tried again.
        gantry.settle_with(&workers[0]).await;
        for branch in 0..BRANCHES {
            assert_eq!(tagged(&repository, branch).await, content(branch, round));
        }
    }
}

fn content(branch: usize, round: usize) -> String {
    format!("branch {branch}, round {round}")
}

fn commit(source: &TestRepository, branch: usize, round: usize) {
    let content = content(branch, round);
    let files = [("Dockerfile", DOCKERFILE), ("file", content.as_str())];
    source.commit(&format!("b{branch}"), &files).unwrap();
}

async fn task(gantry: &TestPipeline, branch: usize, repository: &str) -> Task {
    let image = format!("{repository}:b{branch}");
    gantry
        .task_with(&format!("b{branch}"), &image, |task| {
            task.id = format!("real/b{branch}").parse().unwrap();
            task.build.source = format!("{}#b{branch}", gantry.git.url("app")).parse().unwrap();
            task.source_trigger = None;
        })
        .await
}

async fn ask(gantry: &TestPipeline, task: &Task) {
    let draft = |event| {
        let by = TestPipeline::somebody();
        planner::for_task_request(task, task.build.clone(), event, by)
    };
    gantry.request(draft, None).await;
}

/// The content of `/file` in the image under a branch's tag, as the registry has it.
async fn tagged(repository: &str, branch: usize) -> String {
    let base = format!("http://{}/v2/{repository}", real::registry());
    let client = reqwest::Client::new();
    let manifest: Value = client
        .get(format!("{base}/manifests/b{branch}"))
        .header("accept", "application/vnd.docker.distribution.manifest.v2+json")
        .header("accept", "application/vnd.oci.image.manifest.v1+json")
        .send()
        .await
        .unwrap()
        .error_for_status()
        .unwrap()
        .json()
        .await
        .unwrap();
    let layer = manifest["layers"].as_array().unwrap().last().unwrap()["digest"].as_str().unwrap();
    let blob = client.get(format!("{base}/blobs/{layer}")).send().await.unwrap();
    let blob = blob.bytes().await.unwrap();
    let mut archive = tar::Archive::new(GzDecoder::new(blob.as_ref()));
    let mut text = String::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        if entry.path().unwrap().as_os_str() == "file" {
            entry.read_to_string(&mut text).unwrap();
        }
    }
    text
}
