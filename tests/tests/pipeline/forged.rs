//! Write access to run records, which workers have, does not give access to secrets.

use std::num::NonZeroU32;

use gantry_domain::decide::planner;
use gantry_domain::event::{Event, EventKind};
use gantry_domain::platform::Platform;
use gantry_domain::registry::{Registry, RegistryCredentials, SealedCredentials};
use gantry_domain::run::{ErrorCode, Run, RunStatus};
use gantry_ops::secret::SecretString;
use gantry_seams::registries::{self, NewRegistry};
use gantry_seams::requests::{self, RunRequest};
use gantry_seams::store::{Batch, Index, Key, Kind, Store};
use gantry_seams::{reseal, runs};
use gantry_tests::git_server::Behaviour;
use gantry_tests::pipeline::TestPipeline;
use serde_json::{Value, json};

use super::secrets::{self, Anew};

type Change = fn(&mut Value);

async fn record(store: &dyn Store, run: &str) -> Value {
    let key = Key::new(Kind::Run, run);
    let found = store.load(&[key]).await.unwrap().pop().flatten().unwrap();
    serde_json::from_slice(&found.bytes).unwrap()
}

/// Writes a run's record directly, without any operation.
async fn write(store: &dyn Store, run: &str, record: &Value) {
    let mut batch = Batch::default();
    batch.put(Key::new(Kind::Run, run), serde_json::to_vec(record).unwrap());
    if record["state"]["state"] == "waiting" {
        batch.index(Index::new("runs/waiting"), 0, run);
        let lane = format!("{}/0/zz/@/0/{run}", Platform::default().pool());
        batch.index(Index::new("runs/waiting-by-lane"), 0, lane);
    }
    store.commit(batch).await.unwrap();
}

async fn change(gantry: &TestPipeline, run: &Run, change: Change) {
    let (store, id) = (gantry.store.as_ref(), run.id.to_string());
    let mut record = record(store, &id).await;
    change(&mut record);
    write(store, &id, &record).await;
}

/// Creates a registry `other` with credentials.
pub(crate) async fn other_registry(gantry: &TestPipeline) {
    let prefix = registries::reserve_prefix(gantry.store.as_ref()).await.unwrap();
    let secret = SecretString::from("s3cr3t-of-the-other");
    let password = gantry.keyring.seal(&Registry::seals_for(prefix), &secret).unwrap();
    let registry = NewRegistry {
        name: "other".parse().unwrap(),
        prefix,
        host: "other.test".parse().unwrap(),
        credentials: Some(RegistryCredentials::Given(SealedCredentials {
            username: "mona".to_owned(),
            password,
        })),
        run_limit: NonZeroU32::new(8).unwrap(),
    };
    registries::create(gantry.store.as_ref(), registry).await.unwrap();
}

/// Writes a waiting run `zz9` of registry `other` to `store`, made from what is known about the run `like`.
pub(crate) async fn forge(store: &dyn Store, like: &Run) {
    let mut forged = record(store, &like.id.to_string()).await;
    forged["id"] = json!("zz9");
    forged["registry"] = json!("other");
    forged["state"] = json!({
        "state": "waiting", "reason": { "for": "admission" }, "since": 1_700_000_000_000_i64
    });
    write(store, "zz9", &forged).await;
}

/// Checks that the run ended without having been built and without any secrets.
pub(crate) async fn assert_refused(gantry: &TestPipeline, id: &str) {
    let run = gantry.run(id).await;
    let error = run.state.done().and_then(|done| done.outcome.error()).expect("it ended");
    assert_eq!((run.status(), error.code), (RunStatus::Error, ErrorCode::Unsigned), "{run:?}");
    let told = format!("the record of run {id} lacks the service's signature");
    assert!(
        error.message.starts_with(&told) && error.message.contains("start the run again"),
        "{error}"
    );
    for pool in ["linux-amd64", "linux-arm64"] {
        let bundle = Key::new(Kind::Bundle, format_args!("{pool}/{id}"));
        assert_eq!(gantry.store.load(&[bundle]).await.unwrap(), [None], "it has no secrets");
    }
}

/// A waiting run of a task with a secret build argument.
async fn waiting_run(gantry: &TestPipeline, name: &str) -> Run {
    let task = secrets::task_with_secret(gantry, name).await;
    gantry.schedule().await;
    let requests::AcceptedRequest::Started(run) = gantry.ask(&task, None).await else {
        panic!("it is new")
    };
    *run
}

#[tokio::test]
async fn a_forged_run_of_another_registry_gets_no_secrets_and_ends_as_error() {
    let gantry = super::start().await;
    other_registry(&gantry).await;
    let genuine = waiting_run(&gantry, "hello").await;
    forge(gantry.store.as_ref(), &genuine).await;
    gantry.schedule().await;
    assert_refused(&gantry, "zz9").await;
    gantry.settle().await;
    assert_eq!(gantry.run("ca1").await.status(), RunStatus::Succeeded);
    assert_eq!(gantry.engine.asked().len(), 1, "nothing else was built");
}

#[tokio::test]
async fn a_tampered_waiting_run_gets_no_secrets_and_ends_as_error() {
    let gantry = super::start().await;
    other_registry(&gantry).await;
    let changes: [(&str, Change); 10] = [
        ("registry", |run| run["registry"] = json!("other")),
        ("source", |run| run["recipe"]["source"]["url"] = json!("https://evil.test/x")),
        ("image", |run| run["recipe"]["work"]["build"]["images"] = json!(["evil:1"])),
        ("argument", |run| run["recipe"]["work"]["build"]["build_args"] = json!({ "A": "evil" })),
        ("platform", |run| run["recipe"]["platforms"] = json!("linux/arm64")),
        ("secret", |run| {
            let sealed = run["recipe"]["work"]["build"]["secret_build_args"]["TOKEN"].clone();
            run["recipe"]["work"]["build"]["secret_build_args"]["OTHER"] = sealed;
        }),
        ("token", |run| {
            run["git_token"] = run["recipe"]["work"]["build"]["secret_build_args"]["TOKEN"].clone()
        }),
        ("purpose", |run| run["purpose"] = json!("scan")),
        ("cause", |run| run["cause"]["by"] = json!("t2")),
        ("unsigned", |run| drop(run.as_object_mut().unwrap().remove("signature").unwrap())),
    ];
    for (name, changes) in changes {
        let run = waiting_run(&gantry, name).await;
        change(&gantry, &run, changes).await;
        gantry.schedule().await;
        assert_refused(&gantry, &run.id.to_string()).await;
    }
    gantry.settle().await;
    assert!(gantry.engine.asked().is_empty(), "nothing was built");
}

#[tokio::test]
async fn a_tampered_ready_run_is_not_built_with_its_secrets() {
    let gantry = super::start().await;
    let run = waiting_run(&gantry, "hello").await;
    gantry.schedule().await;
    change(&gantry, &run, |run| run["recipe"]["work"]["build"]["dockerfile"] = json!("Evil")).await;
    gantry.settle().await;
    assert_refused(&gantry, "ca1").await;
    assert_eq!(gantry.run("ca1").await.attempts.len(), 1, "a worker took it and opened nothing");
    assert!(gantry.engine.asked().is_empty(), "nothing was built");
}

#[tokio::test]
async fn a_tampered_scan_is_not_executed_as_a_run() {
    let gantry = super::start().await;
    gantry.git.behave(Behaviour::Status(503));
    secrets::task_with_secret(&gantry, "hello").await;
    gantry.schedule().await;
    assert!(gantry.worker("worker-1").turn(&gantry.stop).await.unwrap());
    let scan = gantry.run("ca-1").await;
    assert_eq!(scan.status(), RunStatus::Queued, "it waits for the git host");
    gantry.git.behave(Behaviour::Serve);
    change(&gantry, &scan, |run| drop(run.as_object_mut().unwrap().remove("purpose").unwrap()))
        .await;
    gantry.settle().await;
    assert_refused(&gantry, "ca-1").await;
    assert!(gantry.engine.asked().is_empty(), "nothing was built");
}

#[tokio::test]
async fn resealing_does_not_sign_a_forged_run() {
    let mut gantry = super::start().await;
    gantry.keyring = secrets::ring(&[1]).into();
    other_registry(&gantry).await;
    let genuine = waiting_run(&gantry, "hello").await;
    forge(gantry.store.as_ref(), &genuine).await;
    // The index that a resealing pass reads.
    let mut batch = Batch::default();
    batch.index(Index::new("runs/all"), 0, "zz9");
    gantry.store.commit(batch).await.unwrap();
    reseal::pass(gantry.store.as_ref(), &Anew(secrets::ring(&[2, 1]))).await.unwrap();
    gantry.keyring = secrets::ring(&[2]).into();
    gantry.settle().await;
    assert_refused(&gantry, "zz9").await;
    assert_eq!(gantry.run("ca1").await.status(), RunStatus::Succeeded);
}

#[tokio::test]
async fn reruns_are_signed_as_well() {
    let gantry = super::start().await;
    waiting_run(&gantry, "hello").await;
    gantry.settle().await;
    let (first, by) = (gantry.run("ca1").await, TestPipeline::somebody());
    assert!(first.is_signed(gantry.keyring.as_ref()), "also once it has ended");
    let event = Event {
        id: "request/again".parse().unwrap(),
        registry: first.registry.clone(),
        prefix: first.id.prefix(),
        received: gantry.clock.now(),
        trace: None,
        kind: EventKind::Requested { by: by.clone(), task: None, rerun_of: Some(first.id) },
    };
    let request = RunRequest {
        draft: planner::for_rerun(&first, event.id.clone(), by),
        event,
        idempotency: None,
    };
    let (store, signer) = (gantry.store.as_ref(), gantry.keyring.as_ref());
    requests::accept(store, request, signer).await.unwrap();
    gantry.settle().await;
    let again = runs::find(store, "ca2".parse().unwrap()).await.unwrap().unwrap();
    assert_eq!(again.status(), RunStatus::Succeeded, "{again:?}");
}
