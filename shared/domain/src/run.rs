//! One execution: what it is to do, where it stands, how it ended.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::attempt::{EndedAttempt, Lease};
use crate::cause::Cause;
use crate::id::{PoolName, RegistryName, RunId, StepId, TaskId, TaskName, TokenId};
use crate::image::ImageReference;
use crate::lineage::{BaseImage, OutputImage};
use crate::sealed::Sealed;
use crate::signature::RunSignature;
use crate::source::CommitId;
use crate::task::BuildSpec;
use crate::timestamp::Timestamp;
use crate::trace::TraceParent;

/// How many attempts that count a run may have: then it ends as Error.
pub const COUNTED_ATTEMPTS: usize = 3;

/// How many attempts of any kind a run may have; handed-back ones do not count, but nothing is unbounded.
pub const MOST_ATTEMPTS: usize = 50;

/// A run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Unique in the installation.
    pub id: RunId,
    /// Its registry.
    pub registry: RegistryName,
    /// Its kind, in the original's words.
    pub run_type: RunType,
    /// The task that it executes, and the revision of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskRevision>,
    /// What to build, complete: a later change of the task does not reach it.
    pub build: BuildSpec,
    /// The token that reads its git repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git_token: Option<Sealed>,
    /// Why it exists.
    pub cause: Cause,
    /// What it was created for: there is no other run for the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_for: Option<String>,
    /// W3C trace context of what caused it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<TraceParent>,
    /// When it was created.
    pub created: Timestamp,
    /// The service's, over all of the above; `None` in the record of a former build, which signed none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<RunSignature>,
    /// Whether it and its log are kept for good.
    #[serde(default)]
    pub archived: bool,
    /// Who asked to cancel it, and when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel: Option<CancelAsk>,
    /// The attempts that ended, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<EndedAttempt>,
    /// Where it stands.
    pub state: RunState,
}

/// A task at one revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRevision {
    /// The task's name in the run's registry.
    pub name: TaskName,
    /// Which revision.
    pub revision: u64,
}

/// The kinds of runs of the original.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RunType {
    /// One image build that somebody asked for.
    QuickBuild,
    /// One image build that a trigger started.
    AutoBuild,
}

impl fmt::Display for RunType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::QuickBuild => "QuickBuild",
            Self::AutoBuild => "AutoBuild",
        })
    }
}

/// Somebody asked to cancel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancelAsk {
    /// With which token.
    pub by: TokenId,
    /// When.
    pub at: Timestamp,
}

/// Where a run stands. Each state carries the facts that exist in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum RunState {
    /// Not yet admitted.
    Waiting {
        /// For what.
        reason: WaitReason,
        /// Since when.
        since: Timestamp,
    },
    /// Any worker of the pool may take it.
    Ready {
        /// Which pool.
        pool: PoolName,
        /// The lowest goes first.
        rank: Rank,
        /// Since when.
        since: Timestamp,
        /// Its secrets.
        #[serde(default)]
        secrets: ReadySecrets,
    },
    /// A worker has it; its first step has not begun.
    Started {
        /// The worker's right.
        lease: Lease,
    },
    /// Its first step began.
    Running {
        /// The worker's right.
        lease: Lease,
        /// When the first step began.
        since: Timestamp,
    },
    /// Everything is built and pushed; its final tags are being moved.
    Tagging {
        /// The worker's right.
        lease: Lease,
        /// When the first step began.
        since: Timestamp,
    },
    /// It ended. This never changes.
    Done(Done),
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Done {
    /// The end.
    pub outcome: Outcome,
    /// When the last attempt was leased; `None` if there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Timestamp>,
    /// When it ended.
    pub at: Timestamp,
}

/// The end of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum Outcome {
    /// Everything was built and pushed.
    Succeeded(Product),
    /// A step failed, by the user's own doing.
    Failed {
        /// What, where, and the remedy.
        error: RunError,
    },
    /// Somebody cancelled it.
    Canceled {
        /// With which token.
        by: TokenId,
    },
    /// The infrastructure failed in the last attempt.
    Error {
        /// What, where, and the remedy.
        error: RunError,
    },
    /// It took longer than it may.
    Timeout {
        /// What, where, and the remedy.
        error: RunError,
    },
}

/// What a successful run made.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Product {
    /// The images under the tags that this run moved.
    pub outputs: Vec<OutputImage>,
    /// Tags that it left alone, since a run of a newer generation had moved them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub superseded: Vec<SupersededTag>,
    /// The images that it was made from.
    pub bases: Vec<BaseImage>,
    /// The commit that was built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<CommitId>,
}

/// A tag that a newer run owns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SupersededTag {
    /// The tag.
    pub image: ImageReference,
    /// Who moved it.
    pub by: RunId,
}

/// What went wrong in a run, for people and programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunError {
    /// A word for programs.
    pub code: ErrorCode,
    /// The step that failed, where it was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<StepId>,
    /// The exit code of the step's process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i64>,
    /// What failed, on what, and the remedy. Masked.
    pub message: String,
}

/// What went wrong, as a closed set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// A process of a step ended with a code of its own.
    StepFailed,
    /// The engine refused the Dockerfile or the context.
    BuildRefused,
    /// The branch, tag, commit or folder is not in the source.
    SourceNotFound,
    /// The source's host refused the credentials.
    SourceUnauthorized,
    /// The source's host does not answer.
    SourceUnreachable,
    /// The source breaks a rule: too large, leads outside, not an archive.
    SourceRefused,
    /// The Dockerfile is not there, or cannot be read.
    DockerfileNotFound,
    /// A base image is not there.
    BaseNotFound,
    /// A registry refused the credentials.
    RegistryUnauthorized,
    /// A registry does not answer or answers that it cannot.
    RegistryUnavailable,
    /// A registry refused what was pushed.
    RegistryRefused,
    /// An image's name is wrong once its variables are known.
    ImageNameInvalid,
    /// The engine does not answer or failed.
    EngineUnavailable,
    /// A disk is full.
    DiskFull,
    /// The worker was not heard of again.
    WorkerLost,
    /// The step's or the run's time was over.
    TimedOut,
    /// No worker takes runs of this pool.
    NoWorker,
    /// The service did not create the run as its record says.
    Unsigned,
    /// gantry itself failed.
    Internal,
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.step {
            Some(step) => write!(f, "step `{step}`: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

/// Whether a ready run has secrets stored for it, without which it must not be built.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReadySecrets {
    /// A former build let it be ready, and did not say.
    #[default]
    Unsaid,
    /// It needs none.
    None,
    /// They are stored, sealed for its pool.
    Stored,
}

/// The place of a ready run in its pool's order: the lowest goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Rank(pub i64);

/// What a waiting run waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "for")]
pub enum WaitReason {
    /// To be looked at: it is new.
    Admission,
    /// A place among the runs of its registry.
    RegistryLimit {
        /// How many places there are.
        limit: u32,
    },
    /// A place among the runs of its task.
    TaskLimit {
        /// How many places there are.
        limit: u32,
    },
    /// The pause before another attempt.
    Backoff {
        /// Until when.
        until: Timestamp,
        /// What failed.
        error: String,
    },
    /// A worker: its last one was lost.
    WorkerLost {
        /// The attempt that was lost.
        attempt: u32,
    },
    /// A worker: its last one shut down and gave it back.
    HandedBack,
}

impl fmt::Display for WaitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Admission => f.write_str("admission"),
            Self::RegistryLimit { limit } => {
                write!(f, "one of the registry's {limit} places for runs")
            }
            Self::TaskLimit { limit } => write!(f, "one of the task's {limit} places for runs"),
            Self::Backoff { until, error } => {
                write!(f, "another attempt at {until}, after: {error}")
            }
            Self::WorkerLost { attempt } => {
                write!(f, "another worker: that of attempt {attempt} was lost")
            }
            Self::HandedBack => f.write_str("another worker: the last one shut down"),
        }
    }
}

/// The run's status, in the original's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum RunStatus {
    /// Not leased.
    Queued,
    /// Leased.
    Started,
    /// Its first step began.
    Running,
    /// Done, and all is well.
    Succeeded,
    /// Done: a step failed.
    Failed,
    /// Done: somebody cancelled it.
    Canceled,
    /// Done: the infrastructure failed.
    Error,
    /// Done: it took too long.
    Timeout,
}

impl RunStatus {
    /// Every status, in the order of a run's life.
    pub const ALL: [Self; 8] = [
        Self::Queued,
        Self::Started,
        Self::Running,
        Self::Succeeded,
        Self::Failed,
        Self::Canceled,
        Self::Error,
        Self::Timeout,
    ];

    /// Whether it never changes again.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        self >= Self::Succeeded
    }

    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "Queued",
            Self::Started => "Started",
            Self::Running => "Running",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
            Self::Canceled => "Canceled",
            Self::Error => "Error",
            Self::Timeout => "Timeout",
        }
    }
}

impl fmt::Display for RunStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl std::str::FromStr for RunStatus {
    type Err = crate::InvalidText;

    /// Case does not matter.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|status| status.as_str().eq_ignore_ascii_case(text)).ok_or_else(
            || {
                crate::InvalidText::new(
                    "run status",
                    text,
                    "one of Queued, Started, Running, Succeeded, Failed, Canceled, Error, Timeout",
                )
            },
        )
    }
}

/// What moves a run on.
#[derive(Debug, Clone, PartialEq)]
pub enum Progress {
    /// It waits for something else, or again.
    Held {
        /// For what.
        reason: WaitReason,
    },
    /// The scheduler admitted it.
    Admitted {
        /// To which pool.
        pool: PoolName,
        /// At which place.
        rank: Rank,
        /// With which secrets.
        secrets: ReadySecrets,
    },
    /// A worker took it.
    Taken {
        /// The worker's right.
        lease: Lease,
    },
    /// Its first step began.
    Began,
    /// Its final tags are about to move.
    Tagging,
    /// It ended.
    Finished {
        /// How.
        outcome: Outcome,
    },
}

/// A run was asked to move where it cannot.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("a run that is {from} cannot be {to}")]
pub struct IllegalTransition {
    /// Where it stands.
    pub from: RunStatus,
    /// What was asked.
    pub to: &'static str,
}

impl RunState {
    /// The status that people see.
    #[must_use]
    pub fn status(&self) -> RunStatus {
        match self {
            Self::Waiting { .. } | Self::Ready { .. } => RunStatus::Queued,
            Self::Started { .. } => RunStatus::Started,
            Self::Running { .. } | Self::Tagging { .. } => RunStatus::Running,
            Self::Done(done) => done.outcome.status(),
        }
    }

    /// The lease, while there is one.
    #[must_use]
    pub fn lease(&self) -> Option<&Lease> {
        match self {
            Self::Started { lease } | Self::Running { lease, .. } | Self::Tagging { lease, .. } => {
                Some(lease)
            }
            Self::Waiting { .. } | Self::Ready { .. } | Self::Done(_) => None,
        }
    }

    /// The lease, to be renewed.
    pub fn lease_mut(&mut self) -> Option<&mut Lease> {
        match self {
            Self::Started { lease } | Self::Running { lease, .. } | Self::Tagging { lease, .. } => {
                Some(lease)
            }
            Self::Waiting { .. } | Self::Ready { .. } | Self::Done(_) => None,
        }
    }

    /// The end, once there is one.
    #[must_use]
    pub fn done(&self) -> Option<&Done> {
        match self {
            Self::Done(done) => Some(done),
            Self::Waiting { .. }
            | Self::Ready { .. }
            | Self::Started { .. }
            | Self::Running { .. }
            | Self::Tagging { .. } => None,
        }
    }

    /// Whether it holds one of its registry's and its task's places.
    #[must_use]
    pub fn holds_a_place(&self) -> bool {
        matches!(self, Self::Ready { .. }) || self.lease().is_some()
    }

    /// Moves on. Whether a worker may say so has been checked by the caller, in the same commit.
    ///
    /// # Errors
    /// [`IllegalTransition`], always for a terminal state.
    pub fn apply(self, progress: Progress, now: Timestamp) -> Result<Self, IllegalTransition> {
        match (self, progress) {
            (Self::Waiting { since, .. }, Progress::Held { reason }) => {
                Ok(Self::Waiting { reason, since })
            }
            (
                Self::Started { .. } | Self::Running { .. } | Self::Tagging { .. },
                Progress::Held { reason },
            ) => Ok(Self::Waiting { reason, since: now }),
            (Self::Waiting { .. }, Progress::Admitted { pool, rank, secrets }) => {
                Ok(Self::Ready { pool, rank, since: now, secrets })
            }
            (Self::Ready { .. }, Progress::Taken { lease }) => Ok(Self::Started { lease }),
            (Self::Started { lease }, Progress::Began) => Ok(Self::Running { lease, since: now }),
            (Self::Running { lease, since }, Progress::Tagging) => {
                Ok(Self::Tagging { lease, since })
            }
            (Self::Done(done), progress) => {
                Err(IllegalTransition { from: done.outcome.status(), to: progress.word() })
            }
            (from, Progress::Finished { outcome }) => {
                let started = from.lease().map(|lease| lease.since);
                Ok(Self::Done(Done { outcome, started, at: now }))
            }
            (from, progress) => Err(IllegalTransition { from: from.status(), to: progress.word() }),
        }
    }
}

impl Progress {
    fn word(&self) -> &'static str {
        match self {
            Self::Held { .. } => "held back",
            Self::Admitted { .. } => "admitted",
            Self::Taken { .. } => "taken",
            Self::Began => "begun",
            Self::Tagging => "tagged",
            Self::Finished { .. } => "finished",
        }
    }
}

impl Outcome {
    /// The status that people see.
    #[must_use]
    pub fn status(&self) -> RunStatus {
        match self {
            Self::Succeeded(_) => RunStatus::Succeeded,
            Self::Failed { .. } => RunStatus::Failed,
            Self::Canceled { .. } => RunStatus::Canceled,
            Self::Error { .. } => RunStatus::Error,
            Self::Timeout { .. } => RunStatus::Timeout,
        }
    }

    /// What went wrong, where something did.
    #[must_use]
    pub fn error(&self) -> Option<&RunError> {
        match self {
            Self::Failed { error } | Self::Error { error } | Self::Timeout { error } => Some(error),
            Self::Succeeded(_) | Self::Canceled { .. } => None,
        }
    }

    /// What was made.
    #[must_use]
    pub fn product(&self) -> Option<&Product> {
        match self {
            Self::Succeeded(product) => Some(product),
            Self::Failed { .. }
            | Self::Canceled { .. }
            | Self::Error { .. }
            | Self::Timeout { .. } => None,
        }
    }
}

impl Run {
    /// The task, with its registry.
    #[must_use]
    pub fn task_id(&self) -> Option<TaskId> {
        self.task
            .as_ref()
            .map(|task| TaskId { registry: self.registry.clone(), name: task.name.clone() })
    }

    /// The pool whose workers build it, and open its secrets.
    #[must_use]
    pub fn pool(&self) -> PoolName {
        self.build.platform.pool()
    }

    /// The status that people see.
    #[must_use]
    pub fn status(&self) -> RunStatus {
        self.state.status()
    }

    /// The number of its next attempt, from 1.
    #[must_use]
    pub fn next_attempt(&self) -> u32 {
        u32::try_from(self.attempts.len() + 1).unwrap_or(u32::MAX)
    }

    /// Whether, after its last attempt, it may be tried again.
    #[must_use]
    pub fn may_be_tried_again(&self) -> bool {
        self.attempts.iter().filter(|attempt| attempt.end.counts()).count() < COUNTED_ATTEMPTS
            && self.attempts.len() < MOST_ATTEMPTS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease() -> Lease {
        Lease {
            attempt: 1,
            worker: "w".parse().unwrap(),
            nonce: "0".repeat(32).parse().unwrap(),
            since: Timestamp::from_millis(1),
            until: Timestamp::from_millis(2),
        }
    }

    fn every_progress() -> Vec<Progress> {
        vec![
            Progress::Held { reason: WaitReason::Admission },
            Progress::Admitted {
                pool: "p".parse().unwrap(),
                rank: Rank(0),
                secrets: ReadySecrets::None,
            },
            Progress::Taken { lease: lease() },
            Progress::Began,
            Progress::Tagging,
            Progress::Finished { outcome: Outcome::Canceled { by: "t".parse().unwrap() } },
        ]
    }

    #[test]
    fn a_run_moves_through_the_states_of_the_original() {
        let now = Timestamp::from_millis(9);
        let mut state = RunState::Waiting { reason: WaitReason::Admission, since: now };
        let mut seen = vec![state.status().as_str()];
        for progress in every_progress() {
            state = state.apply(progress, now).unwrap();
            seen.push(state.status().as_str());
        }
        assert_eq!(
            seen,
            ["Queued", "Queued", "Queued", "Started", "Running", "Running", "Canceled"]
        );
        assert_eq!(state.done().unwrap().started, Some(Timestamp::from_millis(1)));
    }

    #[test]
    fn a_terminal_state_never_changes() {
        let end = RunState::Done(Done {
            outcome: Outcome::Canceled { by: "t".parse().unwrap() },
            started: None,
            at: Timestamp::default(),
        });
        for progress in every_progress() {
            assert!(end.clone().apply(progress, Timestamp::default()).is_err());
        }
    }

    #[test]
    fn only_a_ready_run_is_taken() {
        let now = Timestamp::default();
        let waiting = RunState::Waiting { reason: WaitReason::Admission, since: now };
        let started = RunState::Started { lease: lease() };
        for state in [waiting, started] {
            let refused = state.apply(Progress::Taken { lease: lease() }, now).unwrap_err();
            assert_eq!(refused.to, "taken");
        }
    }
}
