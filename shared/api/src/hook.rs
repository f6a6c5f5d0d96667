//! Hooks: the addresses that receive webhooks.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A hook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Hook {
    /// Unguessable.
    pub id: String,
    /// The registry whose tasks its events may start.
    pub registry: String,
    /// `github`, `azure`, `gitlab`, `gitea`, `bitbucket`, `distribution`, `docker-hub`, `acr`, `ghcr`, `harbor`, `quay` or
    /// `generic`.
    pub provider: String,
    /// Where the sender's JSON has what makes a push; only of provider `generic`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mapping: Option<HookMapping>,
    /// The repositories that it may report pushes for; empty for all repositories of the registry's tasks.
    pub repositories: Vec<String>,
    /// The address that the sender posts to.
    pub url: String,
    /// Its active secrets; none for `docker-hub` and `quay`, whose senders can only be told the address.
    pub secrets: Vec<HookSecret>,
    /// Whether gantry made it, for a webhook that it keeps at a code host.
    #[serde(default)]
    pub provisioned: bool,
    /// When it was created.
    pub created: String,
    /// Counts since this process started.
    pub since_start: super::HookCounts,
}

/// Where a sender's JSON has what makes a push, as JSON pointers (RFC 6901), and how it signs. Either `repository`, `ref` and
/// `commit` are given, for pushes of sources, or `image`, for pushes of images.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HookMapping {
    /// The repository's URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "/repository/url")]
    pub repository: Option<String>,
    /// What moved: `refs/heads/…`, `refs/tags/…`, or a branch's name.
    #[serde(default, rename = "ref", skip_serializing_if = "Option::is_none")]
    #[schema(example = "/ref")]
    pub reference: Option<String>,
    /// The commit after; `null` or zeros there mean that the branch or tag was deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "/after")]
    pub commit: Option<String>,
    /// The commit before. Without it, each push has gantry ask the git host for the branch's head.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "/before")]
    pub before: Option<String>,
    /// The image's name, maybe with tag and digest. Without a host it belongs to the hook's registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "/image/name")]
    pub image: Option<String>,
    /// The image's tag, if it is not in the name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "/image/tag")]
    pub tag: Option<String>,
    /// The image's digest, if the sender tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "/image/digest")]
    pub digest: Option<String>,
    /// The header with the HMAC-SHA256 of the body; absent for Standard Webhooks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<HookSignature>,
}

/// A header with the HMAC-SHA256 of a body, in hexadecimal digits or base64.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HookSignature {
    /// Its name.
    #[schema(example = "X-Signature")]
    pub header: String,
    /// What stands before the signature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "sha256=")]
    pub prefix: Option<String>,
}

/// An active secret, identified by its id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HookSecret {
    /// The id by which it can be removed.
    pub id: String,
    /// When it was added.
    pub created: String,
}

/// A new hook.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HookCreate {
    /// `github`, `azure`, `gitlab`, `gitea`, `bitbucket`, `distribution`, `docker-hub`, `acr`, `ghcr`, `harbor`, `quay` or
    /// `generic`.
    pub provider: String,
    /// Where the sender's JSON has what makes a push; required for provider `generic`, and only allowed there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mapping: Option<HookMapping>,
    /// The repositories that it may report pushes for, as URL or `host/path`; empty for all repositories of the
    /// registry's tasks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub repositories: Vec<String>,
    /// A secret that the sender already has; generated if absent. Never returned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(write_only)]
    pub secret: Option<String>,
}

impl std::fmt::Debug for HookCreate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HookCreate")
            .field("provider", &self.provider)
            .field("mapping", &self.mapping)
            .field("repositories", &self.repositories)
            .finish_non_exhaustive()
    }
}

/// A new hook, and everything needed to set up its sender. The secret is not shown again.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HookCreated {
    /// The hook.
    pub hook: Hook,
    /// The address to post to.
    pub url: String,
    /// The secret; absent for `docker-hub` and `quay`, whose senders can only be told the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// The content type to choose.
    pub content_type: String,
    /// The events to choose.
    pub events: Vec<String>,
    /// How to set it up at the sender, line by line.
    pub instructions: Vec<String>,
}

impl std::fmt::Debug for HookCreated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HookCreated").field("hook", &self.hook).finish_non_exhaustive()
    }
}

/// An update of a hook.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HookUpdate {
    /// All repositories that it may report pushes for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repositories: Option<Vec<String>>,
}

/// An additional secret of a hook. The old ones stay active until they are removed.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HookSecretCreate {
    /// A secret that the sender already has; generated if absent. Never returned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(write_only)]
    pub secret: Option<String>,
}

impl std::fmt::Debug for HookSecretCreate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HookSecretCreate(..)")
    }
}

/// A new secret. It is not shown again.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HookSecretCreated {
    /// The hook, with the new secret in front.
    pub hook: Hook,
    /// The id by which it can be removed.
    pub id: String,
    /// The secret.
    pub secret: String,
}

impl std::fmt::Debug for HookSecretCreated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HookSecretCreated").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The result of a test delivery that gantry sent to itself, as the sender would.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HookTestResult {
    /// Whether it was accepted.
    pub ok: bool,
    /// The address that was tried.
    pub url: String,
    /// The HTTP status, if there was a response.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// How long the response took.
    pub duration_ms: u64,
    /// What the result means, and the remedy.
    pub message: String,
    /// The id of the recorded delivery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<String>,
}

/// The response to a verified webhook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HookAccepted {
    /// The delivery's id.
    pub delivery: String,
    /// The ids of its events, in order.
    pub events: Vec<String>,
}
