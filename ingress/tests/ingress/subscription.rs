//! Azure DevOps' side of a subscription: which answers it repeats, and which put it on probation or disable it.
//!
//! While a subscription is on probation, Azure DevOps drops its new events. So nothing is lost only if every delivery is
//! accepted before the last repetition.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use gantry_domain::hook::Provider;
use gantry_ingress::IngressSettings;
use reqwest::StatusCode;
use serde_json::Value;

use crate::rig::{SECRET, TestServer};

const PUSH: &str = include_str!("../../../tests/fixtures/webhooks/azure/push-branch.json");

/// The pauses before the repetitions of a delivery, in seconds.
const PAUSES: [u64; 8] = [1, 2, 4, 8, 16, 32, 60, 60];

/// The store is away for longer than gantry waits for it, so that deliveries are refused.
const AWAY: Duration = Duration::from_secs(6);
/// Then it is there for a while.
const THERE: Duration = Duration::from_secs(2);

/// How many senders deliver at once: more than there is room for.
const SENDERS: usize = 16;
/// Room for six deliveries at once: each takes 16 KiB and its body.
const BODY_BUDGET: u64 = 120 * 1024;
/// The pause of a sender between two deliveries.
const PACE: Duration = Duration::from_millis(100);

/// Why Azure DevOps stops to send.
#[derive(Debug, PartialEq, Eq)]
enum Stopped {
    /// After 410.
    Disabled,
    /// After an answer that is not repeated, or after the last repetition.
    OnProbation(String),
}

struct Subscription {
    server: TestServer,
    url: String,
    sent: AtomicUsize,
    repeated: AtomicUsize,
    stopped: Mutex<Vec<Stopped>>,
}

impl Subscription {
    async fn open() -> Self {
        let settings = IngressSettings { body_budget: BODY_BUDGET, ..IngressSettings::default() };
        let server = TestServer::open_with(settings, false).await;
        server.create_registry("contoso").await;
        let url = server.hook_url(&server.hook(Provider::AzureDevOps).await);
        let (sent, repeated) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { server, url, sent, repeated, stopped: Mutex::default() }
    }

    /// Delivers new events one after the other until `end`.
    async fn send(&self, end: Instant) {
        while Instant::now() < end {
            let number = self.sent.fetch_add(1, Ordering::Relaxed);
            let mut body: Value = serde_json::from_str(PUSH).unwrap();
            body["id"] = format!("event-{number}").into();
            if let Err(stopped) = self.deliver(&body.to_string()).await {
                self.stopped.lock().unwrap().push(stopped);
            }
            tokio::time::sleep(PACE).await;
        }
    }

    /// Delivers one event by the rules of Azure DevOps.
    async fn deliver(&self, body: &str) -> Result<(), Stopped> {
        let mut pauses = PAUSES.iter();
        loop {
            let request = self.server.client.post(&self.url).basic_auth("gantry", Some(SECRET));
            let request = request.header("content-type", "application/json").body(body.to_owned());
            let status = match request.send().await {
                Ok(answer) => answer.status(),
                Err(error) => return Err(Stopped::OnProbation(error.to_string())),
            };
            match status {
                _ if status.is_success() => return Ok(()),
                StatusCode::GONE => return Err(Stopped::Disabled),
                StatusCode::REQUEST_TIMEOUT
                | StatusCode::BAD_GATEWAY
                | StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::GATEWAY_TIMEOUT => {}
                _ => return Err(Stopped::OnProbation(status.to_string())),
            }
            let Some(pause) = pauses.next() else {
                return Err(Stopped::OnProbation(format!("{status} to the last repetition")));
            };
            self.repeated.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_secs(*pause)).await;
        }
    }

    /// Takes the store away again and again until `end`.
    async fn trouble(stuck: Arc<AtomicBool>, end: Instant) {
        while Instant::now() < end {
            tokio::time::sleep(THERE).await;
            stuck.store(true, Ordering::Relaxed);
            tokio::time::sleep(AWAY).await;
            stuck.store(false, Ordering::Relaxed);
        }
    }
}

/// Delivers more than there is room for, to a server whose store goes away, and compares what was sent with the ledger.
pub(crate) async fn nothing_is_lost(duration: Duration) {
    let subscription = Subscription::open().await;
    let end = Instant::now() + duration;
    let senders = join_all((0..SENDERS).map(|_| subscription.send(end)));
    let stuck = Arc::clone(&subscription.server.stuck);
    tokio::join!(senders, Subscription::trouble(stuck, end));

    assert_eq!(*subscription.stopped.lock().unwrap(), []);
    let repeated = subscription.repeated.load(Ordering::Relaxed);
    assert!(repeated >= SENDERS / 2, "the server was not overloaded: {repeated} repetitions");
    let ledger = subscription.server.ledger().await;
    assert!(ledger.iter().all(|delivery| delivery["verdict"] == "events"));
    assert_eq!(ledger.len(), subscription.sent.load(Ordering::Relaxed));
}

#[tokio::test]
async fn an_overloaded_gantry_loses_no_event_of_azure_devops_and_is_never_on_probation() {
    nothing_is_lost(Duration::from_secs(4)).await;
}
