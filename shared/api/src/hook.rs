//! Hooks: the addresses that receive webhooks.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A hook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Hook {
    /// Unguessable.
    pub id: String,
    /// Whose tasks its events may start.
    pub registry: String,
    /// `github` or `distribution`.
    pub provider: String,
    /// The repositories that it speaks for; empty: each one that the registry's tasks name.
    pub repositories: Vec<String>,
    /// Where the sender posts to.
    pub url: String,
    /// Its active secrets.
    pub secrets: Vec<HookSecret>,
    /// When it was created.
    pub created: String,
    /// What came since this process started.
    pub since_start: super::HookCounts,
}

/// An active secret, known by its id alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HookSecret {
    /// To remove it by.
    pub id: String,
    /// When it was made.
    pub created: String,
}

/// A new hook.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HookCreate {
    /// `github` or `distribution`.
    pub provider: String,
    /// The repositories that it speaks for, as URL or `host/path`; empty: each one that the registry's tasks name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub repositories: Vec<String>,
    /// A secret that the sender has already; made if absent. Only ever goes in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(write_only)]
    pub secret: Option<String>,
}

impl std::fmt::Debug for HookCreate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HookCreate")
            .field("provider", &self.provider)
            .field("repositories", &self.repositories)
            .finish_non_exhaustive()
    }
}

/// A hook that was created, and all that its sender must be told. The secret is shown here and never again.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HookCreated {
    /// The hook.
    pub hook: Hook,
    /// Where to post to.
    pub url: String,
    /// The secret.
    pub secret: String,
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

/// What is to change of a hook.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HookUpdate {
    /// All repositories that it speaks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repositories: Option<Vec<String>>,
}

/// Another secret of a hook: the old ones stay active until they are removed.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HookSecretCreate {
    /// A secret that the sender has already; made if absent. Only ever goes in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(write_only)]
    pub secret: Option<String>,
}

impl std::fmt::Debug for HookSecretCreate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HookSecretCreate(..)")
    }
}

/// A secret that was added, shown here and never again.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HookSecretCreated {
    /// The hook, with the new secret in front.
    pub hook: Hook,
    /// To remove it by.
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
    /// The HTTP status, if there was an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// How long the answer took.
    pub duration_ms: u64,
    /// What it means, and the remedy.
    pub message: String,
    /// The delivery that it was recorded as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<String>,
}

/// The answer to a verified webhook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HookAccepted {
    /// The id that it is known by.
    pub delivery: String,
    /// The events that it meant, in order.
    pub events: Vec<String>,
}
