//! The origin of a pushed image.

use serde::{Deserialize, Serialize};

use crate::id::{RegistryName, RunId, TaskName};
use crate::image::{Digest, ImageReference, Tag};
use crate::platform::Platform;
use crate::platforms::Platforms;
use crate::source::CommitId;
use crate::timestamp::Timestamp;
use crate::tracked_image::TrackedImage;

/// An image that a run pushed, with one tag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputImage {
    /// The registry, repository and tag.
    pub image: ImageReference,
    /// The digest that the tag was moved to.
    pub digest: Digest,
    /// The images that an index consists of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<ChildImage>,
}

/// The image of an index for one platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields explain themselves")]
pub struct ChildImage {
    pub platform: Platform,
    pub digest: Digest,
}

/// An image that a build read, as resolved at the start of the run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseImage {
    /// As in the Dockerfile, with defaults filled in.
    pub image: ImageReference,
    /// The digest of its tag at that time.
    pub digest: Digest,
    /// Whether it is part of the result.
    pub role: BaseRole,
    /// The policy that chose another tag than the Dockerfile's, and that tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follows: Option<FollowedTag>,
}

/// The tag that a policy chose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FollowedTag {
    /// The policy.
    pub policy: TrackedImage,
    /// The newest tag that matched.
    pub tag: Tag,
}

impl std::fmt::Display for FollowedTag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} → {}", self.policy, self.tag)
    }
}

/// The role of a base in an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BaseRole {
    /// The base of the final stage.
    Runtime,
    /// Any other image that the build read.
    Buildtime,
}

/// The origin of a pushed digest, stored under that digest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields without a comment explain themselves")]
pub struct Lineage {
    /// The pushed digest.
    pub digest: Digest,
    /// Its names.
    pub images: Vec<ImageReference>,
    /// Its platforms.
    pub platforms: Platforms,
    /// The images that an index consists of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<ChildImage>,
    /// Its bases.
    pub bases: Vec<BaseImage>,
    /// The run that pushed it.
    pub run: RunId,
    /// The run's registry.
    pub registry: RegistryName,
    /// The run's task; `None` for a quick build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskName>,
    /// The source that was built.
    pub source: String,
    /// The commit that was built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<CommitId>,
    pub cause: String,
    pub pushed: Timestamp,
}
