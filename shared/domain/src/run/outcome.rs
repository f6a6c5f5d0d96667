//! How a run ended: what it made, or what went wrong.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::{RunId, StepId, TokenId};
use crate::image::ImageReference;
use crate::lineage::{BaseImage, OutputImage};
use crate::run::RunStatus;
use crate::source::CommitId;

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
    /// Tags that it left to other runs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub superseded: Vec<SupersededTag>,
    /// The images that it was made from.
    pub bases: Vec<BaseImage>,
    /// The commit that was built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<CommitId>,
}

/// A tag that a run left to another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SupersededTag {
    /// The tag.
    pub image: ImageReference,
    /// The run that it stays with.
    pub by: RunId,
    /// Why it stays there.
    pub because: KeptBecause,
}

/// Why a run left a tag to the one that moved it before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeptBecause {
    /// That one built a newer change of the same branch.
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
    /// The registry did not have the image that was built, after several pushes.
    PushMismatch,
    /// An image's name is wrong once its variables are known.
    ImageNameInvalid,
    /// The engine does not answer or failed.
    EngineUnavailable,
    /// A disk is full.
    DiskFull,
    /// The worker stopped renewing its lease.
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
