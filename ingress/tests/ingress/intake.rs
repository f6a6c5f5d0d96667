//! Near the store's budget nothing new is accepted, and existing runs continue.

use std::time::Duration;

use gantry_domain::hook::{Hook, Provider};
use gantry_domain::id::{LeaseNonce, WorkerId};
use gantry_domain::run::{Outcome, Product};
use gantry_domain::step::Steps;
use gantry_domain::timestamp::Timestamp;
use gantry_seams::deliveries::{self, Part};
use gantry_seams::runs::{self, Finish};
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::rig::{Answer, TestServer};

const BUDGET: u64 = 8 << 20;

/// A body of about 16 KiB.
fn body(number: usize) -> String {
    let padding: Vec<String> = (0..256).map(|n| format!("{:064x}", number * 256 + n)).collect();
    json!({"zen": padding}).to_string()
}

async fn send(server: &TestServer, hook: &Hook, number: usize) -> Answer {
    Answer::of(server.github(hook, "ping", &format!("d-{number}"), &body(number))).await
}

/// Sends until a response is not 2xx. Returns how many were accepted.
async fn fill(server: &TestServer, hook: &Hook) -> (usize, Answer) {
    for number in 0..10_000 {
        let room = server.store.room().await.unwrap();
        if room.used > BUDGET / 100 * 90 {
            // The server checks once a second, so a faster sender would exceed the budget itself.
            tokio::time::sleep(Duration::from_millis(60)).await;
        }
        let answer = send(server, hook, number).await;
        if !answer.status.is_success() {
            return (number, answer);
        }
    }
    panic!("it is never full");
}

#[tokio::test]
async fn a_store_near_its_budget_takes_no_hooks_and_no_uploads_and_lets_runs_go_on() {
    let server = TestServer::open_on_budget(BUDGET).await;
    server.create_registry("contoso").await;
    let hook = server.hook(Provider::GitHub).await;
    let build = json!({"context": "https://git.test/a.git", "images": ["a:1"]});
    server.post("/registries/contoso/builds", build.clone()).await.expect(StatusCode::CREATED);

    let (sent, answer) = fill(&server, &hook).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.json()["error"]["code"], "full");
    assert_eq!(answer.headers["retry-after"], "30");
    assert_eq!(server.ledger().await.len(), sent, "each 2xx is stored, and nothing else");
    let upload = server.api(Method::POST, "/registries/contoso/uploads").bearer_auth(&server.admin);
    assert_eq!(Answer::of(upload.body("x")).await.status, StatusCode::SERVICE_UNAVAILABLE);
    let another = server.post("/registries/contoso/builds", build).await;
    assert_eq!(another.status, StatusCode::SERVICE_UNAVAILABLE);
    let status = server.get("/status").await.json();
    assert!(status["troubles"].to_string().contains("raise `store.budget`"), "{status}");

    // The run that was created before is admitted, leased and ended.
    let store = server.store.as_ref();
    let limits = runs::Limits { registry: 8, task: None };
    let run = "ca1".parse().unwrap();
    runs::ready(store, run, &"linux-amd64".parse().unwrap(), None, limits).await.unwrap();
    let nonce: LeaseNonce = "0".repeat(32).parse().unwrap();
    let (pool, worker): (_, WorkerId) = ("linux-amd64".parse().unwrap(), "w1".parse().unwrap());
    let lease = Duration::from_secs(60);
    let taken = runs::take(store, &pool, &worker, &nonce, lease).await.unwrap().unwrap();
    runs::began(store, run, &taken.holder, None, &Steps::default()).await.unwrap();
    let outcome = Finish::Outcome(Outcome::Succeeded(Product::default()));
    runs::finish(store, run, &taken.holder, outcome, &Steps::default()).await.unwrap();
    assert_eq!(server.get("/runs/ca1").await.json()["status"], "Succeeded");

    // As the scheduler does once bodies are in the object store.
    let end_of_time = Timestamp::from_millis(i64::MAX);
    let part = Part::WithBody;
    let whole = deliveries::older_than(store, hook.prefix, part, end_of_time, None, 1000).await;
    for delivery in whole.unwrap().items {
        deliveries::drop_body(store, &delivery).await.unwrap();
    }
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        if send(&server, &hook, sent).await.status.is_success() {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "hooks are taken again");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
