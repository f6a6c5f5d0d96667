//! Runs, and builds that are asked for.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::yes;

/// A build that belongs to no task. Exactly one of `context` and `upload` says where it reads from.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BuildCreate {
    /// A git URL with `#ref:folder`, or the address of a `.tar.gz`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
    /// An archive that was uploaded to the same registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload: Option<String>,
    /// The Dockerfile, relative to the context's root; `Dockerfile` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dockerfile: Option<String>,
    /// The image's names, with run variables like `web:{{.Run.ID}}`. One without host belongs to the registry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<String>,
    /// Build arguments.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub build_args: BTreeMap<String, String>,
    /// Secret build arguments. Only ever go in.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(write_only)]
    pub secret_build_args: BTreeMap<String, String>,
    /// The stage to build; the last if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The platform to build for; `linux/amd64` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// How long it may take, in seconds; 3600 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u32>,
    /// Whether the image is pushed.
    #[serde(default = "yes")]
    pub push: bool,
    /// Whether each step runs anew.
    #[serde(default)]
    pub no_cache: bool,
    /// Whether it moves its tags though a newer change has moved them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force_tags: bool,
    /// The token that reads the repository. Only ever goes in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(write_only)]
    pub git_token: Option<String>,
}

impl Default for BuildCreate {
    /// What absent fields mean.
    fn default() -> Self {
        Self {
            context: None,
            upload: None,
            dockerfile: None,
            images: Vec::new(),
            build_args: BTreeMap::new(),
            secret_build_args: BTreeMap::new(),
            target: None,
            platform: None,
            timeout: None,
            push: true,
            no_cache: false,
            force_tags: false,
            git_token: None,
        }
    }
}

impl std::fmt::Debug for BuildCreate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BuildCreate")
            .field("context", &self.context)
            .field("upload", &self.upload)
            .field("images", &self.images)
            .finish_non_exhaustive()
    }
}

/// A step of a run, in its last attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Step {
    /// Its name.
    #[schema(example = "build")]
    pub id: String,
    /// `Running`, `Succeeded`, `Failed`, `Stopped` (cancelled, out of time or handed back) or `Lost` (its worker was).
    pub status: String,
    /// When it began.
    pub started: String,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished: Option<String>,
}

/// One execution: what it is to do, where it stands, how it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Run {
    /// Unique in the installation, and fit for a tag.
    #[schema(example = "ca1")]
    pub id: String,
    /// `Queued`, `Started`, `Running`, `Succeeded`, `Failed`, `Canceled`, `Error` or `Timeout`.
    pub status: String,
    /// `QuickBuild` if somebody asked for it, `AutoBuild` if a trigger did.
    pub run_type: String,
    /// Its registry.
    pub registry: String,
    /// Its task; absent for a quick build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// The task's revision that it executes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_revision: Option<u64>,
    /// The platform that it builds for.
    #[schema(example = "linux/amd64")]
    pub platform: String,
    /// `Commit` or `Manual`.
    pub trigger: String,
    /// Why it exists, in words.
    #[schema(example = "push to main at 4f2a91c")]
    pub cause: String,
    /// The event that its decision is kept under.
    pub event: String,
    /// Where it builds from.
    pub source: String,
    /// The Dockerfile.
    pub dockerfile: String,
    /// The image's names as they were asked for, with their run variables.
    pub image_names: Vec<String>,
    /// When it was created.
    pub created: String,
    /// When its last attempt was leased.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<String>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished: Option<String>,
    /// From `started` to `finished`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    /// What a queued run waits for, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<String>,
    /// The images that it pushed, under the tags that it moved.
    pub images: Vec<OutputImage>,
    /// Tags that it left alone, because a run of a newer change had moved them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub superseded: Vec<SupersededTag>,
    /// The images that it was made from.
    pub bases: Vec<BaseImage>,
    /// The commit that was built, or is to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// What went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<RunError>,
    /// Its leases, in order; the last may still be held.
    pub attempts: Vec<Attempt>,
    /// The steps of its last attempt, in the order in which they began; empty in lists.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Step>,
    /// Who asked to cancel it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel_asked: Option<CancelAsked>,
    /// Whether it and its log are kept for good.
    pub archived: bool,
    /// Who has it, or had it last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<String>,
}

/// What went wrong in a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunError {
    /// A word for programs.
    #[schema(example = "step_failed")]
    pub code: String,
    /// The step that failed, where it was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// The exit code of the step's process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i64>,
    /// What failed, on what, and the remedy.
    pub message: String,
}

/// An image that a run pushed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OutputImage {
    /// `registry/repository:tag`.
    pub image: String,
    /// What the tag was made to point to.
    pub digest: String,
}

/// A tag that the run left to another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SupersededTag {
    /// The tag.
    pub image: String,
    /// The run that it stays with.
    pub by: String,
    /// Why, in a sentence.
    pub why: String,
}

/// An image that a build read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BaseImage {
    /// As the Dockerfile names it, completed.
    pub image: String,
    /// What its tag pointed to when the run began.
    pub digest: String,
    /// `runtime` if it is in the result, `buildtime` if it only helped to make it.
    pub role: String,
}

/// One lease of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Attempt {
    /// From 1.
    pub attempt: u32,
    /// Who had it.
    pub worker: String,
    /// When it was leased.
    pub started: String,
    /// When it ended; absent while it is held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished: Option<String>,
    /// `held`, `finished`, `infrastructure_failed`, `handed_back` or `lapsed`.
    pub end: String,
    /// What failed in the infrastructure, if that did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Somebody asked to cancel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[expect(missing_docs, reason = "the fields without a comment explain themselves")]
pub struct CancelAsked {
    /// With which token.
    pub by: String,
    pub at: String,
}

/// How a run is run again. May be left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RerunCreate {
    /// Whether each base keeps the digest that it had in the first run, instead of what its tag points to now.
    #[serde(default)]
    pub same_bases: bool,
    /// Whether it moves its tags though a newer change has moved them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force_tags: bool,
}

/// What is to change of a run: nothing else can.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RunUpdate {
    /// Whether it and its log are kept for good.
    pub archived: bool,
}

/// Where a pushed digest comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[expect(missing_docs, reason = "the fields without a comment explain themselves")]
pub struct Lineage {
    /// What was pushed.
    pub digest: String,
    /// Under which names.
    pub images: Vec<String>,
    /// For which platform.
    pub platform: String,
    /// From which bases.
    pub bases: Vec<BaseImage>,
    /// By which run.
    pub run: String,
    /// Of which registry.
    pub registry: String,
    /// Of which task; absent for a quick build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// From which source.
    pub source: String,
    /// At which commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// Why, in words.
    pub cause: String,
    pub pushed: String,
}
