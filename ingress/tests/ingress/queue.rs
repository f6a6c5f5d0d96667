//! Where queued runs stand, when they will probably start, and concurrency groups.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::rig::TestServer;
use crate::workers::worker_of;

async fn build(server: &TestServer) {
    let build = json!({"context": "https://git.test/a.git", "images": ["a:1"]});
    server.post("/registries/contoso/builds", build).await.expect(StatusCode::CREATED);
}

async fn queue(server: &TestServer, run: &str) -> Value {
    server.get(&format!("/runs/{run}")).await.expect(StatusCode::OK)["queue"].clone()
}

#[tokio::test]
async fn a_queued_run_tells_its_place_and_when_it_will_start_or_why_nothing_tells_that() {
    let server = TestServer::with_registry().await;
    for _ in 0..3 {
        build(&server).await;
    }
    let no_worker = "no worker of its pool takes runs";
    assert_eq!(queue(&server, "ca2").await, json!({"place": 2, "no_estimate": no_worker}));

    worker_of(&server, "linux-amd64", 1).await;
    let first = queue(&server, "ca1").await;
    assert_eq!(first["place"], 1);
    assert!(first["estimated_start"].is_string(), "a slot is free: {first}");
    let no_history =
        "no run of its pool has succeeded lately, so nothing tells how long those before it take";
    assert_eq!(queue(&server, "ca3").await, json!({"place": 3, "no_estimate": no_history}));

    let listed = server.get("/runs").await.expect(StatusCode::OK);
    let places: Vec<&Value> =
        listed["items"].as_array().unwrap().iter().map(|run| &run["queue"]["place"]).collect();
    assert_eq!(places, [3, 2, 1]);

    server.post("/runs/ca1/cancel", json!({})).await.expect(StatusCode::OK);
    assert_eq!(queue(&server, "ca1").await, Value::Null);
    assert_eq!(queue(&server, "ca2").await["place"], 1);
}

#[tokio::test]
async fn a_task_is_in_a_concurrency_group_until_it_is_taken_out() {
    let server = TestServer::with_registry().await;
    let tasks = "/registries/contoso/tasks";
    let task = |group: Value| {
        json!({
            "name": "web",
            "context": "https://git.test/a.git#main",
            "images": ["web:1"],
            "concurrency_group": group
        })
    };
    let refused = server.post(tasks, task(json!("a b"))).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    assert!(refused.json().to_string().contains("`a b` is no concurrency group"));

    let created = server.post(tasks, task(json!("deploy"))).await.expect(StatusCode::CREATED);
    assert_eq!(created["concurrency_group"], "deploy");
    let web = format!("{tasks}/web");
    let kept = server.patch(&web, json!({"timeout": 60})).await.expect(StatusCode::OK);
    assert_eq!(kept["concurrency_group"], "deploy");
    let out = server.patch(&web, json!({"concurrency_group": null})).await;
    assert_eq!(out.expect(StatusCode::OK).get("concurrency_group"), None);
}
