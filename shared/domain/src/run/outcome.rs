//! Outcomes of runs.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::{RunId, StepId};
use crate::image::ImageReference;
use crate::lineage::{BaseImage, OutputImage};
use crate::run::{CanceledBy, RunStatus};
use crate::source::CommitId;

/// The outcome of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum Outcome {
    /// Everything was built and pushed.
    Succeeded(Product),
    /// A step failed because of the user's input.
    Failed {
        /// What failed and where, and the remedy.
        error: RunError,
    },
    /// It was cancelled.
    Canceled {
        /// Who or what did.
        by: CanceledBy,
    },
    /// The infrastructure failed in the last attempt.
    Error {
        /// What failed and where, and the remedy.
        error: RunError,
    },
    /// It exceeded its time limit.
    Timeout {
        /// What failed and where, and the remedy.
        error: RunError,
    },
}

/// The result of a successful run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Product {
    /// The images, under the tags that this run moved.
    pub outputs: Vec<OutputImage>,
    /// Tags that were left to other runs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub superseded: Vec<SupersededTag>,
    /// The bases.
    pub bases: Vec<BaseImage>,
    /// The commit that was built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<CommitId>,
}

/// A tag that was left to another run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SupersededTag {
    /// The tag.
    pub image: ImageReference,
    /// The run that the tag stays with.
    pub by: RunId,
    /// The reason.
    pub because: KeptBecause,
}

/// Why a run left a tag to the run that moved it before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeptBecause {
    /// The other run built a newer change of the same branch.
    NewerChange,
    /// No branch is known to have had this run's commit as its head, so it may be older.
    CommitUnknown,
}

impl fmt::Display for SupersededTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { image, by, because } = self;
        match because {
            KeptBecause::NewerChange => {
                write!(f, "{image} stays with run {by}, which built a newer change")
            }
            KeptBecause::CommitUnknown => write!(
                f,
                "{image} stays with run {by}: no branch is known to have had this commit as its head, so it may be older; \
                 `--force-tags` moves the tag all the same"
            ),
        }
    }
}

/// An error of a run, for people and programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunError {
    /// The code, for programs.
    pub code: ErrorCode,
    /// The step that failed, if it was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<StepId>,
    /// The exit code of the step's process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i64>,
    /// What failed and where, and the remedy. Masked.
    pub message: String,
}

/// The error codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The process of a step exited with an error.
    StepFailed,
    /// The engine refused the Dockerfile or the context.
    BuildRefused,
    /// The branch, tag, commit or folder does not exist in the source.
    SourceNotFound,
    /// The source's host rejected the credentials.
    SourceUnauthorized,
    /// The source's host does not answer.
    SourceUnreachable,
    /// The source breaks a rule: it is too large, leads outside, or is not an archive.
    SourceRefused,
    /// The Dockerfile does not exist or cannot be read.
    DockerfileNotFound,
    /// The task file does not exist or has mistakes.
    TaskFileInvalid,
    /// A secret of the task does not exist, or may not be read.
    SecretRefused,
    /// The vault of a secret does not answer, rejects gantry's login, or is none.
    VaultUnavailable,
    /// A step asks for what the operator does not allow.
    NotAllowed,
    /// An image of a step does not exist, or cannot be pulled with the run's credentials.
    ImageNotFound,
    /// A base image does not exist.
    BaseNotFound,
    /// A registry rejected the credentials.
    RegistryUnauthorized,
    /// A registry does not answer, or returns an error of its own.
    RegistryUnavailable,
    /// A registry refused the push.
    RegistryRefused,
    /// The registry did not have the built image, after several pushes.
    PushMismatch,
    /// An image's name is invalid after its variables were replaced.
    ImageNameInvalid,
    /// The engine does not answer or failed.
    EngineUnavailable,
    /// A disk is full.
    DiskFull,
    /// The worker stopped renewing its lease.
    WorkerLost,
    /// The time limit of the step or the run was exceeded.
    TimedOut,
    /// No worker takes runs from this pool.
    NoWorker,
    /// The run's record was not created by the service.
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

impl Outcome {
    /// The status for people.
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

    /// The error, if there is one.
    #[must_use]
    pub fn error(&self) -> Option<&RunError> {
        match self {
            Self::Failed { error } | Self::Error { error } | Self::Timeout { error } => Some(error),
            Self::Succeeded(_) | Self::Canceled { .. } => None,
        }
    }

    /// The product of a successful run.
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
