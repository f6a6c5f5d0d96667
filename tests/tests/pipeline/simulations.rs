//! A simulated event is decided like a received one, and nothing comes of it.

use std::time::Duration;

use gantry_domain::event::Event;
use gantry_domain::hook::Sender;
use gantry_domain::id::EventId;
use gantry_domain::task::Status;
use gantry_seams::runs::{self, RunFilter};
use gantry_seams::{decisions, events};
use gantry_tests::pipeline::{DOCKERFILE, TestPipeline};
use serde_json::Value;

const PAYLOADS: &str = include_str!("../../fixtures/octokit-webhooks-examples/api.github.com.json");

/// The repository of most of the published payloads.
const REPOSITORY: &str = "https://github.com/Codertocat/Hello-World.git";

/// The candidates of a decision, without the ids of runs.
async fn list(gantry: &TestPipeline, event: &EventId) -> Vec<String> {
    for _ in 0..20 {
        gantry.schedule().await;
        let found = decisions::find(gantry.store.as_ref(), event).await.unwrap();
        if found.is_some_and(|found| found.is_final) {
            let said = gantry.decision(event).await;
            return said.lines().map(without_run).collect();
        }
        // A host that may be behind is asked again.
        gantry.clock.advance(Duration::from_secs(60));
    }
    panic!("event {event} stays undecided");
}

fn without_run(line: &str) -> String {
    match line.split_once(": run ca") {
        Some((task, rest)) => {
            let rest = rest.trim_start_matches(|c: char| c.is_ascii_digit());
            format!("{task}: would run{rest}")
        }
        None => line.to_owned(),
    }
}

async fn simulate(gantry: &TestPipeline, number: &str, kind: &str, body: &str) -> Vec<Vec<String>> {
    let (_, kinds) = gantry_ingress::meaning(&Sender::GitHub, None, kind, body.as_bytes());
    let mut lists = Vec::new();
    for (place, kind) in kinds.into_iter().enumerate() {
        let event = Event {
            id: EventId::of_simulation(number, place).unwrap(),
            registry: "reg".parse().unwrap(),
            prefix: TestPipeline::prefix(),
            received: gantry.clock.now(),
            trace: None,
            kind: kind.without_hook(),
        };
        events::notice(gantry.store.as_ref(), &event).await.unwrap();
        lists.push(list(gantry, &event.id).await);
    }
    lists
}

#[tokio::test]
async fn every_published_payload_is_decided_alike_when_simulated_and_when_received() {
    let gantry = super::start().await;
    let hello = gantry.git.repository("hello").unwrap();
    hello.commit("main", DOCKERFILE).unwrap();
    for (name, drafts) in [("hello", false), ("drafts", true)] {
        gantry
            .task_with(name, "hello:{{.Run.ID}}", |task| {
                let source = format!("{}#main", gantry.git.url("hello"));
                task.recipe.source = source.parse().unwrap();
                let trigger = task.source_trigger.as_mut().unwrap();
                let any = vec!["**".parse().unwrap()];
                trigger.commit.branches = any.clone().try_into().unwrap();
                trigger.commit.tags = any.clone().try_into().unwrap();
                trigger.pull_request.status = Status::Enabled;
                trigger.pull_request.branches = any.try_into().unwrap();
                trigger.pull_request.drafts = drafts;
            })
            .await;
    }
    gantry.providers.open();
    gantry.schedule().await;
    let text = PAYLOADS.replace(REPOSITORY, &gantry.git.url("hello"));
    let kinds: Vec<Value> = serde_json::from_str(&text).unwrap();
    let (mut payloads, mut decided) = (0, 0);
    for kind in &kinds {
        let name = kind["name"].as_str().unwrap();
        for (number, example) in kind["examples"].as_array().unwrap().iter().enumerate() {
            payloads += 1;
            let (id, body) = (format!("{name}-{number}"), example.to_string());
            let simulated = simulate(&gantry, &id, name, &body).await;
            if simulated.is_empty() {
                continue;
            }
            let (event, _) = gantry.deliver_kind(&id, name, body).await;
            assert_eq!(simulated, [list(&gantry, &event).await], "{id}");
            decided += 1;
        }
    }
    assert_eq!(payloads, 329);
    assert!(decided >= 20, "{decided}");
    assert!(!gantry.transcript().await.is_empty(), "some of them start runs");
}

#[tokio::test]
async fn nothing_comes_of_a_simulation() {
    let gantry = super::start().await;
    let hello = gantry.git.repository("hello").unwrap();
    let first = hello.commit("main", DOCKERFILE).unwrap();
    gantry.task("hello", "hello:{{.Run.ID}}").await;
    gantry.settle().await;
    let second = hello.commit("main", &[("file", "2")]).unwrap();
    let body = serde_json::json!({
        "ref": "refs/heads/main", "before": first, "after": second,
        "repository": {"clone_url": gantry.git.url("hello")},
    })
    .to_string();
    for number in ["1", "2"] {
        let lists = simulate(&gantry, number, "push", &body).await;
        assert_eq!(lists, [["reg/hello: would run"]]);
    }
    let all = runs::list(gantry.store.as_ref(), &RunFilter::default(), None, 9).await.unwrap();
    assert_eq!(all, []);
    gantry.deliver("d1", "hello", Some(&first), Some(&second)).await;
    gantry.settle().await;
    assert_eq!(gantry.run("ca1").await.cause.commit().unwrap().as_str(), second);
}
