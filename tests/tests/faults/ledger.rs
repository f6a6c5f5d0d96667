//! Records what the test has sent and what was answered. Gantry's state is checked against it.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use gantry_api::HookAccepted;
use gantry_tests::github;
use gantry_tests::installation::Client;
use reqwest::StatusCode;

/// The pause before a delivery without an answer is sent again. GitHub leaves that to people; here it is quick.
const SEND_AGAIN: Duration = Duration::from_millis(10);

/// How often a known delivery is sent to a running process.
const TRIES: usize = 5;

/// A push as the code host knows it.
#[derive(Debug, Clone)]
pub(crate) struct Push {
    pub(crate) branch: String,
    pub(crate) before: String,
    pub(crate) after: String,
}

/// A hook as its sender knows it.
#[derive(Debug, Clone)]
pub(crate) struct Hook {
    pub(crate) id: String,
    pub(crate) secret: String,
}

/// A delivery that is sent until it is accepted.
#[derive(Debug, Clone)]
pub(crate) struct Delivery {
    pub(crate) id: String,
    pub(crate) push: Push,
    body: String,
    /// The number of 2xx answers.
    pub(crate) answers: usize,
    /// The sets of events in the answers; equal answers count once.
    pub(crate) events: BTreeSet<Vec<String>>,
}

impl Delivery {
    /// GitHub's `push`, not yet sent.
    pub(crate) fn new(id: String, clone_url: &str, push: Push) -> Self {
        let sent = github::Push {
            url: clone_url,
            branch: &push.branch,
            before: Some(&push.before),
            after: Some(&push.after),
            default_branch: Some("main"),
        };
        let body = sent.body();
        Self { id, push, body, answers: 0, events: BTreeSet::new() }
    }

    /// The same delivery with a body larger by `bytes`, as if it had many commits.
    pub(crate) fn padded(mut self, bytes: usize) -> Self {
        self.body.push_str(&" ".repeat(bytes));
        self
    }

    /// Sends it until it is accepted.
    pub(crate) async fn send(&mut self, client: &Client, hook: &Hook) -> Result<()> {
        while self.send_once(client, hook).await?.is_none() {
            tokio::time::sleep(SEND_AGAIN).await;
        }
        Ok(())
    }

    /// Sends it twice concurrently, and again until it is accepted.
    pub(crate) async fn send_doubled(&mut self, client: &Client, hook: &Hook) -> Result<()> {
        let mut twin = self.clone();
        let (one, other) = tokio::join!(self.send_once(client, hook), twin.send_once(client, hook));
        let accepted = one?.or(other?);
        self.answers += twin.answers;
        self.events.extend(twin.events);
        if accepted.is_none() {
            self.send(client, hook).await?;
        }
        Ok(())
    }

    /// Sends it again, and checks that it is known. A kept connection may just have been closed, so a missing answer is
    /// retried.
    pub(crate) async fn repeat(&mut self, client: &Client, hook: &Hook) -> Result<()> {
        let mut tries = 0..TRIES;
        while tries.next().is_some() {
            if let Some(status) = self.send_once(client, hook).await? {
                ensure!(status == StatusCode::OK, "redelivery {} was answered {status}", self.id);
                return Ok(());
            }
            tokio::time::sleep(SEND_AGAIN).await;
        }
        bail!("redelivery {} was not answered", self.id)
    }

    /// Sends it once. `None` if there was no answer, or it was answered 503.
    async fn send_once(&mut self, client: &Client, hook: &Hook) -> Result<Option<StatusCode>> {
        let status = self.ask(client, hook).await?;
        Ok(status.filter(StatusCode::is_success))
    }

    /// Sends it once, and returns the status: 2xx or 503. `None` if there was no complete answer.
    pub(crate) async fn ask(&mut self, client: &Client, hook: &Hook) -> Result<Option<StatusCode>> {
        let headers = github::headers(&hook.secret, &self.id, &self.body);
        let path = format!("/hooks/github/{}", hook.id);
        let answer = client.send_hook(&path, &headers, self.body.clone().into_bytes()).await?;
        let Some((status, text)) = answer else { return Ok(None) };
        if status == StatusCode::SERVICE_UNAVAILABLE {
            return Ok(Some(status));
        }
        ensure!(status.is_success(), "delivery {} was answered {status}: {text}", self.id);
        let accepted: HookAccepted = serde_json::from_str(&text)?;
        ensure!(accepted.delivery == self.id, "delivery {} was answered {text}", self.id);
        self.answers += 1;
        self.events.insert(accepted.events);
        Ok(Some(status))
    }
}
