//! A worker's output is readable through other processes: at once, from the first byte, and after the worker's death.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use gantry_api::LogEvent;
use gantry_domain::run::RunStatus;
use gantry_domain::timestamp::Timestamp;
use gantry_seams::logs;
use gantry_tests::pipeline::{LEASE, TestPipeline};
use gantry_worker::LeaseTimes;
use gantry_worker::engine::OutputStream;
use gantry_worker::engine::scripted::Action;
use serde_json::json;

use crate::ingress::{TestIngress, now, time};
use crate::installation::Installation;

const DOCKERFILE: &[(&str, &str)] = &[("Dockerfile", "FROM registry.test/busybox:1\nRUN true\n")];

/// Renewed often, so that the test may move the clock.
const RENEWED: LeaseTimes = LeaseTimes { period: LEASE, renew: Duration::from_millis(100) };

async fn installation(scripts: impl IntoIterator<Item = Vec<Action>>) -> Installation {
    let installation = Installation::start().await;
    installation.parts.git.repository("hello").unwrap().commit("main", DOCKERFILE).unwrap();
    for script in scripts {
        installation.parts.engine.script(&TestPipeline::repository("hello"), script);
    }
    installation.schedule().await;
    installation
}

fn source(installation: &Installation) -> serde_json::Value {
    json!({"context": format!("{}#main", installation.parts.git.url("hello"))})
}

fn says(text: impl Into<Bytes>) -> Action {
    Action::Output(OutputStream::Stdout, text.into())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_is_readable_through_another_process_at_once() {
    const LINES: usize = 60;
    let pause = Duration::from_millis(37);
    let lines = (0..LINES).flat_map(|n| [Action::Work(pause), says(format!("line {n}\n"))]);
    // The build does not end, so that lines are not read only because of its end.
    let installation = installation([lines.chain([Action::Hang]).collect()]).await;
    let ingress = TestIngress::open(&installation).await;
    let _worker = installation.work(RENEWED).await;
    let run = ingress.build(source(&installation)).await;

    let mut read = 0;
    let mut events = ingress.follow(&run).await;
    while read < LINES {
        match events.next().await.expect("it goes on") {
            LogEvent::Log(chunk) => read += chunk.text.matches(" line ").count(),
            LogEvent::Hole(hole) => panic!("{hole:?}"),
            LogEvent::Status(_) | LogEvent::Attempt(_) | LogEvent::End(_) => {}
        }
    }
    ingress.cancel(&run).await;
}

/// Waits until no log has pieces in the store.
async fn until_packed(installation: &Installation) {
    let packed = async {
        while !logs::open_logs(installation.parts.store.as_ref(), None, 1).await.unwrap().is_empty()
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), packed).await.expect("tails are packed");
}

/// Separate, because writing twenty megabytes twice takes long.
mod slow {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_worker_killed_at_twenty_megabytes_leaves_all_but_its_last_seconds() {
        const SAID: u64 = 20_000_000;
        let first = vec![Action::Log { bytes: 2 * SAID }, Action::Hang];
        let installation = installation([first, vec![says("all anew\n")]]).await;
        let ingress = TestIngress::open(&installation).await;
        let worker = installation.work(RENEWED).await;
        let run = ingress.build(source(&installation)).await;

        // A client follows from the beginning, across both attempts.
        let mut events = ingress.follow(&run).await;
        let mut live = String::new();
        let mut last = Timestamp::default();
        while (live.len() as u64) < SAID {
            if let LogEvent::Log(chunk) = events.next().await.unwrap() {
                assert_eq!(chunk.offset, live.len() as u64);
                live.push_str(&chunk.text);
                last = time(&chunk.at);
            }
        }
        worker.kill();
        let killed = now();
        // The rest of the killed worker's log is in the store, and is packed after its lease ends.
        installation.end_lease(&run).await;
        let _second = installation.work(RENEWED).await;
        let mut second = String::new();
        let mut attempts = 0;
        while let Some(event) = events.next().await {
            match event {
                LogEvent::Log(chunk) if chunk.attempt == 1 => {
                    assert_eq!(attempts, 0, "it goes on after the mark of the next attempt");
                    assert_eq!(chunk.offset, live.len() as u64);
                    live.push_str(&chunk.text);
                    last = time(&chunk.at);
                }
                LogEvent::Log(chunk) => second.push_str(&chunk.text),
                LogEvent::Attempt(attempt) => {
                    assert_eq!(attempt.attempt, 2);
                    attempts += 1;
                }
                LogEvent::Hole(hole) => panic!("{hole:?}"),
                LogEvent::Status(_) | LogEvent::End(_) => {}
            }
        }
        assert_eq!(attempts, 1);
        assert!(second.contains("all anew"), "{second}");
        let lost = killed.since(last).as_millis();
        println!("of a killed worker's log the last {lost} ms are lost");
        assert!(lost <= 5_000, "the last {lost} ms are lost");

        installation.until(&run, RunStatus::Succeeded).await;
        // A late reader gets the same from the first byte and from any other offset.
        let late = TestIngress::open(&installation).await;
        assert!(late.log(&run, "?attempt=1").await == live);
        let middle = live.len() / 2;
        assert!(late.log(&run, &format!("?attempt=1&offset={middle}")).await == live[middle..]);
        until_packed(&installation).await;
        assert!(late.log(&run, "?attempt=1").await == live);
    }
}
