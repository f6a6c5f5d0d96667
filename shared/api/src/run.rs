//! Runs, and requests for builds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::login::LoginCreate;
use super::task::TaskFileCreate;
use super::yes;

/// A build without a task. Its source is exactly one of `context` and `upload`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BuildCreate {
    /// A git URL with `#ref:folder`, the address of a `.tar.gz`, or `oci://host/artifact:tag`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
    /// The id of an archive that was uploaded for the same registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload: Option<String>,
    /// Whether the files of a git repository that Git LFS keeps are fetched.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lfs: bool,
    /// Whether the submodules of a git repository are fetched as well.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub submodules: bool,
    /// The Dockerfile, relative to the context's root; `Dockerfile` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dockerfile: Option<String>,
    /// The image's names, with run variables like `web:{{.Run.ID}}`. A name without a host is in the registry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<String>,
    /// Build arguments.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub build_args: BTreeMap<String, String>,
    /// Secret build arguments. Never returned.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(write_only)]
    pub secret_build_args: BTreeMap<String, String>,
    /// Credentials for registries, by login server, at most 32: for images that the run reads and pushes there.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub credentials: BTreeMap<String, LoginCreate>,
    /// The stage to build; the last if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The platform to build for, or several, separated by commas: then the image is an index. `linux/amd64` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// How long it may take, in seconds; 3600 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u32>,
    /// Whether the image is pushed.
    #[serde(default = "yes")]
    pub push: bool,
    /// Whether to build without the cache.
    #[serde(default)]
    pub no_cache: bool,
    /// Whether the run moves its tags even if a newer change has already moved them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force_tags: bool,
    /// The token for reading the repository; over ssh, the private deploy key. Never returned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(write_only)]
    pub git_token: Option<String>,
    /// The keys of which the host must have one, to read a repository over ssh: lines of `ssh-keyscan`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub git_host_keys: Vec<String>,
}

impl Default for BuildCreate {
    /// The values of absent fields.
    fn default() -> Self {
        Self {
            context: None,
            upload: None,
            lfs: false,
            submodules: false,
            dockerfile: None,
            images: Vec::new(),
            build_args: BTreeMap::new(),
            secret_build_args: BTreeMap::new(),
            credentials: BTreeMap::new(),
            target: None,
            platform: None,
            timeout: None,
            push: true,
            no_cache: false,
            force_tags: false,
            git_token: None,
            git_host_keys: Vec::new(),
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

/// A run of a task file without a task. At most one of `context` and `upload` is given.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RunCreate {
    /// A git URL with `#ref:folder`, the address of a `.tar.gz`, or `oci://host/artifact:tag`; no files if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
    /// The id of an archive that was uploaded for the same registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload: Option<String>,
    /// Whether the files of a git repository that Git LFS keeps are fetched.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lfs: bool,
    /// Whether the submodules of a git repository are fetched as well.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub submodules: bool,
    /// The task file.
    pub task_file: TaskFileCreate,
    /// Credentials for registries, by login server, at most 32: for images that the run reads and pushes there.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub credentials: BTreeMap<String, LoginCreate>,
    /// The platform to run on; `linux/amd64` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// How long it may take, in seconds; 3600 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u32>,
    /// Whether the run moves its tags even if a newer change has already moved them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force_tags: bool,
    /// The token for reading the repository; over ssh, the private deploy key. Never returned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(write_only)]
    pub git_token: Option<String>,
    /// The keys of which the host must have one, to read a repository over ssh: lines of `ssh-keyscan`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub git_host_keys: Vec<String>,
}

impl std::fmt::Debug for RunCreate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunCreate")
            .field("context", &self.context)
            .field("upload", &self.upload)
            .field("task_file", &self.task_file)
            .finish_non_exhaustive()
    }
}

/// A part of a run that was split: a run for one of its platforms, with its own log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Leg {
    /// The id of the run, like `ca-7`.
    pub run: String,
    /// The platform.
    pub platform: String,
    /// Its status.
    pub status: String,
}

/// A step of a run, in its last attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Step {
    /// Its name.
    #[schema(example = "build")]
    pub id: String,
    /// `build`, `push` or `cmd`.
    pub kind: String,
    /// The steps that must end before it begins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<String>,
    /// `Waiting`, `Running`, `Succeeded`, `Failed`, `Ignored` (failed, which counts as success), `Stopped` (cancelled,
    /// timed out, handed back, or because another step failed), `Skipped` (never begun) or `Lost` (with its worker).
    pub status: String,
    /// When it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<String>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished: Option<String>,
    /// From `started` to `finished`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    /// How often it was executed; absent if once or never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tries: Option<u32>,
    /// The exit code of its process, if it failed with one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i64>,
    /// The image that it built, by its configuration, or pushed, by its manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

/// Where a queued run stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct QueuePlace {
    /// Its place among the queued runs of its platform, from 1; absent if it is behind the first 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<usize>,
    /// When it will probably start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimated_start: Option<String>,
    /// Why there is no estimate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_estimate: Option<String>,
}

/// One execution of a build: what it builds, its status, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Run {
    /// Unique in the installation, and valid in an image tag.
    #[schema(example = "ca1")]
    pub id: String,
    /// `Queued`, `Started`, `Running`, `Succeeded`, `Failed`, `Canceled`, `Error` or `Timeout`.
    pub status: String,
    /// `QuickBuild` if a person requested it, `AutoBuild` if a trigger started it; `QuickRun` and `AutoRun` with a task
    /// file.
    pub run_type: String,
    /// Its registry.
    pub registry: String,
    /// Its task; absent for a quick build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// The revision of the task that it executes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_revision: Option<u64>,
    /// The platform that it builds for, or several, separated by commas.
    #[schema(example = "linux/amd64")]
    pub platform: String,
    /// `Commit`, `Pull Request`, `Timer`, `Image Update` or `Manual`.
    pub trigger: String,
    /// Why it exists, in words.
    #[schema(example = "push to main at 4f2a91c")]
    pub cause: String,
    /// The event that started it. Its decision is kept under this id.
    pub event: String,
    /// The wave to which it belongs, if a change of an image started it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "ca-w1")]
    pub wave: Option<String>,
    /// The source that it builds.
    pub source: String,
    /// The Dockerfile; absent if it runs a task file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dockerfile: Option<String>,
    /// The task file in the source, or `-` if the file was given with the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_file: Option<String>,
    /// The image's names as requested, with their run variables.
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
    /// The place of a queued run; absent if it is held, for an approval or for its base images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<QueuePlace>,
    /// The images that it pushed, with the tags that it moved.
    pub images: Vec<OutputImage>,
    /// Tags that it did not move, because a run of a newer change had already moved them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub superseded: Vec<SupersededTag>,
    /// The images that the build read.
    pub bases: Vec<BaseImage>,
    /// The commit that was or will be built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// What went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<RunError>,
    /// Its leases, in order; the last may still be held.
    pub attempts: Vec<Attempt>,
    /// The steps of its last attempt, in the order of the task file; empty in lists.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Step>,
    /// The runs that it was split into, because no engine builds for all its platforms; empty in lists.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub legs: Vec<Leg>,
    /// The pull request that it builds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_request: Option<RunPullRequest>,
    /// The approval, if it was held and somebody gave one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved: Option<Approved>,
    /// The request to cancel it, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel_asked: Option<CancelAsked>,
    /// Where a code host shows its state; absent if none does, or none was told yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit_status: Option<CommitStatus>,
    /// Whether it and its log are kept for good.
    pub archived: bool,
    /// The worker that has it, or had it last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<String>,
}

/// The status of a commit at its code host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CommitStatus {
    /// The name of the status.
    #[schema(example = "gantry/web")]
    pub context: String,
    /// The commit.
    pub commit: String,
    /// Why the code host does not show it, and the remedy, once gantry has given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// What went wrong in a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunError {
    /// The error code, for programs.
    #[schema(example = "step_failed")]
    pub code: String,
    /// The step that failed, if one did.
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
    /// The digest that the tag was moved to.
    pub digest: String,
    /// If that is an index: its image for each platform.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<ChildImage>,
}

/// The image of an index for one platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[expect(missing_docs, reason = "the fields explain themselves")]
pub struct ChildImage {
    #[schema(example = "linux/arm64")]
    pub platform: String,
    pub digest: String,
}

/// A tag that the run did not move.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SupersededTag {
    /// The tag.
    pub image: String,
    /// The run that had moved it.
    pub by: String,
    /// Why, in a sentence.
    pub why: String,
}

/// An image that a build read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BaseImage {
    /// The full form of its name in the Dockerfile.
    pub image: String,
    /// The digest that its tag, or the one that the policy chose, pointed to when the run began.
    pub digest: String,
    /// `runtime` if the built image is based on it, `buildtime` if it was only used during the build.
    pub role: String,
    /// The policy that chose another tag than the one in the Dockerfile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "docker.io/library/node:20.*")]
    pub policy: Option<String>,
    /// The tag that it chose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
}

/// One lease of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Attempt {
    /// The attempt, from 1.
    pub attempt: u32,
    /// The worker that held it.
    pub worker: String,
    /// When it was leased.
    pub started: String,
    /// When it ended; absent while it is held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished: Option<String>,
    /// `held`, `finished`, `infrastructure_failed`, `handed_back` or `lapsed`.
    pub end: String,
    /// The failure of the infrastructure, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The pull request that a run builds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunPullRequest {
    /// Its number.
    pub number: u64,
    /// Its head. An approval must name exactly this commit.
    pub head: String,
    /// The branch that it wants to merge into.
    pub base: String,
    /// Whether its head is in another repository: then the run has no secrets and pushes nothing.
    pub is_fork: bool,
    /// Whether it waits for an approval.
    pub is_held: bool,
}

/// The approval of a held run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[expect(missing_docs, reason = "the fields without a comment explain themselves")]
pub struct Approved {
    /// Who gave it: a token, or the author of a comment.
    pub by: String,
    pub at: String,
}

/// An approval of a held run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RunApproval {
    /// The commit that was looked at, in full: the head of the pull request.
    pub commit: String,
}

/// A request to cancel a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[expect(missing_docs, reason = "the fields without a comment explain themselves")]
pub struct CancelAsked {
    /// The token that requested it.
    pub by: String,
    pub at: String,
}

/// Options for running a run again. The body is optional.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RerunCreate {
    /// Whether to use the digests of the bases from the first run, instead of what their tags point to now.
    #[serde(default)]
    pub same_bases: bool,
    /// Whether the run moves its tags even if a newer change has already moved them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force_tags: bool,
}

/// An update of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RunUpdate {
    /// Whether it and its log are kept for good.
    pub archived: bool,
}

/// The lineage of a pushed digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[expect(missing_docs, reason = "the fields without a comment explain themselves")]
pub struct Lineage {
    /// The pushed digest.
    pub digest: String,
    /// The names under which it was pushed.
    pub images: Vec<String>,
    /// The platform that it was built for; for an index all, separated by commas.
    pub platform: String,
    /// If it is an index: its image for each platform.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<ChildImage>,
    /// The images that the build read.
    pub bases: Vec<BaseImage>,
    /// The run that pushed it.
    pub run: String,
    /// The run's registry.
    pub registry: String,
    /// The run's task; absent for a quick build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// The source that was built.
    pub source: String,
    /// The commit that was built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// Why the run exists, in words.
    pub cause: String,
    pub pushed: String,
}
