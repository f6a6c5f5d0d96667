//! Signed pushes to the installation's hook.

use std::net::TcpListener;
use std::sync::Arc;

use gantry_domain::hook::{Hook, HookSecret, Sender};
use gantry_domain::id::EventId;
use gantry_ingress::{Ingress, IngressSettings, Listeners};
use gantry_ops::health::Health;
use gantry_ops::secret::SecretString;
use gantry_seams::hooks;
use reqwest::{Client, RequestBuilder, StatusCode};
use serde_json::Value;
use tokio_util::sync::DropGuard;

use super::TestPipeline;
use crate::github;

/// The id of the hook.
pub const HOOK: &str = "hook";

const SECRET: &str = "It's a Secret to Everybody";

/// How a delivery was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivered {
    /// 202: it was stored.
    New,
    /// 200: it was stored before.
    Repeat,
}

impl TestPipeline {
    /// Creates the hook, for all repositories of the registry `reg`.
    ///
    /// # Panics
    /// If there is one, or no registry.
    pub async fn create_hook(&self) {
        let id = HOOK.parse().expect("an id");
        let sealed = self.keyring.seal(&hooks::seal_for(&id), &SecretString::from(SECRET));
        let created = self.clock.now();
        let hook = Hook {
            id,
            registry: "reg".parse().expect("a name"),
            prefix: Self::prefix(),
            sender: Sender::GitHub,
            repositories: Vec::new(),
            secrets: vec![HookSecret { sealed: sealed.expect("a sealed secret"), created }],
            is_provisioned: false,
            created,
        };
        hooks::create(self.store.as_ref(), &hook).await.expect("a hook");
    }

    /// Delivers a push to branch `main` of a repository on the git host, with this delivery id.
    ///
    /// # Panics
    /// If the store fails.
    pub async fn deliver(
        &self,
        id: &str,
        repository: &str,
        before: Option<&str>,
        after: Option<&str>,
    ) -> (EventId, Delivered) {
        self.deliver_of(id, &self.git.url(repository), before, after).await
    }

    /// Like [`Self::deliver`], for another branch.
    ///
    /// # Panics
    /// If the store fails.
    pub async fn deliver_branch(
        &self,
        id: &str,
        repository: &str,
        branch: &str,
        before: Option<&str>,
        after: Option<&str>,
    ) -> (EventId, Delivered) {
        let url = self.git.url(repository);
        self.receive(id, github::Push { url: &url, branch, before, after, default_branch: None })
            .await
    }

    /// Like [`Self::deliver`], for any repository URL.
    ///
    /// # Panics
    /// If the store fails.
    pub async fn deliver_of(
        &self,
        id: &str,
        url: &str,
        before: Option<&str>,
        after: Option<&str>,
    ) -> (EventId, Delivered) {
        let branch = "main";
        self.receive(id, github::Push { url, branch, before, after, default_branch: None }).await
    }

    /// Delivers a change of a pull request.
    ///
    /// # Panics
    /// If the store fails.
    pub async fn deliver_pull_request(
        &self,
        id: &str,
        change: &github::PullRequest<'_>,
    ) -> (EventId, Delivered) {
        self.door().receive_kind(id, "pull_request", change.body()).await
    }

    /// Delivers a body of any kind.
    ///
    /// # Panics
    /// If the store fails.
    pub async fn deliver_kind(&self, id: &str, kind: &str, body: String) -> (EventId, Delivered) {
        self.door().receive_kind(id, kind, body).await
    }

    /// Delivers a push through an ingress of its own, because an ingress reads the store's clock only once a second and
    /// the test may have moved it.
    async fn receive(&self, id: &str, push: github::Push<'_>) -> (EventId, Delivered) {
        self.door().receive(id, push).await
    }

    /// What the API answers somebody who may do everything, at a path below its root.
    ///
    /// # Panics
    /// If it refuses.
    pub async fn get(&self, path: &str) -> Value {
        let token = gantry_ingress::issue_admin_token(self.store.as_ref()).await.expect("a token");
        let door = self.door();
        let url = format!("{}/api/v1/{path}", door.hooks.trim_end_matches("/hooks"));
        let answer = door.client.get(url).bearer_auth(token.as_str()).send().await;
        let answer = answer.expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        answer.json().await.expect("JSON")
    }

    /// Starts an ingress that receives pushes until the door is dropped.
    ///
    /// # Panics
    /// If no port is free.
    #[must_use]
    pub fn door(&self) -> Door {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let stop = self.stop.child_token();
        let ingress = Ingress {
            store: Arc::clone(&self.store),
            queues: self.queues.clone(),
            blobs: Arc::clone(&self.blobs),
            keyring: Arc::clone(&self.keyring),
            providers: Arc::new(self.providers.clone()),
            webhooks: self.webhooks.clone(),
            health: Health::default(),
            settings: IngressSettings { threads: 1, ..IngressSettings::default() },
        };
        let listeners = Listeners { api: listener, hooks: None };
        tokio::spawn(gantry_ingress::run(ingress, listeners, stop.clone()));
        Door {
            hooks: format!("http://{address}/hooks"),
            client: self.client.clone(),
            _stop: stop.drop_guard(),
        }
    }
}

/// A running ingress. Dropping it stops the ingress.
#[derive(Debug)]
pub struct Door {
    hooks: String,
    client: Client,
    _stop: DropGuard,
}

impl Door {
    /// Sends a signed push with this delivery id. Returns the id of its event.
    ///
    /// # Panics
    /// If it is refused.
    pub async fn receive(&self, id: &str, push: github::Push<'_>) -> (EventId, Delivered) {
        self.receive_kind(id, "push", push.body()).await
    }

    /// A request to a hook, like `bitbucket/HOOK`, without headers and body.
    pub fn post(&self, hook: &str) -> RequestBuilder {
        self.client.post(format!("{}/{hook}", self.hooks))
    }

    /// Sends a signed body of any kind. Returns the id of its event.
    ///
    /// # Panics
    /// If it is refused.
    pub async fn receive_kind(&self, id: &str, kind: &str, body: String) -> (EventId, Delivered) {
        let mut request = self.post(&format!("github/{HOOK}"));
        for (name, value) in github::headers_of(kind, SECRET, id, &body) {
            request = request.header(name, value);
        }
        let answer = request.body(body).send().await.expect("an answer");
        let delivered = match answer.status() {
            StatusCode::ACCEPTED => Delivered::New,
            StatusCode::OK => Delivered::Repeat,
            status => panic!("delivery {id} was answered {status}"),
        };
        let (hook, id) = (HOOK.parse().expect("an id"), id.parse().expect("an id"));
        (EventId::of_delivery(&hook, &id, 0), delivered)
    }
}
