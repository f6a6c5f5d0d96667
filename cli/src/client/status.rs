//! `gantry status`: shows the state of the installation.

use std::fmt;

use anyhow::Result;
use gantry_api::{Status, StoreStatus};

use super::Client;
use super::table::{Details, instant, size};
use super::worker::engine;
use crate::exit::Exit;

/// Show the state of the installation: store, queue, engines, disks, waiting runs and why, failing hooks
#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "The exit code is 0 when nothing needs a person, and 1 when something does."
)]
pub(crate) struct ShowStatus {}

impl ShowStatus {
    pub(crate) async fn run(self, client: &Client) -> Result<Exit> {
        let status: Status = client.api.get(&["status"]).await?;
        client.output.print(&status, Shown(&status, client.api.address()))?;
        Ok(if status.ok { Exit::Ok } else { Exit::Failed })
    }
}

struct Shown<'a>(&'a Status, String);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(status, url) = self;
        let mut details = Details::default();
        details
            .line("server", format_args!("{url}, version {}", status.version))
            .line(
                "store",
                words_of(
                    status.store.ok,
                    format_args!(
                        "answers in {} ms, {}",
                        status.store.latency_ms,
                        room(&status.store)
                    ),
                ),
            )
            .line("queue", words_of(status.queue.ok, "takes doorbells"))
            .line(
                "runs",
                format_args!("{} queued, {} running", status.queued_runs, status.leased_runs),
            )
            .maybe(
                "oldest waiting",
                status.oldest_waiting.as_ref().map(|oldest| {
                    format!(
                        "{} since {}, for {}",
                        oldest.run,
                        instant(&oldest.created),
                        oldest.waits_for
                    )
                }),
            );
        if status.workers.is_empty() {
            details.line("workers", "none: runs wait until one is there");
        }
        details.each(
            "workers",
            status.workers.iter().map(|worker| {
                let disk = worker.free_disk;
                let disk = disk.map(|free| format!(", {} free", size(free))).unwrap_or_default();
                let (taken, slots) = (worker.runs.len(), worker.slots);
                let engine = engine(worker);
                let drained = if worker.drained.is_some() { ", drained" } else { "" };
                format!(
                    "{} ({}): {taken} of {slots} slots{drained}{disk}, {engine}",
                    worker.id, worker.pool
                )
            }),
        );
        details.each(
            "failing hooks",
            status.failing_hooks.iter().map(|failing| {
                let counts = &failing.counts;
                format!(
                    "{} of {}: {} refused, {} unreadable, {} not stored in time",
                    failing.hook,
                    failing.registry,
                    counts.unauthorized,
                    counts.unreadable,
                    counts.unavailable
                )
            }),
        );
        details.each(
            "refused logins",
            status.failing_credentials.iter().map(|failing| {
                let what = failing.task.as_ref().map_or("quick builds", |task| task.as_str());
                format!("{what} of {}, in run {}", failing.registry, failing.run)
            }),
        );
        details.each(
            "broken records",
            status
                .quarantined
                .iter()
                .map(|record| format!("{} since {}", record.key, instant(&record.since))),
        );
        details.each("needs you", &status.troubles);
        details.fmt(f)
    }
}

fn room(store: &StoreStatus) -> String {
    match store.budget {
        Some(budget) => format!("{} of {} taken", size(store.used), size(budget)),
        None => format!("{} taken", size(store.used)),
    }
}

fn words_of(ok: bool, words: impl fmt::Display) -> String {
    if ok { words.to_string() } else { "does not answer".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_attention_is_shown_last() {
        let status: Status = serde_json::from_value(serde_json::json!({
            "ok": false, "troubles": ["worker w2 has no engine: start Docker"], "version": "0.1.0",
            "store": {"ok": true, "latency_ms": 1, "used": 1_073_741_824_u64, "budget": 4_294_967_296_u64}, "queue": {"ok": true, "failed": 0},
            "workers": [
                {"id": "w1", "pool": "linux-amd64", "platforms": ["linux/amd64"], "slots": 2, "runs": ["ca1"],
                 "version": "0.1.0", "engine": {"ok": true, "message": "Docker Engine 27.1"},
                 "free_disk": 12_884_901_888_u64, "last_seen": "2026-03-09T20:30:10Z"},
                {"id": "w2", "pool": "linux-amd64", "platforms": [], "slots": 2, "runs": [], "version": "0.1.0",
                 "engine": {"ok": false, "message": "nobody answers at /var/run/docker.sock"},
                 "idle_because": "no engine", "last_seen": "2026-03-09T20:30:10Z"}
            ],
            "queued_runs": 3, "leased_runs": 1,
            "oldest_waiting": {"run": "ca2", "created": "2026-03-09T20:30:10.5Z", "waits_for": "a worker"},
            "failing_hooks": [{"hook": "h1", "registry": "demo", "counts":
                {"accepted": 1, "dropped": 0, "unauthorized": 4, "unreadable": 0, "unavailable": 0}}],
            "failing_credentials": [
                {"registry": "demo", "task": "web", "run": "ca7", "message": "ghcr.io refused access"}
            ],
            "unknown_hook_requests": 0,
            "quarantined": [{"key": "run/ca0", "since": "2026-03-09T20:30:10Z"}]
        }))
        .unwrap();
        insta::assert_snapshot!(Shown(&status, "http://127.0.0.1:7300".to_owned()), @r"
        server          http://127.0.0.1:7300, version 0.1.0
        store           answers in 1 ms, 1.0 GiB of 4.0 GiB taken
        queue           takes doorbells
        runs            3 queued, 1 running
        oldest waiting  ca2 since 2026-03-09T20:30:10Z, for a worker
        workers         w1 (linux-amd64): 1 of 2 slots, 12.0 GiB free, Docker Engine 27.1
                        w2 (linux-amd64): 0 of 2 slots, no engine: nobody answers at /var/run/docker.sock
        failing hooks   h1 of demo: 4 refused, 0 unreadable, 0 not stored in time
        refused logins  web of demo, in run ca7
        broken records  run/ca0 since 2026-03-09T20:30:10Z
        needs you       worker w2 has no engine: start Docker
        ");
    }
}
