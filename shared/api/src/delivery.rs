//! Deliveries, their events and decisions.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One recorded webhook request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Delivery {
    /// The provider's id. It is unique within the hook, and the same when the delivery is sent again.
    pub id: String,
    /// The hook that received it.
    pub hook: String,
    /// The hook's provider.
    pub provider: String,
    /// The hook's registry.
    pub registry: String,
    /// The provider's name for its type.
    #[schema(example = "push")]
    pub kind: String,
    /// When it was first accepted.
    pub received: String,
    /// Length of its body.
    pub body_bytes: u64,
    /// SHA-256 of its body.
    pub body_sha256: String,
    /// `events`, `ping`, `of_no_interest`, `unreadable` or `conflict`.
    pub verdict: String,
    /// The reason, if the verdict needs one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The ids of its events, in order.
    pub events: Vec<String>,
    /// The parts that could not be read, and why, if others could.
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

/// Something that happened, or that a person requested.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Names the delivery and the position in it, or the request.
    pub id: String,
    /// The registry whose tasks it may start.
    pub registry: String,
    /// `push`, `pull_request`, `pull_request_notice`, `comment`, `image_pushed`, `task_saved` or `requested`.
    pub kind: String,
    /// What happened, in words.
    pub what: String,
    /// When it was accepted.
    pub received: String,
    /// The decision; absent while it is undecided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<Decision>,
}

/// The decision for an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[expect(missing_docs, reason = "the fields without a comment explain themselves")]
pub struct Decision {
    pub at: String,
    /// Whether all candidates are decided.
    pub is_final: bool,
    /// The candidate tasks, in order of name.
    pub candidates: Vec<Candidate>,
    /// Why there are no candidates, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nothing: Option<String>,
    /// The code of the rule that `nothing` states, for programs.
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
    /// The wave that builds the task in its order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "ca-w1")]
    pub wave: Option<String>,
    /// Whether a run would be started, if this were no simulation.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub would_run: bool,
    /// The code of the rule that said no, for programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "other_branch")]
    pub rule: Option<String>,
    /// Why the rule said no, and the remedy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// A note for operators: the push names the repository by another address than the task does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// What to simulate: a body as a provider sends it, or a delivery. Nothing comes of it but the answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SimulationCreate {
    /// The provider, like `github`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// Where the body has what makes a push, for provider `generic`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mapping: Option<super::HookMapping>,
    /// The provider's type of the event, like `push`, for providers that tell it in a header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
    /// The body, as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// A delivery that was received, instead of a body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<String>,
    /// The hook of the delivery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hook: Option<String>,
}

/// What would come of a body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Simulation {
    /// What the body is: `events`, `ping`, `of_no_interest` or `unreadable`.
    pub verdict: String,
    /// Why there are no events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The events with their decisions, which are absent if deciding took too long.
    pub events: Vec<Event>,
}

/// The replay of a delivery: a new delivery with the same body and decisions of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReplayResult {
    /// The new delivery.
    pub delivery: Delivery,
}
