//! A provider that is not in the table: a descriptor is all it takes to receive, test and read its hooks.

use std::num::NonZeroU32;
use std::sync::Arc;

use actix_web::test::TestRequest;
use actix_web::web::{Bytes, Payload};
use actix_web::{FromRequest as _, HttpRequest};
use gantry_domain::event::{Push, PushedRef};
use gantry_domain::hook::{Hook, HookSecret};
use gantry_domain::pull_request::ChangedFiles;
use gantry_domain::source::GitUrl;
use gantry_objects::ObjectBlobs;
use gantry_ops::health::Health;
use gantry_ops::metrics::HookVerdict;
use gantry_ops::secret::{Keyring, SecretString};
use gantry_remote::code_host::CodeHosts;
use gantry_remote::git::{Git, GitLimits};
use gantry_remote::guard::OutboundPolicy;
use gantry_remote::http::OutboundClient;
use gantry_remote::webhook::Webhooks;
use gantry_seams::registries::NewRegistry;
use gantry_seams::{deliveries, hooks, registries};
use gantry_sqlite::{Options, SqliteStore};
use serde::Deserialize;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::hooks::provider::reading::{Reading, id_or_hash, unreadable};
use crate::hooks::receive::{Taken, take};
use crate::hooks::trial;
use crate::state::State;
use crate::{Ingress, IngressSettings};

const SECRET: &str = "sixteen letters!";

/// Sends the secret itself in a header of its own, and has type and id in the body.
const FORGE: Descriptor = Descriptor {
    // Any known name: records need one that decodes.
    name: Provider::Distribution,
    largest_body: 1024,
    store_patience: Duration::from_secs(5),
    object_patience: Duration::from_secs(1),
    proofs: &[Scheme::Secret { header: "x-forge-token", prefix: "" }],
    content_types: &["application/json"],
    kind_header: None,
    id_header: None,
    may_omit_host: false,
    read,
    ping: Ping { headers: &[], body: r#"{"id":"ping-1"}"# },
    setup: Setup { content_type: "application/json", events: &["branch"], instructions },
};

#[derive(Deserialize)]
struct Moved {
    id: String,
    moved: Option<Branch>,
}

#[derive(Deserialize)]
struct Branch {
    repository: GitUrl,
    branch: String,
    to: String,
}

fn read(envelope: &Envelope, body: &[u8]) -> Meaning {
    let kind = "branch".to_owned();
    Meaning::Record(match serde_json::from_slice::<Moved>(body) {
        Ok(Moved { id, moved }) => {
            let id = id_or_hash(Some(&id), body);
            let Some(moved) = moved else {
                return Meaning::Record(Reading::without_events(id, kind, Verdict::Ping));
            };
            let push = EventKind::Push(Push {
                hook: Some(envelope.hook.clone()),
                url: moved.repository,
                reference: PushedRef::Branch(moved.branch.parse().unwrap()),
                before: None,
                after: Some(moved.to.parse().unwrap()),
                default_branch: None,
                pusher: None,
                changed: ChangedFiles::default(),
                asks_to_skip: false,
            });
            let (verdict, events) = (Verdict::Events, vec![push]);
            Reading { id, kind, verdict, events, unread: Vec::new() }
        }
        Err(error) => Reading::without_events(id_or_hash(None, body), kind, unreadable(error)),
    })
}

fn instructions(url: &str, secret: &str, _: Option<&Mapping>) -> Vec<String> {
    vec![format!("Post to {url} with {secret}")]
}

/// A server with one hook.
struct Receiver {
    state: State,
    hook: Hook,
    _folder: TempDir,
}

impl Receiver {
    async fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let stop = CancellationToken::new();
        let _installed = rustls::crypto::ring::default_provider().install_default();
        let http = OutboundClient::new(OutboundPolicy::parse(["127.0.0.1"]).unwrap()).unwrap();
        let limits = GitLimits { fetched_bytes: 1, checkout_bytes: 1, checkout_files: 1 };
        let git = Git::new(Arc::clone(http.policy()), limits);
        let ingress = Ingress {
            providers: Arc::new(CodeHosts::new(git, &http, Vec::new()).unwrap()),
            webhooks: Webhooks::new(&http).unwrap(),
            store: Arc::new(SqliteStore::in_memory(Options::default()).unwrap()),
            queues: gantry_local::queues(&stop),
            blobs: Arc::new(ObjectBlobs::local(folder.path().join("blobs")).unwrap()),
            keyring: Arc::new(Keyring::open_or_create(&folder.path().join("key")).unwrap()),
            health: Health::default(),
            settings: IngressSettings::default(),
        };
        let (state, _ringer) = State::new(ingress, "127.0.0.1:1".parse().unwrap(), stop).unwrap();
        let hook = Self::create_hook(&state).await;
        Self { state, hook, _folder: folder }
    }

    async fn create_hook(state: &State) -> Hook {
        let store = state.store.as_ref();
        let new = NewRegistry {
            name: "contoso".parse().unwrap(),
            prefix: registries::reserve_prefix(store).await.unwrap(),
            host: "registry.test".parse().unwrap(),
            credentials: None,
            run_limit: NonZeroU32::MIN,
        };
        let registry = registries::create(store, new).await.unwrap();
        let id = "0123456789abcdef".parse().unwrap();
        let sealed = state.keyring.seal(&hooks::seal_for(&id), &SecretString::from(SECRET));
        let created = state.store.now().await.unwrap();
        let hook = Hook {
            id,
            registry: registry.name,
            prefix: registry.prefix,
            sender: Sender::new(FORGE.name, None).unwrap(),
            repositories: Vec::new(),
            secrets: vec![HookSecret { sealed: sealed.unwrap(), created }],
            is_provisioned: false,
            created,
        };
        hooks::create(store, &hook).await.unwrap();
        hook
    }

    async fn post(&self, token: &str, content_type: &str, body: &str) -> Result<Taken, Refusal> {
        let request = TestRequest::post()
            .insert_header(("x-forge-token", token))
            .insert_header(("content-type", content_type))
            .set_payload(body.to_owned());
        self.take(request).await
    }

    async fn take(&self, request: TestRequest) -> Result<Taken, Refusal> {
        let (request, mut payload): (HttpRequest, _) = request.to_http_parts();
        let payload = Payload::from_request(&request, &mut payload).await.unwrap();
        take(&self.state, &FORGE, self.hook.id.as_str(), &request, payload).await
    }
}

const PUSH: &str = r#"{"id":"d-1","moved":{"repository":"https://forge.example/octo/web.git",
    "branch":"main","to":"2222222222222222222222222222222222222222"}}"#;

#[tokio::test]
async fn a_new_provider_needs_only_a_descriptor() {
    let receiver = Receiver::open().await;
    let json = "application/json; charset=utf-8";

    let taken = receiver.post(SECRET, json, PUSH).await.unwrap();
    assert_eq!((taken.verdict, taken.answer.status().as_u16()), (HookVerdict::Accepted, 202));
    let taken = receiver.post(SECRET, json, PUSH).await.unwrap();
    assert_eq!(taken.verdict, HookVerdict::Repeat);
    let taken = receiver.post(SECRET, json, "nonsense").await.unwrap();
    assert_eq!(taken.verdict, HookVerdict::Unreadable);

    let refused = receiver.post("another secret", json, PUSH).await;
    assert!(matches!(refused, Err(Refusal::HookRefused)));
    let refused = receiver.post(SECRET, "text/plain", PUSH).await;
    assert!(
        matches!(refused, Err(Refusal::UnsupportedMedia(remedy)) if remedy == "send application/json")
    );
    let refused = receiver.post(SECRET, json, &" ".repeat(1025)).await;
    assert!(matches!(refused, Err(Refusal::TooLarge { most: 1024 })));
}

#[tokio::test]
async fn a_stored_body_of_a_new_provider_can_be_read() {
    let receiver = Receiver::open().await;
    receiver.post(SECRET, "application/json", PUSH).await.unwrap();
    let (hook, id) = (&receiver.hook.id, "d-1".parse().unwrap());
    let store = receiver.state.store.as_ref();
    let kept = deliveries::find(store, hook, &id).await.unwrap().unwrap();
    let body = deliveries::find_body(store, &kept).await.unwrap().unwrap();
    let (kind, hook) = (Some(kept.kind), hook.clone());
    let envelope = Envelope { hook, mapping: None, home: None, kind, id: None, content_type: None };
    match super::read(&FORGE, envelope, &body).await.unwrap() {
        Meaning::Record(reading) => assert_eq!(reading.events.len(), 1),
        never @ Meaning::Never { .. } => panic!("{never:?}"),
    }
}

#[tokio::test]
async fn a_test_delivery_of_a_new_provider_is_a_ping() {
    let _installed = rustls::crypto::ring::default_provider().install_default();
    let receiver = Receiver::open().await;
    let url = "http://gantry.example/".parse().unwrap();
    let (client, secret) = (reqwest::Client::new(), SecretString::from(SECRET));
    let trial = trial::request(client, &FORGE, None, url, Some(&secret));
    let trial = trial.unwrap().build().unwrap();
    let mut request = TestRequest::post();
    for (name, value) in trial.headers() {
        request = request.append_header((name.as_str(), value.as_bytes()));
    }
    let body = Bytes::copy_from_slice(trial.body().unwrap().as_bytes().unwrap());
    let taken = receiver.take(request.set_payload(body)).await.unwrap();
    assert_eq!(taken.verdict, HookVerdict::NoInterest);
    assert_eq!(receiver.state.tally.of(&receiver.hook.id).accepted, 1);
}
