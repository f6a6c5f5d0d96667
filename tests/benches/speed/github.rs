//! Pushes in GitHub's format, signed as by GitHub.

use anyhow::{Context as _, Result};
use bytes::Bytes;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::Value;
use sha2::Sha256;

/// The examples that GitHub publishes.
const EXAMPLES: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/octokit-webhooks-examples/api.github.com.json");

/// The secret of every hook in the benchmarks.
pub(crate) const SECRET: &str = "a secret of the benches";

/// The id of every hook in the benchmarks.
pub(crate) const HOOK: &str = "bench";

/// The body of GitHub's example of a push, with a commit message that makes it `bytes` bytes long.
pub(crate) fn push_of(bytes: usize) -> Result<Bytes> {
    let mut push = example()?;
    let missing = bytes.saturating_sub(serde_json::to_vec(&push)?.len());
    let message = &mut push["head_commit"]["message"];
    let longer = format!("{}{}", message.as_str().unwrap_or_default(), "m".repeat(missing));
    *message = longer.into();
    Ok(serde_json::to_vec(&push)?.into())
}

/// The body of a push that moves a repository's `main`.
pub(crate) fn push(url: &str, before: &str, after: &str) -> Result<Bytes> {
    let mut push = example()?;
    push["ref"] = "refs/heads/main".into();
    push["before"] = before.into();
    push["after"] = after.into();
    push["repository"]["clone_url"] = url.into();
    push["repository"]["default_branch"] = "main".into();
    Ok(serde_json::to_vec(&push)?.into())
}

fn example() -> Result<Value> {
    let text = std::fs::read_to_string(EXAMPLES)?;
    let kinds: Vec<Value> = serde_json::from_str(&text)?;
    let pushes = kinds.iter().filter(|kind| kind["name"] == "push");
    let mut examples = pushes.filter_map(|kind| kind["examples"].as_array()).flatten();
    let is_of_branch = |push: &&Value| {
        push["ref"].as_str().is_some_and(|name| name.starts_with("refs/heads/"))
            && push["head_commit"].is_object()
    };
    examples.find(is_of_branch).cloned().context("GitHub publishes a push to a branch")
}

/// The value of `X-Hub-Signature-256`.
pub(crate) fn signature(body: &[u8]) -> Result<String> {
    let mut mac = mac()?;
    mac.update(body);
    Ok(format!("sha256={}", hex::encode(mac.finalize().into_bytes())))
}

/// An HMAC with the secret.
pub(crate) fn mac() -> Result<Hmac<Sha256>> {
    Ok(Hmac::new_from_slice(SECRET.as_bytes())?)
}
