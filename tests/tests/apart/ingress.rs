//! An ingress of an installation, with a client.

use std::net::TcpListener;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _, stream};
use gantry_api::LogEvent;
use gantry_domain::timestamp::Timestamp;
use gantry_ingress::{Ingress, IngressSettings, Listeners};
use gantry_ops::health::Health;
use gantry_remote::guard::OutboundPolicy;
use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::installation::{Connections, Installation};

/// An ingress in this process, and a client of its API.
pub(crate) struct TestIngress {
    url: String,
    token: String,
    client: Client,
}

impl TestIngress {
    /// Opens another ingress.
    pub(crate) async fn open(installation: &Installation) -> Self {
        let Connections { store, queues, blobs } = installation.connect().await;
        let token = gantry_ingress::issue_admin_token(store.as_ref()).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/api/v1", listener.local_addr().unwrap());
        let ingress = Ingress {
            store,
            queues,
            blobs,
            keyring: installation.parts.keyring.clone(),
            providers: std::sync::Arc::new(
                gantry_tests::doubles::providers::ScriptedProviders::default(),
            ),
            webhooks: gantry_tests::pipeline::webhooks(OutboundPolicy::default()),
            health: Health::default(),
            settings: IngressSettings {
                body_budget: 32 << 20,
                upload_limit: 64 << 20,
                threads: 1,
                body_patience: Duration::from_secs(5),
                ..IngressSettings::default()
            },
        };
        let listeners = Listeners { api: listener, hooks: None };
        tokio::spawn(gantry_ingress::run(ingress, listeners, installation.parts.stop.clone()));
        let client = Client::builder().no_proxy().build().unwrap();
        Self { url, token: token.as_str().to_owned(), client }
    }

    /// Requests a build of `hello`, and returns its run's id.
    pub(crate) async fn build(&self, of: Value) -> String {
        let mut order = json!({"images": ["hello:{{.Run.ID}}"], "push": true});
        order.as_object_mut().unwrap().extend(of.as_object().unwrap().clone());
        let run = self.send(self.post("/registries/reg/builds").json(&order)).await;
        run["id"].as_str().unwrap().to_owned()
    }

    /// Uploads an archive, and returns its id.
    pub(crate) async fn upload(&self, archive: Vec<u8>) -> String {
        let upload = self.send(self.post("/registries/reg/uploads").body(archive)).await;
        upload["id"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn cancel(&self, run: &str) {
        self.send(self.post(&format!("/runs/{run}/cancel"))).await;
    }

    /// A run's whole log.
    pub(crate) async fn log(&self, run: &str, query: &str) -> String {
        let url = format!("{}/runs/{run}/log{query}", self.url);
        let answer = self.client.get(url).bearer_auth(&self.token).send().await.unwrap();
        answer.error_for_status().unwrap().text().await.unwrap()
    }

    /// Follows a run's log.
    pub(crate) async fn follow(&self, run: &str) -> impl Stream<Item = LogEvent> + Unpin + use<> {
        let url = format!("{}/runs/{run}/log/events", self.url);
        let answer = self.client.get(url).bearer_auth(&self.token).send().await.unwrap();
        let bytes = answer.error_for_status().unwrap().bytes_stream();
        Box::pin(stream::unfold((bytes, Vec::new()), |(mut bytes, mut buffer)| async move {
            loop {
                if let Some(end) = buffer.windows(2).position(|two| two == b"\n\n") {
                    let event: Vec<u8> = buffer.drain(..end + 2).collect();
                    match parse(std::str::from_utf8(&event).unwrap()) {
                        Some(event) => return Some((event, (bytes, buffer))),
                        None => continue,
                    }
                }
                buffer.extend_from_slice(&bytes.next().await?.unwrap());
            }
        }))
    }

    fn post(&self, path: &str) -> RequestBuilder {
        self.client.post(format!("{}{path}", self.url)).bearer_auth(&self.token)
    }

    async fn send(&self, request: RequestBuilder) -> Value {
        let answer = request.send().await.unwrap();
        let status = answer.status();
        let text = answer.text().await.unwrap();
        assert!(status.is_success(), "{status}: {text}");
        serde_json::from_str(&text).unwrap()
    }
}

fn parse(event: &str) -> Option<LogEvent> {
    let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name));
    LogEvent::parse(field("event: ")?, field("data: ")?).unwrap()
}

/// The time of this machine.
#[allow(clippy::disallowed_methods, reason = "compared with the times that a worker writes")]
pub(crate) fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp::default().after(since)
}

/// Parses a time of the API.
pub(crate) fn time(text: &str) -> Timestamp {
    OffsetDateTime::parse(text, &Rfc3339).unwrap().into()
}
