//! The status of the installation.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The status of the installation. Data of registries is limited to those that the token may see.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// Whether nothing needs attention: `troubles` is empty.
    pub ok: bool,
    /// What needs attention, and the remedy.
    pub troubles: Vec<String>,
    /// gantry's version.
    pub version: String,
    /// The store.
    pub store: StoreStatus,
    /// The queue.
    pub queue: QueueStatus,
    /// The workers, with their engines and disks.
    pub workers: Vec<Worker>,
    /// How many runs are waiting or ready, counted up to 1000.
    pub queued_runs: usize,
    /// How many runs are leased, counted up to 1000.
    pub leased_runs: usize,
    /// The oldest queued run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_waiting: Option<OldestWaiting>,
    /// Hooks with refused or unreadable requests since this process started.
    pub failing_hooks: Vec<FailingHook>,
    /// The tasks and registries whose credentials were refused by a registry or git host when they were last used.
    #[serde(default)]
    pub failing_credentials: Vec<FailingCredentials>,
    /// Requests to addresses without a hook since this process started.
    pub unknown_hook_requests: u64,
    /// Records that did not decode, oldest first.
    pub quarantined: Vec<QuarantinedRecord>,
}

/// The store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StoreStatus {
    /// Whether it answers.
    pub ok: bool,
    /// How long its response took.
    pub latency_ms: u64,
    /// Its clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub now: Option<String>,
    /// Bytes in use.
    #[serde(default)]
    pub used: u64,
    /// The limit in bytes, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<u64>,
}

/// The queue, as of this process's last doorbell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct QueueStatus {
    /// Whether the last doorbell was accepted.
    pub ok: bool,
    /// How many doorbells were not accepted since this process started. The sweeper rings again for their work.
    pub failed: u64,
    /// The last failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

/// A worker, as it was last seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Worker {
    /// Its id.
    pub id: String,
    /// The pool whose runs it takes.
    #[schema(example = "linux-amd64")]
    pub pool: String,
    /// The platforms that its engine builds for: its own first, then those that it emulates.
    pub platforms: Vec<String>,
    /// How many runs it takes at once.
    pub slots: u32,
    /// The runs that it currently has.
    pub runs: Vec<String>,
    /// Its version of gantry.
    pub version: String,
    /// Its engine.
    pub engine: WorkerEngine,
    /// Free bytes where the engine stores images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free_disk: Option<u64>,
    /// Why it currently takes no runs, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_because: Option<String>,
    /// Set if it is drained: it finishes its runs and takes no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drained: Option<Drained>,
    /// When it was last seen.
    pub last_seen: String,
}

/// Who drained a worker, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Drained {
    /// The token that requested it.
    pub by: String,
    /// When it was requested.
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

/// The oldest queued run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[expect(missing_docs, reason = "the fields without a comment explain themselves")]
pub struct OldestWaiting {
    pub run: String,
    /// When it was created.
    pub created: String,
    /// What it waits for.
    pub waits_for: String,
}

/// A hook with refused or unreadable requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[expect(missing_docs, reason = "the fields without a comment explain themselves")]
pub struct FailingHook {
    pub hook: String,
    /// Its registry.
    pub registry: String,
    /// Its counts.
    pub counts: HookCounts,
}

/// Credentials that were refused in the last run that used them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FailingCredentials {
    /// The registry.
    pub registry: String,
    /// The task; absent for quick builds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// The run whose credentials were refused.
    pub run: String,
    /// What was refused and by whom, and the remedy.
    pub message: String,
}

/// Counts of a hook's requests since this process started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HookCounts {
    /// Stored now or earlier.
    pub accepted: u64,
    /// Verified, but of a type that is never relevant: counted and not stored.
    pub dropped: u64,
    /// Refused for a wrong signature or secret.
    pub unauthorized: u64,
    /// Verified, but not readable.
    pub unreadable: u64,
    /// Answered with 503, because the store could not accept them in time.
    pub unavailable: u64,
}

/// A record that did not decode.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct QuarantinedRecord {
    /// Its key.
    pub key: String,
    /// When it was found.
    pub since: String,
}
