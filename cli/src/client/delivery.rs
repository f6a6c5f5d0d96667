//! `gantry delivery`: shows deliveries and the decisions on their events.

use anyhow::{Result, anyhow};
use clap::Subcommand;
use gantry_api::{Candidate, Delivery, DeliveryDetails, Event, ReplayResult};

use super::Client;
use super::arguments::RegistryArg;
use super::table::{Details, Table, instant, size};
use crate::exit::{Exit, UsageError};

/// Show deliveries and what was decided for them, and replay them
#[derive(Debug, Subcommand)]
pub(crate) enum Deliveries {
    /// List deliveries from the newest
    #[command(visible_alias = "ls")]
    List(List),
    /// Show a delivery, its events, and for each task the run or the first rule that said no
    Show(OneDelivery),
    /// Replay a delivery: decide its body again
    Replay(OneDelivery),
}

#[derive(Debug, clap::Args)]
pub(crate) struct List {
    #[command(flatten)]
    registry: RegistryArg,
    /// Only deliveries to this hook
    #[arg(long, value_name = "HOOK")]
    hook: Option<String>,
    /// At most this many
    #[arg(long, default_value_t = 15, value_name = "COUNT")]
    top: usize,
}

#[derive(Debug, clap::Args)]
pub(crate) struct OneDelivery {
    /// The delivery's id, as the sender shows it
    pub(super) delivery: String,
    /// Its hook, if two hooks have a delivery with this id
    #[arg(long, value_name = "HOOK")]
    pub(super) hook: Option<String>,
}

impl Deliveries {
    pub(crate) async fn run(self, client: &Client) -> Result<Exit> {
        match self {
            Self::List(list) => list.run(client).await,
            Self::Show(one) => {
                let hook = one.hook(client).await?;
                let found: DeliveryDetails =
                    client.api.get(&["hooks", &hook, "deliveries", &one.delivery]).await?;
                client.output.print(&found, details(&found.delivery, &found.events))?;
                Ok(Exit::Ok)
            }
            Self::Replay(one) => {
                let hook = one.hook(client).await?;
                let path = ["hooks", &hook, "deliveries", &one.delivery, "replays"];
                let replayed: ReplayResult = client.api.post(&path, &serde_json::json!({})).await?;
                let id = &replayed.delivery.id;
                client.output.print(
                    &replayed,
                    format_args!(
                        "replayed as {id}: `gantry delivery show {id}` says what was decided\n"
                    ),
                )?;
                Ok(Exit::Ok)
            }
        }
    }
}

impl List {
    async fn run(self, client: &Client) -> Result<Exit> {
        let filter =
            [("registry", self.registry.registry.as_deref()), ("hook", self.hook.as_deref())];
        let deliveries: Vec<Delivery> = client.api.list(&["deliveries"], &filter, self.top).await?;
        client.output.print(&deliveries, table(&deliveries))?;
        Ok(Exit::Ok)
    }
}

impl OneDelivery {
    /// The hook that received it: ids are unique only within a hook.
    pub(super) async fn hook(&self, client: &Client) -> Result<String> {
        if let Some(hook) = &self.hook {
            return Ok(hook.clone());
        }
        let found: Vec<Delivery> =
            client.api.list(&["deliveries"], &[("id", Some(&self.delivery))], 2).await?;
        match found.as_slice() {
            [one] => Ok(one.hook.clone()),
            [] => Err(anyhow!(
                "there is no delivery {}: `gantry delivery list` shows those that are kept",
                self.delivery
            )),
            many => {
                let hooks: Vec<&str> = many.iter().map(|one| one.hook.as_str()).collect();
                let hooks = hooks.join(" and ");
                Err(UsageError(format!(
                    "hooks {hooks} both had delivery {}: say which with --hook",
                    self.delivery
                ))
                .into())
            }
        }
    }
}

fn table(deliveries: &[Delivery]) -> Table<6> {
    let mut table = Table::new(
        ["DELIVERY", "RECEIVED", "PROVIDER", "TYPE", "VERDICT", "WHY"],
        "no deliveries: `gantry hook test HOOK` tries a hook",
    );
    for one in deliveries {
        table.row([
            one.id.clone(),
            instant(&one.received),
            one.provider.clone(),
            one.kind.clone(),
            verdict(one),
            one.why.clone().unwrap_or_default(),
        ]);
    }
    table
}

fn verdict(delivery: &Delivery) -> String {
    match (delivery.verdict.as_str(), delivery.events.len()) {
        ("events", 1) => "1 event".to_owned(),
        ("events", count) => format!("{count} events"),
        (verdict, _) => verdict.replace('_', " "),
    }
}

fn details(delivery: &Delivery, events: &[Event]) -> Details {
    let mut details = Details::default();
    details
        .line("delivery", &delivery.id)
        .line("hook", &delivery.hook)
        .line("registry", &delivery.registry)
        .line("provider", &delivery.provider)
        .line("type", &delivery.kind)
        .line("received", instant(&delivery.received))
        .line(
            "body",
            format_args!("{}, sha256:{}", size(delivery.body_bytes), delivery.body_sha256),
        )
        .line("verdict", verdict(delivery))
        .maybe("why", delivery.why.as_ref())
        .each("unread", &delivery.unread);
    events.iter().for_each(|event| event_lines(&mut details, event));
    details
}

/// What happened, and the decision.
pub(super) fn event_lines(details: &mut Details, event: &Event) {
    details.line("event", &event.what).each("decision", decision(event));
}

/// An event with its decision.
pub(super) fn event_details(event: &Event) -> Details {
    let mut details = Details::default();
    details
        .line("event", &event.id)
        .line("registry", &event.registry)
        .line("received", instant(&event.received))
        .line("what", &event.what)
        .each("decision", decision(event));
    details
}

/// One line for each task: the run, or the rule that said no.
fn decision(event: &Event) -> Vec<String> {
    let Some(decision) = &event.decision else { return vec!["not yet decided".to_owned()] };
    let mut lines: Vec<String> = decision.candidates.iter().map(candidate).collect();
    lines.extend(decision.nothing.clone());
    if !decision.is_final {
        lines.push("more is being decided".to_owned());
    }
    lines
}

fn candidate(candidate: &Candidate) -> String {
    let task = candidate.task.as_deref().unwrap_or("build");
    let note = candidate.note.as_ref().map(|note| format!(" ({note})")).unwrap_or_default();
    match (&candidate.run, &candidate.wave, &candidate.why) {
        (Some(run), _, _) => format!("{task}: run {run}{note}"),
        (None, Some(wave), _) => format!("{task}: wave {wave}{note}"),
        (None, None, _) if candidate.would_run => format!("{task}: would run{note}"),
        (None, None, Some(why)) => format!("{task}: no: {why}{note}"),
        (None, None, None) => format!("{task}: no{note}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_delivery_is_shown_with_the_rule_that_said_no() {
        let found: DeliveryDetails = serde_json::from_value(json!({
            "delivery": {
                "id": "6f0d", "hook": "h1", "provider": "github", "registry": "demo", "kind": "push",
                "received": "2026-03-09T20:30:10.1Z", "body_bytes": 8192, "body_sha256": "aa", "verdict": "events",
                "events": ["6f0d/0"]
            },
            "events": [{
                "id": "6f0d/0", "registry": "demo", "kind": "push", "what": "push to dev of git.example/hello",
                "received": "2026-03-09T20:30:10Z",
                "decision": {"at": "2026-03-09T20:30:10Z", "is_final": true, "candidates": [
                    {"task": "hello", "rule": "other_branch", "why": "it builds main, not dev"},
                    {"task": "nightly", "run": "ca7", "note": "the push names http://git.example/hello"}
                ]}
            }]
        }))
        .unwrap();
        insta::assert_snapshot!(details(&found.delivery, &found.events), @r"
        delivery  6f0d
        hook      h1
        registry  demo
        provider  github
        type      push
        received  2026-03-09T20:30:10Z
        body      8.0 KiB, sha256:aa
        verdict   1 event
        event     push to dev of git.example/hello
        decision  hello: no: it builds main, not dev
                  nightly: run ca7 (the push names http://git.example/hello)
        ");
        let dropped = Delivery {
            verdict: "of_no_interest".to_owned(),
            why: Some("a tag".to_owned()),
            ..found.delivery.clone()
        };
        insta::assert_snapshot!(table(&[found.delivery, dropped]), @r"
        DELIVERY  RECEIVED              PROVIDER  TYPE  VERDICT         WHY
        6f0d      2026-03-09T20:30:10Z  github    push  1 event
        6f0d      2026-03-09T20:30:10Z  github    push  of no interest  a tag
        ");
    }
}
