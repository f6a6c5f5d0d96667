//! A store that fills up: bodies are moved out early, and runs keep their space.

use std::sync::Arc;

use bytes::Bytes;
use gantry_domain::delivery::{Delivery, Verdict};
use gantry_domain::hook::Provider;
use gantry_domain::run::RunStatus;
use gantry_seams::clock::Clock;
use gantry_seams::deliveries;
use gantry_sqlite::{Options, SqliteStore};
use gantry_tests::pipeline::{DOCKERFILE, REGISTRY, TestPipeline, create_registry};

const BUDGET: u64 = 4 << 20;

async fn deliver_64_kib(gantry: &TestPipeline, number: usize) -> Delivery {
    let delivery = Delivery {
        id: format!("d{number}").parse().unwrap(),
        hook: "hook".parse().unwrap(),
        provider: Provider::GitHub,
        registry: "reg".parse().unwrap(),
        prefix: TestPipeline::prefix(),
        kind: "ping".to_owned(),
        received: gantry.clock.now(),
        body_sha256: "0".repeat(64),
        body_bytes: 1 << 16,
        verdict: Verdict::Ping,
        unread: Vec::new(),
        trace: None,
        meaning: Vec::new(),
    };
    let body = Bytes::from(vec![b'x'; 1 << 16]);
    deliveries::accept(gantry.store.as_ref(), &delivery, Some(body)).await.unwrap();
    delivery
}

#[tokio::test]
async fn bodies_leave_early_when_the_store_fills_up_and_runs_go_on_meanwhile() {
    let mut gantry = super::start().await;
    let clock = Clock::Manual(gantry.clock.clone());
    let options = Options { max_bytes: Some(BUDGET), clock, ..Options::default() };
    gantry.store = Arc::new(SqliteStore::in_memory(options).unwrap());
    create_registry(gantry.store.as_ref(), "reg", REGISTRY, 1).await;
    gantry.git.repository("hello").unwrap().commit("main", DOCKERFILE).unwrap();
    let task = gantry.task("hello", "hello:{{.Run.ID}}").await;
    gantry.schedule().await;
    let scheduler = gantry.scheduler();

    let first = deliver_64_kib(&gantry, 0).await;
    assert_eq!(scheduler.keeper().make_room().await.unwrap(), 0, "there is room");
    let mut number = 1;
    while !gantry.store.room().await.unwrap().is_closed() {
        deliver_64_kib(&gantry, number).await;
        number += 1;
    }

    gantry.ask(&task, None).await;
    gantry.settle().await;
    assert_eq!(gantry.run("ca1").await.status(), RunStatus::Succeeded);

    assert!(scheduler.keeper().make_room().await.unwrap() > 0);
    assert!(!gantry.store.room().await.unwrap().is_tight());
    assert!(deliveries::find_body(gantry.store.as_ref(), &first).await.unwrap().is_none());
    assert!(gantry.blobs.get(&deliveries::body_blob_path(&first).unwrap()).await.is_ok());
}
