//! A run shows what its steps did.

use std::time::Duration;

use gantry_domain::id::{LeaseNonce, WorkerId};
use gantry_domain::platform::Platform;
use gantry_domain::step::{StepKind, Steps};
use gantry_seams::runs;
use gantry_seams::store::{Batch, Key, Kind};
use reqwest::StatusCode;
use serde_json::json;

use crate::rig::TestServer;

#[tokio::test]
async fn a_run_shows_the_steps_of_its_last_attempt() {
    let server = TestServer::with_registry().await;
    let build = json!({"context": "https://git.test/a.git", "images": ["a:1"]});
    server.post("/registries/contoso/builds", build).await.expect(StatusCode::CREATED);
    let store = server.store.as_ref();
    let run = "ca1".parse().unwrap();
    assert!(server.get("/runs/ca1").await.json().get("steps").is_none(), "it has begun none");

    runs::ready(
        store,
        run,
        &"linux-amd64".parse().unwrap(),
        None,
        runs::Limits { registry: 8, task: None },
    )
    .await
    .unwrap();
    let nonce: LeaseNonce = "0".repeat(32).parse().unwrap();
    let (pool, worker): (_, WorkerId) = (Platform::default().pool(), "w1".parse().unwrap());
    let lease = Duration::from_secs(60);
    let taken = runs::take(store, &pool, &worker, &nonce, lease).await.unwrap().unwrap();
    let (build, push) = ("build".parse().unwrap(), "push".parse().unwrap());
    let mut steps =
        Steps::planned([(build, StepKind::Build, vec![]), (push, StepKind::Push, vec![0])]);
    steps.begin(0, store.now().await.unwrap());
    runs::began(store, run, &taken.holder, None, &steps).await.unwrap();
    let shown = server.get("/runs/ca1").await.json();
    assert_eq!(shown["steps"][0]["id"], "build");
    assert_eq!(shown["steps"][0]["status"], "Running");
    assert_eq!(
        (&shown["steps"][1]["status"], &shown["steps"][1]["after"]),
        (&json!("Waiting"), &json!(["build"]))
    );
    assert!(
        shown["steps"][0]["started"].is_string() && shown["steps"][0].get("finished").is_none()
    );

    runs::lapse_now(store, run).await.unwrap().unwrap();
    let shown = server.get("/runs/ca1").await.json();
    assert_eq!(
        (&shown["steps"][0]["status"], &shown["steps"][1]["status"]),
        (&json!("Lost"), &json!("Skipped"))
    );
    let listed = server.get("/runs").await.json();
    assert!(listed["items"][0].get("steps").is_none(), "{listed}");

    let mut batch = Batch::default();
    batch.put(Key::new(Kind::Steps, "ca1/1"), &b"no record"[..]);
    store.commit(batch).await.unwrap();
    let shown = server.get("/runs/ca1").await.expect(StatusCode::OK);
    assert!(shown.get("steps").is_none(), "what a worker wrote hides no run: {shown}");
}
