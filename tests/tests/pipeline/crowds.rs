//! Many runs and many workers at once: the store keeps the order, and each run is taken once.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::join_all;
use gantry_domain::built_on::BuiltOn;
use gantry_domain::cause::Cause;
use gantry_domain::decide::planner::RunDraft;
use gantry_domain::id::{RunId, RunPrefix, WorkerId};
use gantry_domain::platform::Platform;
use gantry_domain::recipe::{ImageBuild, Recipe, RunTimeout, Work};
use gantry_domain::run::{Purpose, RunType};
use gantry_seams::runs::{self, Limits};
use gantry_seams::store::{Batch, Store};
use gantry_tests::doubles::store::{Conflicts, HookedStore};
use gantry_tests::pipeline::{LEASE, TestPipeline, create_registry};

/// As many runs as one commit can create.
const AT_ONCE: usize = 50;

fn draft(registry: usize, run_type: RunType) -> RunDraft {
    RunDraft {
        registry: format!("reg{registry}").parse().unwrap(),
        purpose: Purpose::Execute,
        run_type,
        task: None,
        recipe: Recipe {
            source: "https://github.com/octo/hello.git#main".parse().unwrap(),
            platform: Platform::default(),
            timeout: RunTimeout::default(),
            bases: Vec::new(),
            pull_request: None,
            work: Work::Build(ImageBuild {
                dockerfile: "Dockerfile".parse().unwrap(),
                images: Vec::new(),
                build_args: BTreeMap::new(),
                secret_build_args: BTreeMap::new(),
                target: None,
                push: false,
                no_cache: false,
            }),
        },
        git_token: None,
        force_tags: false,
        held: None,
        built_on: BuiltOn::Unread,
        cause: Cause::Request {
            event: "request/r1".parse().unwrap(),
            by: TestPipeline::somebody(),
            rerun_of: None,
            asked: None,
            branch: None,
        },
        trace: None,
    }
}

/// Creates ready runs, a few in each registry.
async fn ready(gantry: &TestPipeline, count: usize, run_type: RunType) -> Vec<RunId> {
    let (store, signer) = (&gantry.store, gantry.keyring.as_ref());
    let mut ids = Vec::with_capacity(count);
    while ids.len() < count {
        let some = AT_ONCE.min(count - ids.len());
        let draft = draft(ids.len() / AT_ONCE, run_type);
        let (prefix, now) = ("ca".parse().unwrap(), store.now().await.unwrap());
        let creation = runs::Creation::begin(store.as_ref(), Batch::default(), prefix, signer, now);
        let mut creation = creation.await.unwrap();
        for _ in 0..some {
            ids.push(creation.add(draft.clone(), None).unwrap().id);
        }
        store.commit(creation.finish()).await.unwrap();
    }
    let limits = Limits { registry: u32::MAX, task: None };
    // Sequentially, because concurrent admissions would compete for the places of their registry.
    for run in &ids {
        runs::ready(store.as_ref(), *run, None, limits).await.unwrap();
    }
    ids
}

async fn take(store: &dyn Store, worker: &WorkerId) -> Option<RunId> {
    let (pool, nonce) = (Platform::default().pool(), "1".repeat(32).parse().unwrap());
    let taken = runs::take(store, &pool, worker, &nonce, LEASE).await.unwrap();
    taken.map(|taken| taken.run.id)
}

#[tokio::test]
async fn a_quick_build_behind_a_crowd_of_triggered_runs_starts_next() {
    let gantry = super::start().await;
    let crowd = ready(&gantry, super::CROWD, RunType::AutoBuild).await;
    let quick = ready(&gantry, 1, RunType::QuickBuild).await;
    let worker = "worker-1".parse().unwrap();
    assert_eq!(take(gantry.store.as_ref(), &worker).await, Some(quick[0]));
    assert_eq!(take(gantry.store.as_ref(), &worker).await, Some(crowd[0]));
}

/// A registry with one place for runs.
async fn narrow_registry(gantry: &TestPipeline, name: &str) -> RunPrefix {
    create_registry(gantry.store.as_ref(), name, &format!("{name}.test"), 1).await.prefix
}

/// Creates waiting runs.
async fn waiting(gantry: &TestPipeline, prefix: RunPrefix, draft: &RunDraft, count: usize) {
    let (store, signer) = (gantry.store.as_ref(), gantry.keyring.as_ref());
    for first in (0..count).step_by(AT_ONCE) {
        let now = store.now().await.unwrap();
        let creation = runs::Creation::begin(store, Batch::default(), prefix, signer, now);
        let mut creation = creation.await.unwrap();
        for _ in first..count.min(first + AT_ONCE) {
            creation.add(draft.clone(), None).unwrap();
        }
        store.commit(creation.finish()).await.unwrap();
    }
}

#[tokio::test]
async fn a_run_is_admitted_despite_ten_thousand_waiting_in_another_registry() {
    let gantry = super::start().await;
    let crowded = narrow_registry(&gantry, "reg0").await;
    let quiet = narrow_registry(&gantry, "reg1").await;
    waiting(&gantry, crowded, &draft(0, RunType::QuickBuild), 10_000).await;
    waiting(&gantry, quiet, &draft(1, RunType::AutoBuild), 1).await;
    gantry.scheduler().tick().await.unwrap();
    let ready = runs::all_ready(gantry.store.as_ref(), 10).await.unwrap();
    let registries: Vec<&str> = ready.iter().map(|run| run.registry.as_str()).collect();
    assert_eq!(registries, ["reg0", "reg1"]);
}

#[tokio::test]
async fn within_a_registry_requests_are_admitted_before_triggers() {
    let gantry = super::start().await;
    let prefix = narrow_registry(&gantry, "reg0").await;
    waiting(&gantry, prefix, &draft(0, RunType::AutoBuild), 100).await;
    waiting(&gantry, prefix, &draft(0, RunType::QuickBuild), 1).await;
    gantry.scheduler().tick().await.unwrap();
    let ready = runs::all_ready(gantry.store.as_ref(), 10).await.unwrap();
    assert_eq!(ready.len(), 1);
    assert_eq!(ready[0].run_type, RunType::QuickBuild);
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_workers_at_once_take_each_run_once() {
    let gantry = super::start().await;
    let expected = ready(&gantry, 300, RunType::AutoBuild).await;
    let conflicts = Arc::new(Conflicts::default());
    let counted = HookedStore::shared(Arc::clone(&gantry.store), Arc::clone(&conflicts));
    let workers = (0..50).map(|number| {
        let store = Arc::clone(&counted);
        tokio::spawn(async move {
            let worker = format!("worker-{number}").parse().unwrap();
            let mut taken = Vec::new();
            // `None` means that other workers were faster with each run that it tried.
            while taken.len() < 300 {
                match take(store.as_ref(), &worker).await {
                    Some(run) => taken.push(run),
                    None if runs::all_ready(store.as_ref(), 1).await.unwrap().is_empty() => break,
                    None => {}
                }
            }
            taken
        })
    });
    let taken = join_all(workers).await.into_iter().flat_map(Result::unwrap);
    let mut taken: Vec<RunId> = taken.collect();
    taken.sort_unstable();
    assert_eq!(taken, expected);
    println!("{} conflicts for {} runs", conflicts.count(), taken.len());
}
