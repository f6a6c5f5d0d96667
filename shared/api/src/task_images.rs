//! The images that a task needs.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::RunError;

/// The images that a task needs. Without `read` and `failed`, its source was not read yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TaskImages {
    /// The last state of the task that could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read: Option<TaskReading>,
    /// The images in it, in the order of the steps. Images that the task itself builds are left out.
    pub images: Vec<NeededImage>,
    /// The steps whose images are known only once they are executed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unread: Vec<UnreadStep>,
    /// Whether there are more images than are listed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_cut: bool,
    /// The tasks that are based on each other in a circle, each on the one before, from this task back to it; empty if there
    /// is no circle.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub circle: Vec<String>,
    /// Why a newer state of the task could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<FailedScan>,
}

/// Which state of a task was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TaskReading {
    /// The revision of the task.
    pub revision: u64,
    /// The commit, if the source is a git repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// The run that read it; absent if it was a scan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// When it was read.
    pub at: String,
}

/// An image that a step needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NeededImage {
    /// The image, with defaults filled in.
    #[schema(example = "docker.io/library/node:22")]
    pub image: String,
    /// `runtime`: the base of a built image; `buildtime`: any other image that a build reads; `step`: a command runs in it.
    pub role: String,
    /// The step.
    pub step: String,
    /// The Dockerfile that names it, relative to the build's context; absent for a command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dockerfile: Option<String>,
    /// The platform that it is needed for.
    pub platform: String,
}

/// A step whose images are known only once it is executed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UnreadStep {
    /// The step.
    pub step: String,
    /// Why its images are not known.
    pub why: String,
}

/// Why a state of a task could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FailedScan {
    /// The revision of the task.
    pub revision: u64,
    /// The run that was to read it; absent if it was a scan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// When it failed.
    pub at: String,
    /// What failed, and the remedy.
    pub error: RunError,
}
