//! Tasks, and requests to run them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::login::{Login, LoginCreate};
use super::timer::Timer;
use super::trigger::{BaseImageTrigger, SourceTrigger};
use super::{present, yes};

/// A saved recipe: what to build, and what starts it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Task {
    /// Its registry.
    pub registry: String,
    /// Its name there.
    pub name: String,
    /// Starts at 1 and grows by 1 with each change.
    pub revision: u64,
    /// `Enabled` or `Disabled`. Triggers do not start a disabled task.
    pub status: String,
    /// The context to build: `https://host/repository.git#ref:folder`, the address of a `.tar.gz`, or `oci://host/artifact:tag`.
    pub context: String,
    /// Whether the files of a git repository that Git LFS keeps are fetched.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lfs: bool,
    /// Whether the submodules of a git repository are fetched as well.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub submodules: bool,
    /// The task file that it runs, instead of building a Dockerfile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_file: Option<TaskFile>,
    /// The Dockerfile, relative to the context's root; absent if it runs a task file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dockerfile: Option<String>,
    /// The image's names, with run variables like `web:{{.Run.ID}}`.
    pub images: Vec<String>,
    /// Build arguments.
    pub build_args: BTreeMap<String, String>,
    /// The names of its secret build arguments.
    pub secret_build_args: Vec<String>,
    /// Its credentials for registries, by login server.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub credentials: BTreeMap<String, Login>,
    /// The stage to build; the last if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The platform to build for, or several, separated by commas.
    #[schema(example = "linux/amd64")]
    pub platform: String,
    /// How long a run may take, in seconds.
    pub timeout: u32,
    /// Whether the image is pushed.
    pub push: bool,
    /// Whether to build without the cache.
    pub no_cache: bool,
    /// Starts runs when the context's repository changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_trigger: Option<SourceTrigger>,
    /// Starts runs when images change that it needs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_image_trigger: Option<BaseImageTrigger>,
    /// The policies of tags, `REPOSITORY:PATTERN`: of these images the newest tag that matches is used and followed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub base_image_follow: Vec<String>,
    /// Start runs by the clock.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub timers: Vec<Timer>,
    /// Whether it has a token or a deploy key for reading its repository.
    pub has_git_token: bool,
    /// The keys of which the host must have one, if the repository is read over ssh.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub git_host_keys: Vec<String>,
    /// Whether the code host shows the states of its runs at their commits.
    pub report_status: bool,
    /// Whether it has a token of its own for the API of the code host.
    pub has_api_token: bool,
    /// How many of its runs may be ready or running at once; limited only by the registry's limit if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_limit: Option<u32>,
    /// The concurrency group: of its tasks' runs, one is ready or running at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency_group: Option<String>,
    /// The webhook at its code host; absent in lists, and if it needs none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<TaskWebhook>,
    /// When it was created.
    pub created: String,
    /// When it was last changed.
    pub updated: String,
}

/// How the webhook that a task needs stands at its code host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TaskWebhook {
    /// `Pending`, `InPlace`, `Problem`, or `ByHand` if gantry does not make it.
    pub state: String,
    /// What is wrong or why gantry does not make it, and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The hook that it sends to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hook: Option<String>,
    /// The ids that the code host gave it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<String>,
    /// When it was last seen at the code host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checked: Option<String>,
    /// When a request that failed is repeated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A task file with its values.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TaskFile {
    /// The file itself, if it is not in the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The file in the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "acr-task.yaml")]
    pub path: Option<String>,
    /// A file of values in the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub values_file: Option<String>,
    /// Values, which replace those of the file of values.
    pub values: BTreeMap<String, String>,
    /// The names of its secret values.
    pub secret_values: Vec<String>,
    /// The secrets that it may name, by their ids in it: `NAME` or `NAME@VERSION` of the registry, or an address in a vault.
    pub secrets: BTreeMap<String, String>,
}

/// A new task file: exactly one of `text` and `path`.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TaskFileCreate {
    /// The file itself, at most 64 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The file in the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// A file of values in the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub values_file: Option<String>,
    /// Values, which replace those of the file of values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub values: BTreeMap<String, String>,
    /// Secret values. Never returned.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(write_only)]
    pub secret_values: BTreeMap<String, String>,
    /// The secrets that it may name, by their ids in it: `NAME` or `NAME@VERSION` of the registry, or an address in a vault.
    /// A token of scope `write` is needed to declare one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, String>,
}

/// An update of a task file. Absent fields are unchanged; `text` replaces `path`, and the other way round.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TaskFileUpdate {
    /// The file itself, at most 64 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The file in the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// A file of values in the source; `null` for none.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub values_file: Option<Option<String>>,
    /// All values, instead of the former ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub values: Option<BTreeMap<String, String>>,
    /// All secret values, instead of the former ones. Never returned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(write_only)]
    pub secret_values: Option<BTreeMap<String, String>>,
    /// All secrets that it may name, instead of the former ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secrets: Option<BTreeMap<String, String>>,
}

impl std::fmt::Debug for TaskFileCreate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TaskFileCreate").field("path", &self.path).finish_non_exhaustive()
    }
}

/// A new task.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TaskCreate {
    /// Its name in the registry: 2 to 50 letters, digits, `-` or `_`.
    pub name: String,
    /// The context: `https://host/repository.git#ref:folder`, the address of a `.tar.gz`, or `/dev/null` for a task file
    /// that needs no files.
    pub context: String,
    /// Whether the files of a git repository that Git LFS keeps are fetched.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lfs: bool,
    /// Whether the submodules of a git repository are fetched as well.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub submodules: bool,
    /// The task file to run, instead of building a Dockerfile. The fields of a build must be absent then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_file: Option<TaskFileCreate>,
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
    /// Credentials for registries, by login server, at most 32: for images that its runs read and push there.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub credentials: BTreeMap<String, LoginCreate>,
    /// The stage to build; the last if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The platform to build for, or several, separated by commas: then the image is an index. `linux/amd64` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// How long a run may take, in seconds; 3600 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u32>,
    /// Whether the image is pushed.
    #[serde(default = "yes")]
    pub push: bool,
    /// Whether to build without the cache.
    #[serde(default)]
    pub no_cache: bool,
    /// `Enabled` or `Disabled`; `Enabled` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// Starts runs when the context's repository changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_trigger: Option<SourceTrigger>,
    /// Starts runs when images change that it needs; enabled, of type `Runtime`, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_image_trigger: Option<BaseImageTrigger>,
    /// Policies of tags, `REPOSITORY:PATTERN`, at most 16. Instead of a tag in the source that the pattern covers, the newest tag
    /// that matches is used and followed. The pattern is a glob like `20.*-slim`, in which `*` stands for a version, or a range
    /// of versions like `^20.1`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub base_image_follow: Vec<String>,
    /// Start runs by the clock; at most 20.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub timers: Vec<Timer>,
    /// The token for reading the repository; over ssh, the private deploy key. Never returned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(write_only)]
    pub git_token: Option<String>,
    /// The keys of which the host must have one, to read a repository over ssh: lines of `ssh-keyscan`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub git_host_keys: Vec<String>,
    /// Whether the code host shows the states of its runs at their commits.
    #[serde(default = "yes")]
    pub report_status: bool,
    /// The token for the API of the code host, which no worker gets; the token for reading if absent. Never returned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(write_only)]
    pub api_token: Option<String>,
    /// How many of its runs may be ready or running at once; limited only by the registry's limit if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_limit: Option<u32>,
    /// The concurrency group: of all tasks of the registry in one group, one run is ready or running at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency_group: Option<String>,
}

impl Default for TaskCreate {
    /// The values of absent fields, with an empty name and context.
    fn default() -> Self {
        Self {
            name: String::new(),
            context: String::new(),
            lfs: false,
            submodules: false,
            task_file: None,
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
            status: None,
            source_trigger: None,
            base_image_trigger: None,
            base_image_follow: Vec::new(),
            timers: Vec::new(),
            git_token: None,
            git_host_keys: Vec::new(),
            report_status: true,
            api_token: None,
            run_limit: None,
            concurrency_group: None,
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

/// An update of a task. Absent fields are unchanged; `null` removes a value.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TaskUpdate {
    /// The context to build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
    /// Whether the files of a git repository that Git LFS keeps are fetched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lfs: Option<bool>,
    /// Whether the submodules of a git repository are fetched as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub submodules: Option<bool>,
    /// Another task file. A task that builds a Dockerfile does not become one that runs a task file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_file: Option<TaskFileUpdate>,
    /// The Dockerfile, relative to the context's root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dockerfile: Option<String>,
    /// All of the image's names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images: Option<Vec<String>>,
    /// All build arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build_args: Option<BTreeMap<String, String>>,
    /// All secret build arguments. Never returned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(write_only)]
    pub secret_build_args: Option<BTreeMap<String, String>>,
    /// Credentials for registries, by login server. Those of other registries are unchanged; `null` removes one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = BTreeMap<String, LoginCreate>)]
    pub credentials: BTreeMap<String, Option<LoginCreate>>,
    /// The stage to build; `null` for the last.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub target: Option<Option<String>>,
    /// The platform to build for, or several, separated by commas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// How long a run may take, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u32>,
    /// Whether the image is pushed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub push: Option<bool>,
    /// Whether to build without the cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_cache: Option<bool>,
    /// `Enabled` or `Disabled`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// Starts runs when the context's repository changes; `null` for none.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<SourceTrigger>)]
    pub source_trigger: Option<Option<SourceTrigger>>,
    /// Starts runs when images change that it needs; `null` for none.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<BaseImageTrigger>)]
    pub base_image_trigger: Option<Option<BaseImageTrigger>>,
    /// All policies of tags, instead of the former ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_image_follow: Option<Vec<String>>,
    /// All timers, instead of the former ones. One that stays the same keeps its next instant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timers: Option<Vec<Timer>>,
    /// The token for reading the repository, or the private deploy key; `null` for none. Never returned.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(write_only, value_type = Option<String>)]
    pub git_token: Option<Option<String>>,
    /// All keys of which the host must have one, to read a repository over ssh: lines of `ssh-keyscan`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git_host_keys: Option<Vec<String>>,
    /// Whether the code host shows the states of its runs at their commits. Affects runs that start afterwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report_status: Option<bool>,
    /// The token for the API of the code host; `null` for the token for reading. Never returned.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(write_only, value_type = Option<String>)]
    pub api_token: Option<Option<String>>,
    /// How many of its runs may be ready or running at once; `null` for the registry's limit only.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u32>)]
    pub run_limit: Option<Option<u32>>,
    /// The concurrency group; `null` for none. Runs that wait already stay in the former one.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub concurrency_group: Option<Option<String>>,
}

impl std::fmt::Debug for TaskUpdate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TaskUpdate").field("context", &self.context).finish_non_exhaustive()
    }
}

/// A request to run a task. Fields that are set replace the task's.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TaskRunCreate {
    /// A different context: a git URL, the address of a `.tar.gz`, or `oci://host/artifact:tag`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
    /// The id of an uploaded archive, instead of the task's context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload: Option<String>,
    /// A different task file in the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_file: Option<String>,
    /// Values of the task file, added to those of the task or replacing them by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub values: BTreeMap<String, String>,
    /// Secret values of the task file, added to those of the task or replacing them by name. Never returned.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(write_only)]
    pub secret_values: BTreeMap<String, String>,
    /// A different Dockerfile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dockerfile: Option<String>,
    /// Build arguments, added to those of the task or replacing them by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub build_args: BTreeMap<String, String>,
    /// Secret build arguments, added to those of the task or replacing them by name. Never returned.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(write_only)]
    pub secret_build_args: BTreeMap<String, String>,
    /// A different stage to build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Whether the run moves its tags even if a newer change has already moved them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force_tags: bool,
    /// The token for reading a different context, or the private deploy key. Never returned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(write_only)]
    pub git_token: Option<String>,
    /// The keys of which the host must have one, to read a repository over ssh: lines of `ssh-keyscan`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub git_host_keys: Vec<String>,
}

impl std::fmt::Debug for TaskRunCreate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TaskRunCreate")
            .field("context", &self.context)
            .field("upload", &self.upload)
            .finish_non_exhaustive()
    }
}
