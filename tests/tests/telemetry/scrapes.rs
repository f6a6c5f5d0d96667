//! Prometheus scrapes every process, and finds what happened.

use std::net::SocketAddr;

use gantry_ops::metrics;
use gantry_tests::role::Role;

use crate::installation::Installation;
use crate::prometheus::{Prometheus, repository, value};

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_scrapes_gantry_up() {
    let gantry = Installation::up(None).await;
    let targets = [("gantry-up", gantry.roles[0].telemetry())];
    let mut prometheus = Prometheus::start(&targets).await;
    let watched = gantry.watch().await;
    assert_eq!(gantry.deliver(&watched, "guessed", None, "{}").await, 401);
    assert_eq!(gantry.push(&watched, None).await.status, "Succeeded");
    for query in [
        r#"gantry_hooks_total{provider="github",verdict="refused"} == 1"#,
        r#"gantry_hooks_total{provider="github",verdict="accepted"} == 1"#,
        r#"gantry_hook_answer_seconds_count{provider="github"} == 2"#,
        r#"gantry_api_answer_seconds_count{status="2xx"} > 0"#,
        r#"gantry_decisions_total{outcome="run"} == 1"#,
        r#"gantry_runs_total{type="auto_build",status="succeeded"} == 1"#,
        r#"gantry_run_queued_seconds_count{type="auto_build"} == 1"#,
        r#"gantry_run_duration_seconds_count{status="succeeded"} == 1"#,
        r#"gantry_attempt_stage_seconds_count{stage="push"} == 1"#,
        r#"gantry_builds_total{result="built"} == 1"#,
        "gantry_pushed_bytes_total > 0",
        r#"gantry_engine_operation_seconds_count{operation="build"} == 1"#,
        r#"gantry_store_operation_seconds_count{operation="commit"} > 0"#,
        r#"gantry_queue_operation_seconds_count{queue="events",operation="publish"} > 0"#,
        r#"gantry_doorbells_claimed_total{queue="jobs"} > 0"#,
        r#"sum by (pool) (gantry_pool_workers) == 1"#,
        r#"gantry_worker_slots{state="free"} == 2"#,
        "gantry_worker_free_disk_bytes > 0",
        "gantry_worker_takes_runs == 1",
        "gantry_store_used_bytes > 0",
        "time() - gantry_last_sweep_timestamp_seconds < 60",
        "gantry_build_info == 1",
    ] {
        prometheus.until(query, |found| !found.is_empty()).await;
    }
    assert!(prometheus.alerts().await.len() > 5);
    for expression in dashboard() {
        assert!(prometheus.understands(&expression).await, "{expression}");
    }
    let firing = prometheus.until("ALERTS{alertstate=\"firing\"}", |_| true).await;
    assert!(firing.is_empty(), "{firing:#?}");
}

/// The queries of the dashboard.
fn dashboard() -> Vec<String> {
    let text = std::fs::read_to_string(repository().join("deploy/grafana/dashboards/gantry.json"));
    let dashboard: serde_json::Value = serde_json::from_str(&text.unwrap()).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.filter_map(|panel| panel["targets"].as_array()).flatten();
    let asked = targets.map(|target| target["expr"].as_str().unwrap());
    asked.map(|expression| expression.replace("$__rate_interval", "1m")).collect()
}

async fn scrape_each_role() {
    let gantry = Installation::apart(None).await;
    let jobs = ["gantry-ingress", "gantry-scheduler", "gantry-worker"];
    let addresses = gantry.roles.iter().map(Role::telemetry);
    let targets: Vec<(&str, SocketAddr)> = jobs.into_iter().zip(addresses).collect();
    let mut prometheus = Prometheus::start(&targets).await;
    let watched = gantry.watch().await;
    assert_eq!(gantry.push(&watched, None).await.status, "Succeeded");
    for query in [
        r#"gantry_hooks_total{job="gantry-ingress",verdict="accepted"} == 1"#,
        r#"gantry_decisions_total{job="gantry-scheduler",outcome="run"} == 1"#,
        r#"gantry_pool_workers{job="gantry-scheduler"} == 1"#,
        r#"gantry_runs_total{job="gantry-worker",status="succeeded"} == 1"#,
        r#"gantry_doorbells_claimed_total{job="gantry-scheduler",queue="events"} > 0"#,
        r#"gantry_store_operation_seconds_count{job="gantry-worker",operation="commit"} > 0"#,
    ] {
        prometheus.until(query, |found| !found.is_empty()).await;
    }
    // Each process exports every metric without a pool label; those of other roles are zero.
    for metric in metrics::table().iter().filter(|metric| metric.kind == "counter") {
        let query = format!("count(count by (job) ({}))", metric.name);
        let found = prometheus.until(&query, |found| !found.is_empty()).await;
        assert_eq!(value(&found[0]), "3", "{}", metric.name);
    }
}

mod slow {
    #[tokio::test(flavor = "multi_thread")]
    async fn prometheus_scrapes_each_role() {
        super::scrape_each_role().await;
    }
}
