//! Pushes as GitHub sends them, signed as GitHub signs them.

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

/// The headers of a delivery of a push with this id and body.
#[must_use]
pub fn headers(secret: &str, id: &str, body: &str) -> [(&'static str, String); 4] {
    [
        ("content-type", "application/json".to_owned()),
        ("x-github-event", "push".to_owned()),
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
