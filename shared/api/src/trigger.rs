//! Triggers of tasks.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Starts runs when the context's repository changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceTrigger {
    /// Its name in the task.
    #[serde(default = "default_trigger_name")]
    pub name: String,
    /// The branch; if absent, the context's branch, or else the repository's default branch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// Which pushes start runs.
    #[serde(default)]
    pub commit: CommitRules,
    /// Which changes of pull requests start runs.
    #[serde(default)]
    pub pull_request: PullRequestRules,
    /// Which changed files matter, for pushes and pull requests.
    #[serde(default)]
    pub paths: PathRules,
    /// Whether a commit whose message contains `[skip ci]` or a similar mark starts nothing.
    #[serde(default)]
    pub honors_skip_marks: bool,
    /// What a newer change does to runs of older ones: `none`, `queued` (cancels those that no worker has taken) or
    /// `running` (cancels all).
    #[serde(default = "none")]
    pub supersede: String,
    /// How often gantry itself looks for changes, in seconds: 30 to 86400. Without it, gantry relies on webhooks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub poll: Option<u32>,
}

impl Default for SourceTrigger {
    fn default() -> Self {
        Self {
            name: default_trigger_name(),
            branch: None,
            commit: CommitRules::default(),
            pull_request: PullRequestRules::default(),
            paths: PathRules::default(),
            honors_skip_marks: false,
            supersede: none(),
            poll: None,
        }
    }
}

/// Which pushes start runs.
///
/// A pattern: `*` is anything but `/`, `**` anything, `{a,b}` either; with `!` before it, what it matches is left out
/// again. The last pattern that matches decides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CommitRules {
    /// `Enabled` or `Disabled`.
    #[serde(default = "enabled")]
    pub status: String,
    /// Patterns of branches, instead of the one branch of the trigger.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub branches: Vec<String>,
    /// Patterns of tags; without one, tags start nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
}

impl Default for CommitRules {
    fn default() -> Self {
        Self { status: enabled(), branches: Vec::new(), tags: Vec::new() }
    }
}

/// Which changes of pull requests start runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PullRequestRules {
    /// `Enabled` or `Disabled`.
    #[serde(default = "disabled")]
    pub status: String,
    /// Patterns of base branches, instead of the one branch of the trigger.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub branches: Vec<String>,
    /// Actions that start runs, beside those that change what is built: `ready_for_review`, `labeled`, `unlabeled`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub actions: Vec<String>,
    /// Whether drafts start runs.
    #[serde(default)]
    pub drafts: bool,
    /// Patterns of labels, of which it must have one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// The least relation of its author to the repository: `stranger`, `contributor`, `collaborator`, `member` or
    /// `owner`.
    #[serde(default = "stranger")]
    pub authors: String,
    /// `merge` for the provider's trial merge, if it is one of the current head; `head` for the head itself.
    #[serde(default = "merge")]
    pub builds: String,
    /// Pull requests of forks: `hold` until somebody approves the commit, `run`, or `never`. Their runs have no secrets
    /// and push nothing.
    #[serde(default = "hold")]
    pub forks: String,
    /// Whether runs push: only tags that contain the run's id or the commit.
    #[serde(default)]
    pub push: bool,
    /// Whether comments like `/gantry build` are obeyed.
    #[serde(default)]
    pub comments: bool,
}

impl Default for PullRequestRules {
    fn default() -> Self {
        Self {
            status: disabled(),
            branches: Vec::new(),
            actions: Vec::new(),
            drafts: false,
            labels: Vec::new(),
            authors: stranger(),
            builds: merge(),
            forks: hold(),
            push: false,
            comments: false,
        }
    }
}

/// Which changed files matter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PathRules {
    /// Patterns of which at least one changed file must match one; all files match if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub included: Vec<String>,
    /// Patterns of changed files that do not count.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignored: Vec<String>,
}

/// Starts runs when images change that the task needs. One that a Dockerfile or a command names by its digest never counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BaseImageTrigger {
    /// Its name in the task.
    #[serde(default = "default_base_trigger_name")]
    pub name: String,
    /// `Enabled` or `Disabled`.
    #[serde(default = "enabled")]
    pub status: String,
    /// Which images count: `Runtime` for the bases of the images that the task builds, `All` for every image that its builds
    /// read and its commands run in.
    #[serde(rename = "type", default = "runtime")]
    pub kind: String,
    /// Patterns of the images that count; all do if there are none. They match the whole name, like
    /// `docker.io/library/node:20`, or for Docker Hub the short one, like `node:20`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<String>,
}

impl Default for BaseImageTrigger {
    fn default() -> Self {
        Self {
            name: default_base_trigger_name(),
            status: enabled(),
            kind: runtime(),
            images: Vec::new(),
        }
    }
}

fn default_trigger_name() -> String {
    "defaultSourceTriggerName".to_owned()
}

fn default_base_trigger_name() -> String {
    "defaultBaseimageTriggerName".to_owned()
}

fn runtime() -> String {
    "Runtime".to_owned()
}

fn enabled() -> String {
    "Enabled".to_owned()
}

fn disabled() -> String {
    "Disabled".to_owned()
}

fn none() -> String {
    "none".to_owned()
}

fn stranger() -> String {
    "stranger".to_owned()
}

fn merge() -> String {
    "merge".to_owned()
}

fn hold() -> String {
    "hold".to_owned()
}
