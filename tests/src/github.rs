//! Pushes, changes of pull requests and comments as GitHub sends them, signed as GitHub signs them.

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::json;
use sha2::Sha256;

/// A push of a branch.
#[derive(Debug, Clone, Copy)]
pub struct Push<'a> {
    /// The address of the repository.
    pub url: &'a str,
    /// The branch that moved.
    pub branch: &'a str,
    /// Its former head; `None` for a new branch.
    pub before: Option<&'a str>,
    /// Its head; `None` for a deleted branch.
    pub after: Option<&'a str>,
    /// The repository's default branch; `None` if the payload does not name it.
    pub default_branch: Option<&'a str>,
}

impl Push<'_> {
    /// The payload.
    #[must_use]
    pub fn body(&self) -> String {
        let commit = |commit: Option<&str>| commit.map_or_else(|| "0".repeat(40), str::to_owned);
        json!({
            "ref": format!("refs/heads/{}", self.branch),
            "before": commit(self.before),
            "after": commit(self.after),
            "repository": {"clone_url": self.url, "default_branch": self.default_branch},
            "pusher": {"name": "mona"},
        })
        .to_string()
    }
}

/// The id of the repository that pull requests are for.
pub const REPOSITORY: u64 = 7001;

/// The id of a fork of it.
pub const FORK: u64 = 7002;

/// A change of a pull request.
#[derive(Debug, Clone, Copy)]
pub struct PullRequest<'a> {
    /// The address of the repository that it is for.
    pub url: &'a str,
    /// Its number.
    pub number: u64,
    /// What happened.
    pub action: &'a str,
    /// Its former head, for `synchronize`.
    pub before: Option<&'a str>,
    /// Its head.
    pub head: &'a str,
    /// The id of the repository with the head; `None` if that was deleted.
    pub head_repository: Option<u64>,
    /// The branch that it is for.
    pub base: &'a str,
    /// Its labels.
    pub labels: &'a [&'a str],
    /// Whether it is a draft.
    pub is_draft: bool,
    /// Its author's relation to the repository.
    pub association: &'a str,
}

impl<'a> PullRequest<'a> {
    /// Pull request 7, which a member opened from a branch of the repository for `main`.
    #[must_use]
    pub fn opened(url: &'a str, head: &'a str) -> Self {
        Self {
            url,
            number: 7,
            action: "opened",
            before: None,
            head,
            head_repository: Some(REPOSITORY),
            base: "main",
            labels: &[],
            is_draft: false,
            association: "MEMBER",
        }
    }

    /// The payload.
    #[must_use]
    pub fn body(&self) -> String {
        let labels: Vec<_> = self.labels.iter().map(|name| json!({"name": name})).collect();
        json!({
            "action": self.action,
            "number": self.number,
            "before": self.before,
            "pull_request": {
                "number": self.number,
                "state": if self.action == "closed" { "closed" } else { "open" },
                "head": {
                    "ref": "topic", "sha": self.head,
                    "repo": self.head_repository.map(|id| json!({"id": id})),
                },
                "base": {"ref": self.base, "sha": "1".repeat(40), "repo": {"id": REPOSITORY}},
                "draft": self.is_draft,
                "labels": labels,
                "user": {"login": "octocat"},
                "author_association": self.association,
            },
            "repository": {"id": REPOSITORY, "clone_url": self.url},
        })
        .to_string()
    }
}

/// The payload of a comment below pull request 7.
#[must_use]
pub fn comment(url: &str, text: &str, association: &str) -> String {
    json!({
        "action": "created",
        "issue": {"number": 7, "pull_request": {}},
        "comment": {"body": text, "user": {"login": "mona"}, "author_association": association},
        "repository": {"id": REPOSITORY, "clone_url": url},
    })
    .to_string()
}

/// The headers of a delivery of a push with this id and body.
#[must_use]
pub fn headers(secret: &str, id: &str, body: &str) -> [(&'static str, String); 4] {
    headers_of("push", secret, id, body)
}

/// The headers of a delivery of any kind with this id and body.
#[must_use]
pub fn headers_of(kind: &str, secret: &str, id: &str, body: &str) -> [(&'static str, String); 4] {
    [
        ("content-type", "application/json".to_owned()),
        ("x-github-event", kind.to_owned()),
        ("x-github-delivery", id.to_owned()),
        ("x-hub-signature-256", signature(secret, body.as_bytes())),
    ]
}

/// The value of `X-Hub-Signature-256` for a body.
///
/// # Panics
/// Never: HMAC takes keys of any length.
#[must_use]
pub fn signature(secret: &str, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("a key of any length");
    mac.update(body);
    format!("sha256={}", hex::encode(mac.finalize().into_bytes()))
}
