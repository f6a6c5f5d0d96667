//! Signed pushes to the installation's hook.

use std::net::TcpListener;
use std::sync::Arc;

use gantry_domain::id::EventId;
use gantry_ingress::{Ingress, IngressSettings, Listeners};
use gantry_ops::health::Health;
use reqwest::StatusCode;

use super::TestPipeline;
use crate::github;

/// The id of the hook.
pub const HOOK: &str = "hook";

/// The secret of the hook.
pub const SECRET: &str = "It's a Secret to Everybody";

/// How a delivery was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivered {
    /// 202: it was stored.
    New,
    /// 200: it was stored before.
    Repeat,
}

impl TestPipeline {
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

    /// The hook receives a push, through an ingress that serves nothing else.
    ///
    /// Each delivery has an ingress of its own: an ingress reads the store's clock once a second, and here the test moves
    /// that clock.
    ///
    /// # Panics
    /// If the push is refused.
    async fn receive(&self, id: &str, push: github::Push<'_>) -> (EventId, Delivered) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url =
            format!("http://{}/hooks/github/{HOOK}", listener.local_addr().expect("its port"));
        let stop = self.stop.child_token();
        let _stopped = stop.clone().drop_guard();
        let listeners = Listeners { api: listener, hooks: None };
        tokio::spawn(gantry_ingress::run(self.ingress(), listeners, stop));

        let body = push.body();
        let mut request = self.client.post(url);
        for (name, value) in github::headers(SECRET, id, &body) {
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

    /// An ingress of this installation.
    #[must_use]
    pub fn ingress(&self) -> Ingress {
        Ingress {
            store: Arc::clone(&self.store),
            queues: self.queues.clone(),
            blobs: Arc::clone(&self.blobs),
            keyring: Arc::clone(&self.keyring),
            health: Health::default(),
            settings: IngressSettings { threads: 1, ..IngressSettings::default() },
        }
    }
}
