//! A push as GitHub reports it.

use gantry_tests::git_server::{GitServer, TestRepository};
use gantry_tests::github;
use reqwest::StatusCode;

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
        let push = github::Push {
            url: &self.git.url(self.name),
            branch: "main",
            before: Some(self.before),
            after: Some(self.after),
            default_branch: Some("main"),
        };
        let body = push.body();
        let _already = rustls::crypto::ring::default_provider().install_default();
        let mut request = reqwest::Client::new().post(url);
        for (name, value) in github::headers(secret, delivery, &body) {
            request = request.header(name, value);
        }
        request.body(body).send().await.unwrap().status()
    }
}

/// A repository with a Dockerfile on the branch `main`, and its first commit.
pub(crate) fn repository(git: &GitServer, name: &str, base: &str) -> (TestRepository, String) {
    let repository = git.repository(name).unwrap();
    let dockerfile = format!("FROM {base}\nRUN echo it is built\n");
    let first = repository.commit("main", &[("Dockerfile", &dockerfile)]).unwrap();
    (repository, first)
}
