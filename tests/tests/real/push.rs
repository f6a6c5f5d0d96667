//! A push as GitHub reports it.

use gantry_tests::git_server::{GitServer, TestRepository};
use hmac::{Hmac, KeyInit as _, Mac as _};
use reqwest::StatusCode;
use sha2::Sha256;

/// A push that was not reported yet.
pub(crate) struct Push<'a> {
    pub(crate) git: &'a GitServer,
    pub(crate) name: &'a str,
    pub(crate) before: &'a str,
    pub(crate) after: &'a str,
}

impl Push<'_> {
    /// Signs it with a hook's secret and sends it. Returns the status.
    pub(crate) async fn deliver(&self, hook: &serde_json::Value, delivery: &str) -> StatusCode {
        let (url, secret) = (hook["url"].as_str().unwrap(), hook["secret"].as_str().unwrap());
        let clone_url = self.git.url(self.name);
        let body = serde_json::json!({
            "ref": "refs/heads/main", "before": self.before, "after": self.after, "created": false,
            "deleted": false, "forced": false, "commits": [],
            "repository": {"full_name": "demo/web", "clone_url": clone_url, "default_branch": "main"},
            "pusher": {"name": "mona"}, "sender": {"login": "mona"}
        })
        .to_string();
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
        mac.update(body.as_bytes());
        let signature = format!("sha256={}", hex::encode(mac.finalize().into_bytes()));
        let _already = rustls::crypto::ring::default_provider().install_default();
        let answer = reqwest::Client::new()
            .post(url)
            .header("content-type", "application/json")
            .header("x-github-event", "push")
            .header("x-github-delivery", delivery)
            .header("x-hub-signature-256", signature)
            .body(body)
            .send()
            .await
            .unwrap();
        answer.status()
    }
}

/// A repository with a Dockerfile on the branch `main`, and its first commit.
pub(crate) fn repository(git: &GitServer, name: &str, base: &str) -> (TestRepository, String) {
    let repository = git.repository(name).unwrap();
    let dockerfile = format!("FROM {base}\nRUN echo it is built\n");
    let first = repository.commit("main", &[("Dockerfile", &dockerfile)]).unwrap();
    (repository, first)
}
