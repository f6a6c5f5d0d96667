//! What a pushed image was made from.

use serde::{Deserialize, Serialize};

use crate::id::{RegistryName, RunId, TaskName};
use crate::image::{Digest, ImageReference};
use crate::platform::Platform;
use crate::source::CommitId;
use crate::timestamp::Timestamp;

/// An image that a run pushed, under one tag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputImage {
    /// Registry, repository and tag.
    pub image: ImageReference,
    /// What the tag was made to point to.
    pub digest: Digest,
}

/// An image that a build read, as it was resolved at the run's start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseImage {
    /// As the Dockerfile names it, completed.
    pub image: ImageReference,
    /// What its tag pointed to.
    pub digest: Digest,
    /// Whether it is in the result or only helped to make it.
    pub role: BaseRole,
}

/// How a base is part of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BaseRole {
    /// The base of the final stage.
    Runtime,
    /// Any other image that the build read.
    Buildtime,
}

/// Where a pushed digest comes from; kept under the digest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields without a comment explain themselves")]
pub struct Lineage {
    /// What was pushed.
    pub digest: Digest,
    /// Under which names.
    pub images: Vec<ImageReference>,
    /// For which platform.
    pub platform: Platform,
    /// From which bases.
    pub bases: Vec<BaseImage>,
    /// By which run.
    pub run: RunId,
    /// Of which registry.
    pub registry: RegistryName,
    /// Of which task; `None` for a quick build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskName>,
    /// From which source.
    pub source: String,
    /// At which commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<CommitId>,
    pub cause: String,
    pub pushed: Timestamp,
}
