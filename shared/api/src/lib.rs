//! The bodies of API v1, as they stand on the wire: read and written by the server and by its clients alike.
//!
//! Times are RFC 3339 in UTC, sizes are bytes. Secrets only ever go in; what comes out says whether there is one. An
//! answer may get new fields, so clients ignore those that they do not know; a request with an unknown field is refused,
//! because it is a misspelt one.

#![warn(missing_docs)]

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

mod delivery;
mod hook;
mod log;
mod registry;
mod run;
mod status;
mod task;
mod token;

pub use delivery::{Candidate, Decision, Delivery, DeliveryDetails, Event, ReplayResult};
pub use hook::{
    Hook, HookAccepted, HookCreate, HookCreated, HookSecret, HookSecretCreate, HookSecretCreated,
    HookTestResult, HookUpdate,
};
pub use log::{LogAttempt, LogChunk, LogEvent, LogHole, LogStatus};
pub use registry::{Credentials, Registry, RegistryCreate, RegistryUpdate, Upload};
pub use run::{
    Attempt, BaseImage, BuildCreate, CancelAsked, Lineage, OutputImage, RerunCreate, Run, RunError,
    RunUpdate, Step, SupersededTag,
};
pub use status::{
    Drained, FailingCredentials, FailingHook, HookCounts, OldestWaiting, QuarantinedRecord,
    QueueStatus, Status, StoreStatus, Worker, WorkerEngine,
};
pub use task::{SourceTrigger, Task, TaskCreate, TaskRunCreate, TaskUpdate};
pub use token::{Token, TokenCreate, TokenCreated};

/// Some of a list, and where it goes on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    /// In the list's order. May be fewer than asked for, even none, when `next` is there.
    pub items: Vec<T>,
    /// Give it as `after` to read on; absent at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// The body of every answer that is no success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// The error.
    pub error: ErrorDetail,
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorDetail {
    /// A word for programs.
    #[schema(example = "not_found")]
    pub code: String,
    /// What failed, on what, and the remedy.
    pub message: String,
    /// The field, parameter or thing that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Each mistake of a request that has several.
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

/// Reads a field of an update: absent leaves the value, `null` removes it.
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
