//! How the installation is.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How the installation is. What belongs to registries is of those that the token may see.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// Whether nothing needs a person: each line of `troubles` says what does.
    pub ok: bool,
    /// What needs a person, and the remedy.
    pub troubles: Vec<String>,
    /// gantry's version.
    pub version: String,
    /// The store.
    pub store: StoreStatus,
    /// The queue.
    pub queue: QueueStatus,
    /// The workers, with their engines and disks.
    pub workers: Vec<Worker>,
    /// How many runs wait or are ready, counted up to 1000.
    pub queued_runs: usize,
    /// How many runs are leased, counted up to 1000.
    pub leased_runs: usize,
    /// The queued run that was created first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_waiting: Option<OldestWaiting>,
    /// Hooks at which something was refused or unreadable since this process started.
    pub failing_hooks: Vec<FailingHook>,
    /// The tasks and registries whose credentials a registry or git host refused last time.
    #[serde(default)]
    pub failing_credentials: Vec<FailingCredentials>,
    /// Webhooks to addresses of no hook since this process started.
    pub unknown_hook_requests: u64,
    /// Records that did not decode, oldest first.
    pub quarantined: Vec<QuarantinedRecord>,
}

/// The store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StoreStatus {
    /// Whether it answers.
    pub ok: bool,
    /// How long its answer took.
    pub latency_ms: u64,
    /// Its clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub now: Option<String>,
    /// Bytes that are taken.
    #[serde(default)]
    pub used: u64,
    /// Bytes that may be taken, if there is a bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<u64>,
}

/// The queue, as this process last rang it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct QueueStatus {
    /// Whether the last doorbell was taken.
    pub ok: bool,
    /// Doorbells that were not taken since this process started; the sweeper rings them again.
    pub failed: u64,
    /// What the last failure said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

/// A worker, as it was last seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Worker {
    /// Its id.
    pub id: String,
    /// Whose runs it takes.
    #[schema(example = "linux-amd64")]
    pub pool: String,
    /// The platforms that its engine builds for.
    pub platforms: Vec<String>,
    /// How many runs it takes at once.
    pub slots: u32,
    /// The runs that it has now.
    pub runs: Vec<String>,
    /// gantry's version there.
    pub version: String,
    /// Its engine.
    pub engine: WorkerEngine,
    /// Free bytes where the engine keeps images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free_disk: Option<u64>,
    /// Why it takes nothing now, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_because: Option<String>,
    /// Who drained it, if somebody did: it finishes what it has and takes nothing more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drained: Option<Drained>,
    /// When it was last seen.
    pub last_seen: String,
}

/// A worker takes nothing more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Drained {
    /// The token that asked for it.
    pub by: String,
    /// Since when.
    pub since: String,
}

/// Whether a worker's engine can be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WorkerEngine {
    /// Whether it answers.
    pub ok: bool,
    /// Its name and version, or why it cannot be used and the remedy.
    pub message: String,
}

/// The queued run that was created first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[expect(missing_docs, reason = "the fields without a comment explain themselves")]
pub struct OldestWaiting {
    pub run: String,
    /// When it was created.
    pub created: String,
    /// What it waits for.
    pub waits_for: String,
}

/// A hook at which something was refused or unreadable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[expect(missing_docs, reason = "the fields without a comment explain themselves")]
pub struct FailingHook {
    pub hook: String,
    /// Its registry.
    pub registry: String,
    /// What came.
    pub counts: HookCounts,
}

/// Credentials that were refused in the last run that used them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FailingCredentials {
    /// The registry.
    pub registry: String,
    /// The task; `None` for quick builds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// The run that was refused.
    pub run: String,
    /// Who refused what, and the remedy.
    pub message: String,
}

/// What came to a hook since this process started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HookCounts {
    /// Stored, or seen before.
    pub accepted: u64,
    /// Verified, and of a type that can never matter: counted and not stored.
    pub dropped: u64,
    /// Refused for a wrong signature or secret.
    pub unauthorized: u64,
    /// Verified, and not readable.
    pub unreadable: u64,
    /// Answered 503: the store could not take it in time.
    pub unavailable: u64,
}

/// A record that did not decode.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct QuarantinedRecord {
    /// Its key.
    pub key: String,
    /// Since when.
    pub since: String,
}
