//! Deliveries, what they meant, and what was decided.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One webhook request, as the ledger keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Delivery {
    /// The provider's id, the same when it is sent again. Unique for its hook.
    pub id: String,
    /// The hook that it came to.
    pub hook: String,
    /// The hook's provider.
    pub provider: String,
    /// The hook's registry.
    pub registry: String,
    /// The provider's word for its type.
    #[schema(example = "push")]
    pub kind: String,
    /// When it was accepted first.
    pub received: String,
    /// Length of its body.
    pub body_bytes: u64,
    /// SHA-256 of its body.
    pub body_sha256: String,
    /// `events`, `ping`, `of_no_interest`, `unreadable` or `conflict`.
    pub verdict: String,
    /// Why, where the verdict alone does not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The events that it meant, in order.
    pub events: Vec<String>,
    /// Parts of it that could not be read, beside those that could: which, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unread: Vec<String>,
}

/// A delivery with its events and their decisions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeliveryDetails {
    /// The delivery.
    pub delivery: Delivery,
    /// Its events, in order; those that are no longer kept are left out.
    pub events: Vec<Event>,
}

/// Something that happened, or that somebody asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// The delivery and its place in it, or the request.
    pub id: String,
    /// Whose tasks it may start.
    pub registry: String,
    /// `push`, `image_pushed`, `task_saved` or `requested`.
    pub kind: String,
    /// What happened, in words.
    pub what: String,
    /// When it was accepted.
    pub received: String,
    /// What was decided; absent while it is undecided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<Decision>,
}

/// What was decided for an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[expect(missing_docs, reason = "the fields without a comment explain themselves")]
pub struct Decision {
    pub at: String,
    /// Whether nothing is to be added any more.
    pub is_final: bool,
    /// Each candidate task, in order of name.
    pub candidates: Vec<Candidate>,
    /// Why there is no candidate at all, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nothing: Option<String>,
    /// The rule's word for programs, beside `nothing`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
}

/// A task that an event may concern: the run that was started, or the first rule that said no.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Candidate {
    /// The task; absent for a quick build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// The run that was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// The word of the rule that said no.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "other_branch")]
    pub rule: Option<String>,
    /// What it said, and the remedy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// What an operator should know beside: the push names the repository by an address that is not the task's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// A delivery that was replayed: a new one with the same body, decided anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReplayResult {
    /// The new delivery.
    pub delivery: Delivery,
}
