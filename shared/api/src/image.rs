//! Images that tasks need: what is known of them, where they come from, and what their changes rebuild.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Lineage, OutputImage};

/// A tag that gantry asks a registry for, because tasks need it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WatchedImage {
    /// The tag, or a policy like `docker.io/library/node:20.*`.
    #[schema(example = "docker.io/library/node:22")]
    pub image: String,
    /// The newest tag that matches; absent if it is one tag, or if none matches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chosen: Option<ChosenTag>,
    /// The registry whose credentials are used; absent if the tag is asked for without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_of: Option<String>,
    /// What the tag had when it came to rest last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// When it was asked for last, successfully or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<String>,
    /// When it came to rest with other content last; absent if that never happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed: Option<String>,
    /// When it is asked for next.
    pub due: String,
    /// A change that may go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<PendingChange>,
    /// Why it is not known what the tag has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<ImageProblem>,
    /// Why nothing is asked of its registry for now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<RegistryPause>,
    /// How many tasks need it, counted up to 1000.
    pub users: usize,
    /// For how many of them its changes count.
    pub counted: usize,
    /// The latest observations, oldest first; empty in lists.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub seen: Vec<Observation>,
}

/// The tag that a policy chose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChosenTag {
    /// The tag.
    pub tag: String,
    /// Since when it is the newest that matches.
    pub since: String,
}

/// A change of a tag that is collected until the tag comes to rest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PendingChange {
    /// What the tag has now.
    pub digest: String,
    /// When the first change since the last rest was seen.
    pub first: String,
    /// When the last one was seen.
    pub last: String,
    /// When it counts, if the tag does not change again.
    pub rests_at: String,
}

/// Why an image cannot be asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImageProblem {
    /// What failed, on what, and the remedy.
    pub message: String,
    /// Since when.
    pub since: String,
    /// How often in a row.
    pub tries: u32,
}

/// A registry that is not asked before some time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RegistryPause {
    /// The time.
    pub until: String,
    /// Why.
    pub why: String,
}

/// What a look at a tag has shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Observation {
    /// When.
    pub at: String,
    /// What the tag had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// `first`, `changed`, `returned`, `same` or `moved`.
    pub what: String,
    /// What that means, in a sentence.
    pub words: String,
}

/// What is known of one image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImageDetails {
    /// The image.
    pub image: String,
    /// How it is asked for: once without credentials, and once for each registry with credentials for its host.
    pub watches: Vec<WatchedImage>,
    /// The tasks that need it.
    pub users: Vec<ImageUser>,
    /// The tasks that make it.
    pub makers: Vec<ImageMaker>,
    /// What it has for each platform that tasks need.
    pub facts: Vec<ImageFact>,
    /// Whether there are more users than are listed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_cut: bool,
}

/// A task that needs an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImageUser {
    /// The task's registry.
    pub registry: String,
    /// The task.
    pub task: String,
    /// The platform that the image is needed for.
    pub platform: String,
    /// `runtime`, `buildtime` or `step`.
    pub role: String,
    /// The code of the first rule that says that a change of the image does not rebuild the task; absent if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "only_buildtime")]
    pub rule: Option<String>,
    /// Why not, and the remedy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why_not: Option<String>,
}

/// A task that makes an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImageMaker {
    /// The task's registry.
    pub registry: String,
    /// The task.
    pub task: String,
    /// Its last successful run.
    pub run: String,
    /// When the run ended.
    pub at: String,
}

/// What an image has for a platform, as a registry of gantry knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImageFact {
    /// The registry.
    pub registry: String,
    /// The platform.
    pub platform: String,
    /// The digest of the platform's manifest.
    pub digest: String,
    /// What it consists of: equal for images with the same layers and configuration, whenever they were built.
    pub content: String,
    /// How often its content has changed, from 1.
    pub generation: u64,
    /// When it changed last.
    pub since: String,
}

/// Where an image comes from, and what was built on it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Why {
    /// The image, if one was asked for by its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The digest.
    pub digest: String,
    /// How it was built; absent if no run of gantry pushed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// How the images were built on which it is based, and theirs, nearest first. Images that no run pushed are only among
    /// the `bases`.
    pub upstream: Vec<Origin>,
    /// The tasks whose last build is based on it, and those based on theirs, nearest first.
    pub children: Vec<Child>,
    /// Whether there is more than is listed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_cut: bool,
}

/// How an image was built.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Origin {
    /// How many builds are between it and the image that was asked for; 0 for that image itself.
    pub depth: usize,
    /// What it was built from.
    #[serde(flatten)]
    pub lineage: Lineage,
    /// What started the run, like `Commit` or `Image Update`; absent if the run is no longer kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger: Option<String>,
    /// The event that started the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
    /// The wave to which the run belongs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wave: Option<OriginWave>,
    /// The images that had changed since the task was built before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub moved: Vec<MovedImage>,
}

/// The wave to which a run belongs, and the change that the wave follows from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OriginWave {
    /// Its id.
    #[schema(example = "ca-w1")]
    pub id: String,
    /// The event that reports the change; absent if the wave is no longer kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
    /// The change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<MovedImage>,
}

/// An image that changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MovedImage {
    /// The image.
    pub image: String,
    /// What it was before; absent if the task was not built on it before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// What it is since.
    pub to: String,
}

/// A task whose last build is based on an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Child {
    /// How many builds are between it and the image that was asked for, from 1.
    pub depth: usize,
    /// The task's registry.
    pub registry: String,
    /// The task.
    pub task: String,
    /// The image on which it is based.
    pub on: OutputImage,
    /// Its last successful run.
    pub run: String,
    /// The images that the run pushed.
    pub made: Vec<OutputImage>,
    /// When the run ended.
    pub at: String,
}

/// What a change of an image would rebuild.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Impact {
    /// The image.
    pub base: String,
    /// The tasks that would be rebuilt, each after those that it waits for.
    pub tasks: Vec<AffectedTask>,
    /// The tasks that need one of the images and would not be rebuilt.
    pub others: Vec<UnaffectedTask>,
    /// How long the last builds of the tasks took together.
    pub total_ms: u64,
    /// How long the rebuild takes if no run waits for a place: the longest way through the tasks.
    pub longest_ms: u64,
    /// How many of the tasks were never built, so that nothing is known of their time.
    pub without_history: usize,
    /// Whether there are more tasks than are listed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_cut: bool,
}

/// A task that would be rebuilt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AffectedTask {
    /// The task's registry.
    pub registry: String,
    /// The task.
    pub task: String,
    /// How many builds lead to it, from 1.
    pub depth: usize,
    /// The image through which it is reached first.
    pub through: String,
    /// The tasks of the same registry that it waits for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<String>,
    /// Whether it waits for itself through other tasks. Tasks of a circle are built by name.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_in_circle: bool,
    /// The tags that its last build moved.
    pub makes: Vec<String>,
    /// Its last successful run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_run: Option<String>,
    /// How long that took from its lease to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took_ms: Option<u64>,
    /// When that ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_built: Option<String>,
}

/// A task that would not be rebuilt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UnaffectedTask {
    /// The task's registry.
    pub registry: String,
    /// The task.
    pub task: String,
    /// The image that it needs.
    pub through: String,
    /// The code of the first rule that says no, for programs.
    pub rule: String,
    /// Why not, and the remedy.
    pub why: String,
}
