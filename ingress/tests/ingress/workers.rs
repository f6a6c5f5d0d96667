//! Workers, and the operator's commands for them.

use gantry_domain::worker::{EngineHealth, Worker};
use gantry_seams::{runs, workers};
use reqwest::StatusCode;
use serde_json::json;

use crate::rig::TestServer;

/// The worker `w1` of a pool reports itself.
pub(crate) async fn worker_of(server: &TestServer, pool: &str, slots: u32) {
    let record = Worker {
        id: "w1".parse().unwrap(),
        has_fixed_name: true,
        pool: pool.parse().unwrap(),
        platforms: Vec::new(),
        slots,
        runs: Vec::new(),
        version: "1".to_owned(),
        engine: EngineHealth::Ready { name: "an engine".to_owned() },
        free_disk: None,
        idle_because: None,
        last_seen: server.store.now().await.unwrap(),
    };
    workers::record_seen(server.store.as_ref(), &record).await.unwrap();
}

#[tokio::test]
async fn draining_and_resuming_are_idempotent() {
    let server = TestServer::with_registry().await;
    let absent = server.post("/workers/w1/drain", json!({})).await;
    assert_eq!(absent.status, StatusCode::NOT_FOUND);
    assert_eq!(absent.json()["error"]["message"], "no such worker: `w1`");

    worker_of(&server, "linux-amd64", 2).await;
    for _ in 0..2 {
        let drained = server.post("/workers/w1/drain", json!({})).await.expect(StatusCode::OK);
        assert_eq!(drained["drained"]["by"], "admin");
    }
    assert_eq!(server.get("/workers").await.json()["items"][0]["drained"]["by"], "admin");
    for _ in 0..2 {
        let resumed = server.post("/workers/w1/resume", json!({})).await.expect(StatusCode::OK);
        assert_eq!(resumed.get("drained"), None);
    }
}

#[tokio::test]
async fn runs_in_a_pool_without_workers_are_reported_with_the_remedy() {
    let server = TestServer::with_registry().await;
    let build =
        json!({"context": "https://git.test/a.git", "images": ["a:1"], "platform": "linux/arm64"});
    server.post("/registries/contoso/builds", build).await.expect(StatusCode::CREATED);
    let limits = runs::Limits { registry: 1, task: None };
    runs::ready(
        server.store.as_ref(),
        "ca1".parse().unwrap(),
        &"linux-arm64".parse().unwrap(),
        None,
        limits,
    )
    .await
    .unwrap();

    worker_of(&server, "linux-amd64", 2).await;
    let lack = "there is no worker in pool linux-arm64: start one with `gantry worker --pool linux-arm64`, or let all engines of \
                pool linux-amd64 emulate linux/arm64: install `qemu-user-static` on their machines, and register it with \
                `binfmt_misc`";
    assert_eq!(
        server.get("/runs/ca1").await.json()["waits_for"],
        format!("a worker of pool linux-arm64: {lack}")
    );
    assert_eq!(
        server.get("/status").await.json()["troubles"],
        json!([format!("1 run is ready: {lack}")])
    );

    worker_of(&server, "linux-arm64", 2).await;
    assert_eq!(server.get("/status").await.json()["troubles"], json!([]));
    assert_eq!(
        server.get("/runs/ca1").await.json()["waits_for"],
        "a worker of pool linux-arm64: all are busy"
    );

    server.post("/workers/w1/drain", json!({})).await.expect(StatusCode::OK);
    let troubles = server.get("/status").await.json()["troubles"].to_string();
    assert!(troubles.contains("is drained: let it take runs again with `gantry worker resume w1`"));
}
