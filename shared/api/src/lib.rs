//! The bodies of API v1, for the server and its clients.
//!
//! Times are RFC 3339 in UTC, sizes are in bytes. Secrets are never returned; responses only say whether one is set.
//! Responses may get new fields, so clients must ignore unknown ones. Requests with an unknown field are refused,
//! because it is most likely misspelt.

#![warn(missing_docs)]

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

mod delivery;
mod delta;
mod hook;
mod image;
mod log;
mod login;
mod notification;
mod registry;
mod run;
mod secret;
mod status;
mod task;
mod task_images;
mod timer;
mod token;
mod trigger;
mod wave;
mod webhook;

pub use delivery::{
    Candidate, Decision, Delivery, DeliveryDetails, Event, ReplayResult, Simulation,
    SimulationCreate,
};
pub use delta::{DELTA_TYPE, DeltaPart, InvalidDelta, LONGEST_PART, StoredBytes};
pub use hook::{
    Hook, HookAccepted, HookCreate, HookCreated, HookMapping, HookSecret, HookSecretCreate,
    HookSecretCreated, HookSignature, HookTestResult, HookUpdate,
};
pub use image::{
    AffectedTask, Child, ChosenTag, ImageDetails, ImageFact, ImageMaker, ImageProblem, ImageUser,
    Impact, MovedImage, Observation, Origin, OriginWave, PendingChange, RegistryPause,
    UnaffectedTask, WatchedImage, Why,
};
pub use log::{LogAttempt, LogChunk, LogEvent, LogHole, LogStatus};
pub use login::{Login, LoginCreate};
pub use notification::{
    Answer, Message, Notification, NotificationCreate, NotificationCreated, NotificationTestResult,
    NotificationUpdate, Replayed, Replays, SigningSecret, SigningSecretCreated,
};
pub use registry::{Credentials, Registry, RegistryCreate, RegistryUpdate, Upload};
pub use run::{
    Approved, Attempt, BaseImage, BuildCreate, CancelAsked, ChildImage, CommitStatus, Leg, Lineage,
    OutputImage, QueuePlace, RerunCreate, Run, RunApproval, RunCreate, RunError, RunPullRequest,
    RunUpdate, Step, SupersededTag,
};
pub use secret::{Secret, SecretSet, SecretVersion};
pub use status::{
    Drained, FailingCredentials, FailingHook, HookCounts, OldestWaiting, QuarantinedRecord,
    QueueStatus, Status, StoreStatus, Worker, WorkerEngine,
};
pub use task::{
    Task, TaskCreate, TaskFile, TaskFileCreate, TaskFileUpdate, TaskRunCreate, TaskUpdate,
    TaskWebhook,
};
pub use task_images::{FailedScan, NeededImage, TaskImages, TaskReading, UnreadStep};
pub use timer::Timer;
pub use token::{Token, TokenCreate, TokenCreated};
pub use trigger::{BaseImageTrigger, CommitRules, PathRules, PullRequestRules, SourceTrigger};
pub use wave::{Wave, WaveDetails, WaveTask};
pub use webhook::{FoundWebhook, Redelivered, SentDelivery, WebhookReport};

/// A page of a list, and where the next page begins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    /// The items, in order. May be fewer than requested, even none, although `next` is present.
    pub items: Vec<T>,
    /// Pass it as `after` to get the next page; absent on the last page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// The body of every error response.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// The error.
    pub error: ErrorDetail,
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorDetail {
    /// The error code, for programs.
    #[schema(example = "not_found")]
    pub code: String,
    /// What failed, on what, and the remedy.
    pub message: String,
    /// The field, parameter or resource that the error is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// All mistakes, if the request has several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<Mistake>,
}

/// One mistake in a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Mistake {
    /// The field.
    pub target: String,
    /// What is wrong with it, and the remedy.
    pub message: String,
}

/// Reads a field of an update: an absent field keeps the value, `null` removes it.
fn present<'de, D, T>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    Option::deserialize(deserializer).map(Some)
}

fn yes() -> bool {
    true
}
