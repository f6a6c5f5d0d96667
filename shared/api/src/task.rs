//! Tasks, and runs of them that are asked for.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{present, yes};

/// A saved recipe: what to build, and what starts it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Task {
    /// Its registry.
    pub registry: String,
    /// Its name there.
    pub name: String,
    /// Counts from 1 with each change.
    pub revision: u64,
    /// `Enabled`, or `Disabled`: then triggers do not start it.
    pub status: String,
    /// Where it builds from: `https://host/repository.git#ref:folder` or the address of a `.tar.gz`.
    pub context: String,
    /// The Dockerfile, relative to the context's root.
    pub dockerfile: String,
    /// The image's names, with run variables like `web:{{.Run.ID}}`.
    pub images: Vec<String>,
    /// Build arguments.
    pub build_args: BTreeMap<String, String>,
    /// The names of its secret build arguments.
    pub secret_build_args: Vec<String>,
    /// The stage to build; the last if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The platform to build for.
    #[schema(example = "linux/amd64")]
    pub platform: String,
    /// How long a run may take, in seconds.
    pub timeout: u32,
    /// Whether the image is pushed.
    pub push: bool,
    /// Whether each step runs anew.
    pub no_cache: bool,
    /// Starts a run when a branch of the context's repository moves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_trigger: Option<SourceTrigger>,
    /// Whether it has a token that reads its repository.
    pub has_git_token: bool,
    /// How many of its runs may be ready or running at once; the registry's limit alone if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_limit: Option<u32>,
    /// When it was created.
    pub created: String,
    /// When it was changed last.
    pub updated: String,
}

/// Starts a run when one branch moves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceTrigger {
    /// Its name in the task.
    #[serde(default = "default_trigger_name")]
    pub name: String,
    /// The branch; that of the context if absent, and else the repository's default branch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// `Enabled` or `Disabled`.
    #[serde(default = "enabled")]
    pub status: String,
}

impl Default for SourceTrigger {
    fn default() -> Self {
        Self { name: default_trigger_name(), branch: None, status: enabled() }
    }
}

fn default_trigger_name() -> String {
    "defaultSourceTriggerName".to_owned()
}

fn enabled() -> String {
    "Enabled".to_owned()
}

/// A new task.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TaskCreate {
    /// Its name in the registry: 2 to 50 letters, digits, `-` or `_`.
    pub name: String,
    /// Where it builds from: `https://host/repository.git#ref:folder` or the address of a `.tar.gz`.
    pub context: String,
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
    /// How long a run may take, in seconds; 3600 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u32>,
    /// Whether the image is pushed.
    #[serde(default = "yes")]
    pub push: bool,
    /// Whether each step runs anew.
    #[serde(default)]
    pub no_cache: bool,
    /// `Enabled` or `Disabled`; `Enabled` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// Starts a run when a branch of the context's repository moves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_trigger: Option<SourceTrigger>,
    /// The token that reads the repository. Only ever goes in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(write_only)]
    pub git_token: Option<String>,
    /// How many of its runs may be ready or running at once; the registry's limit alone if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_limit: Option<u32>,
}

impl Default for TaskCreate {
    /// What an absent field means, and an empty name and context.
    fn default() -> Self {
        Self {
            name: String::new(),
            context: String::new(),
            dockerfile: None,
            images: Vec::new(),
            build_args: BTreeMap::new(),
            secret_build_args: BTreeMap::new(),
            target: None,
            platform: None,
            timeout: None,
            push: true,
            no_cache: false,
            status: None,
            source_trigger: None,
            git_token: None,
            run_limit: None,
        }
    }
}

impl std::fmt::Debug for TaskCreate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TaskCreate")
            .field("name", &self.name)
            .field("context", &self.context)
            .finish_non_exhaustive()
    }
}

/// What is to change of a task. What is absent stays; `null` removes.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TaskUpdate {
    /// Where it builds from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
    /// The Dockerfile, relative to the context's root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dockerfile: Option<String>,
    /// All of the image's names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images: Option<Vec<String>>,
    /// All build arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build_args: Option<BTreeMap<String, String>>,
    /// All secret build arguments. Only ever go in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(write_only)]
    pub secret_build_args: Option<BTreeMap<String, String>>,
    /// The stage to build; `null` for the last.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub target: Option<Option<String>>,
    /// The platform to build for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// How long a run may take, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u32>,
    /// Whether the image is pushed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub push: Option<bool>,
    /// Whether each step runs anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_cache: Option<bool>,
    /// `Enabled` or `Disabled`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// Starts a run when a branch of the context's repository moves; `null` for none.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<SourceTrigger>)]
    pub source_trigger: Option<Option<SourceTrigger>>,
    /// The token that reads the repository; `null` for none. Only ever goes in.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(write_only, value_type = Option<String>)]
    pub git_token: Option<Option<String>>,
    /// How many of its runs may be ready or running at once; `null` for the registry's limit alone.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u32>)]
    pub run_limit: Option<Option<u32>>,
}

impl std::fmt::Debug for TaskUpdate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TaskUpdate").field("context", &self.context).finish_non_exhaustive()
    }
}

/// A run of a task, and in what it differs from the task.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TaskRunCreate {
    /// Another context than the task's: a git URL or the address of a `.tar.gz`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
    /// An uploaded archive instead of the task's context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload: Option<String>,
    /// Another Dockerfile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dockerfile: Option<String>,
    /// Build arguments beside, or instead of, the task's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub build_args: BTreeMap<String, String>,
    /// Secret build arguments beside, or instead of, the task's. Only ever go in.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(write_only)]
    pub secret_build_args: BTreeMap<String, String>,
    /// Another stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Whether it moves its tags though a newer change has moved them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force_tags: bool,
    /// The token that reads another context than the task's. Only ever goes in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(write_only)]
    pub git_token: Option<String>,
}

impl std::fmt::Debug for TaskRunCreate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TaskRunCreate")
            .field("context", &self.context)
            .field("upload", &self.upload)
            .finish_non_exhaustive()
    }
}
