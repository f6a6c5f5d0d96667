//! Builds for several platforms that no engine has together: a run for each, in its pool, and one index at the end.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use gantry_domain::attempt::AttemptEnd;
use gantry_domain::id::PoolName;
use gantry_domain::platform::Platform;
use gantry_domain::run::{ErrorCode, Legs, Run, RunState, RunStatus, WaitReason};
use gantry_domain::task::Task;
use gantry_ops::secret::{ExposeSecret as _, SecretString};
use gantry_seams::runs;
use gantry_seams::store::{Batch, Key, Kind, Store};
use gantry_tests::pipeline::{DOCKERFILE, LEASE, REGISTRY, TestPipeline, image_build};
use gantry_worker::Worker;
use gantry_worker::engine::scripted::{Action, Gate};
use serde_json::{Value, json};

use super::platforms::{entries, error, worker as reports};

const TAG: &str = "web:latest";

fn arm() -> PoolName {
    "linux/arm64".parse::<Platform>().unwrap().pool()
}

/// A worker of the pool for arm64, with an engine that builds nothing else.
fn arm_worker(gantry: &TestPipeline) -> Worker {
    let mut worker = gantry.worker("arm-1");
    worker.pool_key = Arc::new(gantry.keyring.pool_key(&arm()));
    worker.settings.pool = arm();
    worker
}

/// A task for two platforms, each of which has a pool of its own.
async fn with_two_pools(change: impl FnOnce(&mut Task)) -> (TestPipeline, Task) {
    let gantry = super::start().await;
    report(&gantry).await;
    gantry.git.repository("web").unwrap().commit("main", DOCKERFILE).unwrap();
    let secret = SecretString::from("s3cret");
    let sealed = gantry.keyring.seal(&TestPipeline::seals_for(), &secret).unwrap();
    let changes = |task: &mut Task| {
        task.recipe.platforms = "linux/amd64,linux/arm64".parse().unwrap();
        task.source_trigger = None;
        let build = image_build(&mut task.recipe);
        build.secret_build_args.insert("TOKEN".parse().unwrap(), sealed);
        let run = "{{.Run.ID}} {{.Run.Date}} {{.Run.Branch}} {{.Run.Architecture}}";
        build.build_args.insert("RUN".parse().unwrap(), run.parse().unwrap());
        change(task);
    };
    let task = gantry.task_with("web", TAG, changes).await;
    gantry.settle().await;
    (gantry, task)
}

async fn report(gantry: &TestPipeline) {
    reports(gantry, "worker-1", "linux-amd64", &["linux/amd64"]).await;
    reports(gantry, "arm-1", "linux-arm64", &["linux/arm64"]).await;
}

/// A run whose leg for amd64 has ended well, and whose leg for arm64 is ready.
async fn with_one_leg_left(change: impl FnOnce(&mut Task)) -> (TestPipeline, Task, RunPair) {
    let (gantry, task) = with_two_pools(change).await;
    gantry.ask(&task, None).await;
    gantry.settle().await;
    let whole = gantry.run("ca1").await;
    assert!(whole.waits_for_legs(), "{:?}", whole.state);
    let [amd, arm] = legs(&gantry, &whole).await;
    assert_eq!(amd.status(), RunStatus::Succeeded, "{:?}", amd.state);
    assert!(matches!(arm.state, RunState::Ready { .. }), "{:?}", arm.state);
    (gantry, task, [amd, arm])
}

type RunPair = [Run; 2];

async fn legs(gantry: &TestPipeline, whole: &Run) -> RunPair {
    let runs = whole.legs.as_ref().map(Legs::runs).unwrap();
    let [amd, arm] = runs else { panic!("{runs:?}") };
    [gantry.run(&amd.to_string()).await, gantry.run(&arm.to_string()).await]
}

fn tag(gantry: &TestPipeline) -> Option<gantry_domain::image::Digest> {
    gantry.registries.tag(&format!("{REGISTRY}/{TAG}"))
}

type Forge = fn(&mut Value);

/// Changes a run's record without any operation, as who may only write to the store can.
async fn change_record(store: &dyn Store, run: &str, forge: Forge) {
    let key = Key::new(Kind::Run, run);
    let found = store.load(std::slice::from_ref(&key)).await.unwrap().pop().flatten().unwrap();
    let mut record: Value = serde_json::from_slice(&found.bytes).unwrap();
    forge(&mut record);
    let mut batch = Batch::default();
    batch.put(key, serde_json::to_vec(&record).unwrap());
    store.commit(batch).await.unwrap();
}

/// No tag was moved, no leg is open, and the error names the platform and its run.
async fn assert_failed(gantry: &TestPipeline, status: RunStatus, arm: &Run) {
    let whole = gantry.run("ca1").await;
    assert_eq!(whole.status(), status, "{:?}", whole.state);
    assert_eq!(tag(gantry), None);
    assert!(legs(gantry, &whole).await.iter().all(|leg| leg.state.done().is_some()));
    assert!(matches!(whole.legs, Some(Legs::Closed { .. })), "{:?}", whole.legs);
    if status != RunStatus::Canceled {
        let named = format!("linux/arm64, run {}: ", arm.id);
        assert!(error(&whole).starts_with(&named), "{}", error(&whole));
    }
}

#[tokio::test]
async fn each_platform_is_built_in_its_pool_and_one_index_is_pushed_last() {
    let (gantry, _, [amd, arm]) = with_one_leg_left(|_| {}).await;
    let whole = gantry.run("ca1").await;
    assert_eq!(tag(&gantry), None, "tags move once, at the end");
    assert!(whole.state.lease().is_none() && whole.state.holds_a_place());
    assert!(amd.is_hidden() && arm.is_hidden());
    assert_eq!((amd.commit(), arm.commit()), (whole.commit(), whole.commit()));

    gantry.settle_with(&arm_worker(&gantry)).await;
    gantry.settle().await;
    let run = gantry.run("ca1").await;
    assert_eq!(run.status(), RunStatus::Succeeded, "{:?}", run.state);
    let product = run.state.done().unwrap().outcome.product().unwrap();
    let [output] = &product.outputs[..] else { panic!("{product:?}") };
    assert_eq!(tag(&gantry), Some(output.digest.clone()));
    let listed = entries(&gantry, &output.digest);
    let platforms: Vec<&str> = listed.iter().map(|(platform, _)| platform.as_str()).collect();
    assert_eq!(platforms, ["linux/amd64", "linux/arm64"]);
    assert_eq!(product.commit, whole.commit());
    assert_eq!(product.bases.len(), 1);

    let orders: Vec<_> = gantry.engine.asked().into_iter().map(|asked| asked.order).collect();
    assert_eq!(orders.len(), 2);
    for order in &orders {
        let token = order.secret_build_args.get("TOKEN").map(|value| value.expose_secret());
        assert_eq!(token, Some("s3cret"), "sealed for the pool of the leg");
        assert!(order.dockerfile.starts_with(orders[0].dockerfile.lines().next().unwrap()));
        let variables = &order.build_args["RUN"];
        assert_eq!(variables, &orders[0].build_args["RUN"], "those of the whole run");
        assert!(variables.starts_with("ca1 ") && variables.ends_with(" main amd64"), "{variables}");
    }
    let ends: Vec<&AttemptEnd> = run.attempts.iter().map(|attempt| &attempt.end).collect();
    assert_eq!(ends, [&AttemptEnd::Split, &AttemptEnd::Finished]);
    let steps = gantry_seams::steps::find(gantry.store.as_ref(), run.id, 2).await.unwrap();
    let steps: Vec<String> =
        steps.iter().map(|step| format!("{} {}", step.id, step.tries)).collect();
    assert_eq!(steps, ["build-linux-amd64 1", "build-linux-arm64 1", "push 1"]);
    let log = gantry.log("ca1", 2).await;
    assert!(log.contains(&format!("linux/arm64 was built by run {}", arm.id)), "{log}");
    let digests = listed.iter().map(|(_, digest)| digest.parse().unwrap());
    for digest in digests.chain([output.digest.clone()]) {
        let lineage = gantry_seams::lineages::find(gantry.store.as_ref(), &digest).await.unwrap();
        assert_eq!(lineage.expect("its lineage").run, run.id);
    }
}

#[tokio::test]
async fn a_leg_that_fails_ends_the_run_and_moves_no_tag() {
    let (gantry, _, [_, arm]) = with_one_leg_left(|_| {}).await;
    gantry.engine.script(&TestPipeline::repository("web"), [Action::Exit(3)]);
    gantry.settle_with(&arm_worker(&gantry)).await;
    assert_failed(&gantry, RunStatus::Failed, &arm).await;
}

#[tokio::test]
async fn a_leg_that_fails_ends_the_others() {
    let (gantry, task) = with_two_pools(|_| {}).await;
    gantry.engine.script(&TestPipeline::repository("web"), [Action::Exit(3)]);
    gantry.ask(&task, None).await;
    gantry.settle().await;
    let whole = gantry.run("ca1").await;
    assert!(error(&whole).starts_with("linux/amd64, run "), "{}", error(&whole));
    let [_, arm] = legs(&gantry, &whole).await;
    assert_eq!(arm.status(), RunStatus::Canceled, "{:?}", arm.state);
    assert!(matches!(whole.legs, Some(Legs::Closed { .. })));
}

#[tokio::test]
async fn cancelling_the_run_ends_its_legs_even_while_they_build() {
    let (gantry, _, [_, arm]) = with_one_leg_left(|_| {}).await;
    let gate = Gate::closed();
    let actions = [Action::Wait(gate.clone()), Action::Hang];
    gantry.engine.script(&TestPipeline::repository("web"), actions);
    let (worker, store) = (arm_worker(&gantry), gantry.store.as_ref());
    let cancelling = async {
        gate.reached().await;
        runs::cancel(store, "ca1".parse().unwrap(), &TestPipeline::canceler()).await.unwrap();
        gantry.schedule().await;
        gate.open();
    };
    let (turned, ()) = tokio::join!(worker.turn(&gantry.stop), cancelling);
    turned.unwrap();
    gantry.settle().await;
    assert_failed(&gantry, RunStatus::Canceled, &arm).await;
    assert!(gantry.engine.images().is_empty(), "{:?}", gantry.engine.images());
}

#[tokio::test]
async fn a_leg_whose_worker_is_lost_is_built_again_and_after_the_last_attempt_ends_the_run() {
    let (gantry, _, [_, leg]) = with_one_leg_left(|_| {}).await;
    let (store, nonce) = (gantry.store.as_ref(), "1".repeat(32).parse().unwrap());
    for _ in 0..3 {
        let worker = "arm-1".parse().unwrap();
        let taken = runs::take(store, &arm(), &worker, &nonce, LEASE).await.unwrap();
        assert_eq!(taken.expect("the leg").run.id, leg.id);
        runs::lapse_now(store, leg.id).await.unwrap();
        gantry.schedule().await;
    }
    assert_failed(&gantry, RunStatus::Error, &leg).await;
    gantry.leaves_work();
}

#[tokio::test]
async fn a_leg_that_takes_too_long_ends_the_run_as_timed_out() {
    let limit = |task: &mut Task| task.recipe.timeout = 3.try_into().unwrap();
    let (gantry, task) = with_two_pools(limit).await;
    gantry.ask(&task, None).await;
    gantry.schedule().await;
    gantry.worker("worker-1").turn(&gantry.stop).await.unwrap();
    gantry.schedule().await;
    let [_, arm] = legs(&gantry, &gantry.run("ca1").await).await;
    gantry.engine.script(&TestPipeline::repository("web"), [Action::Hang]);
    gantry.settle_with(&arm_worker(&gantry)).await;
    assert_failed(&gantry, RunStatus::Timeout, &arm).await;
}

#[tokio::test]
async fn a_platform_that_no_pool_has_is_refused_with_the_remedy_and_nothing_is_built() {
    let windows = |task: &mut Task| {
        task.recipe.platforms = "linux/amd64,linux/riscv64".parse().unwrap();
    };
    let (gantry, task) = with_two_pools(windows).await;
    gantry.ask(&task, None).await;
    gantry.settle().await;
    let run = gantry.run("ca1").await;
    assert_eq!(run.status(), RunStatus::Failed);
    let error = error(&run);
    assert!(error.starts_with("no engine builds for linux/riscv64: "), "{error}");
    assert!(error.contains("`gantry worker --pool linux-riscv64`"), "{error}");
    assert!(gantry.engine.asked().is_empty());
}

#[tokio::test]
async fn the_run_keeps_its_places_for_its_legs_and_nobody_else_gets_them() {
    let one = |task: &mut Task| {
        task.run_limit = NonZeroU32::new(1);
        task.concurrency_group = Some("deploy".parse().unwrap());
    };
    let (gantry, task, _) = with_one_leg_left(one).await;
    gantry.ask(&task, None).await;
    gantry.schedule().await;
    let other = gantry.run("ca2").await;
    let RunState::Waiting { reason, .. } = &other.state else { panic!("{:?}", other.state) };
    assert!(matches!(reason, WaitReason::TaskLimit { .. } | WaitReason::Group { .. }), "{reason}");
    gantry.settle_with(&arm_worker(&gantry)).await;
    gantry.settle().await;
    assert_eq!(gantry.run("ca1").await.status(), RunStatus::Succeeded);
}

#[tokio::test]
async fn legs_are_admitted_although_their_runs_fill_the_registry() {
    let (gantry, task) = with_two_pools(|_| {}).await;
    // The test registry has 8 places.
    for _ in 0..9 {
        gantry.ask(&task, None).await;
    }
    for _ in 0..4 {
        gantry.settle().await;
        gantry.settle_with(&arm_worker(&gantry)).await;
    }
    for run in 1..=9 {
        assert_eq!(gantry.run(&format!("ca{run}")).await.status(), RunStatus::Succeeded, "ca{run}");
    }
}

#[tokio::test]
async fn two_schedulers_make_each_leg_once() {
    let (gantry, task) = with_two_pools(|_| {}).await;
    gantry.ask(&task, None).await;
    gantry.schedule().await;
    gantry.worker("worker-1").turn(&gantry.stop).await.unwrap();
    let (one, other) = (gantry.scheduler(), gantry.scheduler());
    let (first, second) = tokio::join!(one.tick(), other.tick());
    first.unwrap();
    second.unwrap();
    let whole = gantry.run("ca1").await;
    let hidden = runs::ready_before(gantry.store.as_ref(), gantry.clock.now(), None, 100).await;
    let ready: Vec<_> = hidden.unwrap().into_iter().map(|ready| ready.run).collect();
    assert_eq!(ready.len(), 2, "{ready:?}");
    assert!(whole.legs.unwrap().runs().iter().all(|leg| ready.contains(leg)));
    gantry.settle().await;
    gantry.settle_with(&arm_worker(&gantry)).await;
    gantry.settle().await;
}

#[tokio::test]
async fn a_request_to_split_that_no_worker_of_its_pool_made_is_refused() {
    let forgeries: [(&str, Forge); 4] = [
        ("another commit", |record| record["read"]["commit"] = json!("a".repeat(40))),
        ("another base", |record| record["legs"]["bases"] = json!([])),
        ("another pool", |record| record["legs"]["pool"] = json!("gpu")),
        ("another proof", |record| record["legs"]["proof"] = json!("0".repeat(64))),
    ];
    for (what, forge) in forgeries {
        let (gantry, task) = with_two_pools(|_| {}).await;
        gantry.ask(&task, None).await;
        gantry.schedule().await;
        gantry.worker("worker-1").turn(&gantry.stop).await.unwrap();
        change_record(gantry.store.as_ref(), "ca1", forge).await;
        gantry.settle().await;
        let run = gantry.run("ca1").await;
        let code = run.state.done().and_then(|done| done.outcome.error()).map(|error| error.code);
        assert_eq!(code, Some(ErrorCode::Unsigned), "{what}: {:?}", run.state);
        assert!(gantry.engine.asked().is_empty(), "{what}");
    }
}

#[tokio::test]
async fn a_run_that_was_split_and_joined_leaves_no_secret_and_no_work_behind() {
    let (gantry, _, legs) = with_one_leg_left(|_| {}).await;
    gantry.settle_with(&arm_worker(&gantry)).await;
    gantry.settle().await;
    let store = gantry.store.as_ref();
    assert!(runs::with_leg_work(store, 10).await.unwrap().is_empty());
    assert!(runs::leased(store, 10).await.unwrap().is_empty());
    for leg in legs {
        assert!(gantry.run(&leg.id.to_string()).await.is_settled);
    }
    gantry.clock.advance(Duration::from_secs(40 * 24 * 3600));
    gantry.scheduler().keeper().forget_old().await.unwrap();
    assert!(runs::find(store, "ca1".parse().unwrap()).await.unwrap().is_none());
}
