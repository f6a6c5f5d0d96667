//! A cancellation that one process requests ends a run of another.

use std::time::Duration;

use gantry_domain::run::RunStatus;
use gantry_tests::pipeline::TestPipeline;
use gantry_worker::LeaseTimes;
use gantry_worker::engine::scripted::Action;
use serde_json::json;

use crate::ingress::TestIngress;
use crate::installation::Installation;

const DOCKERFILE: &[(&str, &str)] = &[("Dockerfile", "FROM registry.test/busybox:1\nRUN true\n")];

async fn hanging_run() -> (Installation, TestIngress, String) {
    let installation = Installation::start().await;
    installation.parts.git.repository("hello").unwrap().commit("main", DOCKERFILE).unwrap();
    installation.parts.engine.script(&TestPipeline::repository("hello"), [Action::Hang]);
    installation.schedule().await;
    let ingress = TestIngress::open(&installation).await;
    let context = format!("{}#main", installation.parts.git.url("hello"));
    let run = ingress.build(json!({"context": context})).await;
    (installation, ingress, run)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_doorbell_ends_a_run_at_once() {
    let (installation, ingress, run) = hanging_run().await;
    // No renewal happens during the test, so only the doorbell can notify the worker.
    let rarely = Duration::from_secs(600);
    let _worker = installation.work(LeaseTimes { period: rarely * 2, renew: rarely }).await;
    installation.parts.engine.until_running(1).await;
    ingress.cancel(&run).await;
    installation.until(&run, RunStatus::Canceled).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_broker_a_cancel_arrives_with_the_next_renewal() {
    let (mut installation, ingress, run) = hanging_run().await;
    let renew = Duration::from_millis(500);
    let _worker = installation.work(LeaseTimes { period: renew * 60, renew }).await;
    installation.parts.engine.until_running(1).await;
    installation.lose_broker();
    ingress.cancel(&run).await;
    installation.until(&run, RunStatus::Canceled).await;
}
