//! What a code host has for a hook that gantry made.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::task::TaskWebhook;

/// A hook of gantry compared with what its code host has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WebhookReport {
    /// The hook.
    pub hook: String,
    /// The repository; absent if gantry did not make the hook.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// The address that its webhook must have.
    pub url: String,
    /// How the webhook stands, as a scheduler last saw it; absent if gantry did not make the hook.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<TaskWebhook>,
    /// What the code host has with this address now.
    pub found: Vec<FoundWebhook>,
    /// What is wrong, and what to do; empty if nothing is.
    pub advice: Vec<String>,
}

/// A webhook of a code host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FoundWebhook {
    /// The code host's id of it.
    pub id: String,
    /// What it sends, in the code host's words.
    pub events: Vec<String>,
    /// The content type of its bodies, if the code host lets its users choose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// What keeps it from sending what gantry needs; empty if nothing does.
    pub faults: Vec<String>,
    /// Its last deliveries, newest first; absent if the code host does not list them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deliveries: Option<Vec<SentDelivery>>,
}

/// A delivery, as the code host remembers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SentDelivery {
    /// The id that gantry knows it by, if the code host tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<String>,
    /// When it was sent.
    pub at: String,
    /// Its type, in the code host's words.
    pub event: String,
    /// The answer that the code host got, in its words.
    pub outcome: String,
    /// Whether gantry has it.
    pub arrived: bool,
}

/// Deliveries that a code host sends again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Redelivered {
    /// The ids of the deliveries.
    pub deliveries: Vec<String>,
}
