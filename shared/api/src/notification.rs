//! Notifications, and the messages that they send.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A notification, without its address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Notification {
    /// Its registry.
    pub registry: String,
    /// Its name there.
    #[schema(example = "chat")]
    pub name: String,
    /// `standard`, `cloudevents`, `slack` or `teams`.
    pub format: String,
    /// Scheme and host of its address. The rest is a secret.
    #[schema(example = "https://hooks.slack.com")]
    pub origin: String,
    /// The events that it tells of: `held`, `started`, `succeeded`, `failed`, `error`, `timeout`, `canceled`.
    pub on: Vec<String>,
    /// Patterns of the tasks that it tells of; empty for all, and for runs without a task.
    pub tasks: Vec<String>,
    /// Patterns of the branches that it tells of; empty for all, and for runs without one.
    pub branches: Vec<String>,
    /// Whether it tells of a run only if the one before it on the same branch ended otherwise.
    pub only_changes: bool,
    /// Whether it sends messages.
    pub enabled: bool,
    /// Why it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled_because: Option<String>,
    /// Its signing secrets, the newest first. Each message is signed with all of them.
    pub secrets: Vec<SigningSecret>,
    /// When it was created.
    pub created: String,
}

/// A signing secret, identified by its id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SigningSecret {
    /// The id by which it can be removed.
    pub id: String,
    /// When it was added.
    pub created: String,
}

/// A new notification.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NotificationCreate {
    /// Its name.
    pub name: String,
    /// The address to post to. Never returned.
    #[schema(write_only)]
    pub url: String,
    /// `standard`, `cloudevents`, `slack` or `teams`.
    pub format: String,
    /// The events to tell of; all ends of a run if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<Vec<String>>,
    /// Patterns of tasks; all if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tasks: Vec<String>,
    /// Patterns of branches; all if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub branches: Vec<String>,
    /// Whether to tell of a run only if the one before it on the same branch ended otherwise.
    #[serde(default)]
    pub only_changes: bool,
}

impl std::fmt::Debug for NotificationCreate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NotificationCreate")
            .field("name", &self.name)
            .field("format", &self.format)
            .finish_non_exhaustive()
    }
}

/// A new notification and its signing secret. The secret is not shown again.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NotificationCreated {
    /// The notification.
    pub notification: Notification,
    /// The signing secret; absent for Slack and Teams, which check no signature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
}

impl std::fmt::Debug for NotificationCreated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NotificationCreated")
            .field("notification", &self.notification)
            .finish_non_exhaustive()
    }
}

/// A change of a notification. Absent fields stay as they are.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NotificationUpdate {
    /// The address to post to. Never returned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(write_only)]
    pub url: Option<String>,
    /// The events to tell of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<Vec<String>>,
    /// Patterns of tasks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tasks: Option<Vec<String>>,
    /// Patterns of branches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branches: Option<Vec<String>>,
    /// Whether to tell of a run only if the one before it on the same branch ended otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only_changes: Option<bool>,
    /// Whether it sends messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
}

impl std::fmt::Debug for NotificationUpdate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NotificationUpdate")
            .field("on", &self.on)
            .field("enabled", &self.enabled)
            .finish_non_exhaustive()
    }
}

/// A new signing secret. It is not shown again.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SigningSecretCreated {
    /// The notification, with the new secret in front.
    pub notification: Notification,
    /// The id by which it can be removed.
    pub id: String,
    /// The secret.
    pub secret: String,
}

impl std::fmt::Debug for SigningSecretCreated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningSecretCreated").field("id", &self.id).finish_non_exhaustive()
    }
}

/// What came of a test message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NotificationTestResult {
    /// Whether the receiver accepted it.
    pub ok: bool,
    /// The HTTP status, if there was a response.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// How long it took.
    pub duration_ms: u64,
    /// What the result means, and the remedy.
    pub message: String,
}

/// A message of a notification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Message {
    /// The id, which its receiver gets as `webhook-id`. The same each time it is sent.
    pub id: String,
    /// The run that it tells of.
    pub run: String,
    /// What happened to the run.
    pub event: String,
    /// When it was created.
    pub created: String,
    /// `due`, `sent` or `given_up`.
    pub state: String,
    /// How many attempts to send it were begun.
    pub attempts: u32,
    /// When it is sent next, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_attempt: Option<String>,
    /// What came of the last attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Answer>,
    /// The body, as its receiver gets it; absent in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
}

/// What came of an attempt to send a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Answer {
    /// When.
    pub at: String,
    /// The HTTP status, if there was a response.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// What it means, and the remedy.
    pub message: String,
    /// How long it took.
    pub duration_ms: u64,
}

/// Which messages to send again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Replays {
    /// Those created in the last so many seconds.
    pub since_seconds: u32,
    /// Only those that were given up.
    #[serde(default)]
    pub failed: bool,
}

/// The messages that are sent again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Replayed {
    /// Their ids.
    pub messages: Vec<String>,
}
