//! `gantry task create` and `gantry task update`.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use gantry_api::{
    BaseImageTrigger, SourceTrigger, Task, TaskCreate, TaskFileCreate, TaskFileUpdate, TaskUpdate,
};
use gantry_domain::source::{GitSource, RefKind, Source};

use super::base_trigger::BaseTriggerOptions;
use super::timer::{Choices, named};
use super::trigger::{TriggerOptions, list};
use super::{OneTask, view};
use crate::client::Client;
use crate::client::arguments::{ApiTokenArg, BuildArgs, GitTokenArg, whole_number, yes_or_no};
use crate::client::credential::CredentialArgs;
use crate::client::file_values::{DeclaredSecrets, SetValues, command_file, is_task_file};
use crate::client::output::say;
use crate::client::task_file;
use crate::exit::{Exit, UsageError};

#[derive(Debug, clap::Args)]
pub(crate) struct Create {
    #[command(flatten)]
    task: OneTask,
    /// The source: `https://host/repository.git#ref:folder`, `git@host:repository`, the address of a `.tar.gz`, or `oci://host/artifact:tag`; only a task file or a command
    /// needs none
    #[arg(short, long, value_name = "URL", default_value = "/dev/null", hide_default_value = true)]
    context: String,
    /// The Dockerfile, or a task file (`.yaml`, `.yml`), relative to the context; without a context, a task file here
    #[arg(short, long, value_name = "PATH", default_value = "Dockerfile")]
    file: String,
    /// One command instead of a file: `IMAGE ARGUMENTS`
    #[arg(long, value_name = "COMMAND", conflicts_with = "file")]
    cmd: Option<String>,
    /// A YAML file of values for the task file, relative to the context
    #[arg(long, value_name = "PATH")]
    values: Option<String>,
    #[command(flatten)]
    set: SetValues,
    #[command(flatten)]
    secrets: DeclaredSecrets,
    /// The image's name, like `web:{{.Run.ID}}`. May be given several times
    #[arg(short = 't', long = "image", value_name = "NAME")]
    images: Vec<String>,
    #[command(flatten)]
    build_args: BuildArgs,
    #[command(flatten)]
    credentials: CredentialArgs,
    #[command(flatten)]
    git_token: GitTokenArg,
    #[command(flatten)]
    api_token: ApiTokenArg,
    #[command(flatten)]
    recipe: Recipe,
    #[command(flatten)]
    trigger: TriggerOptions,
    #[command(flatten)]
    base_trigger: BaseTriggerOptions,
    /// When it starts by the clock: `NAME:SCHEDULE` or `SCHEDULE`, like 'nightly:0 3 * * *'. May be given several times
    #[arg(long = "schedule", value_name = "SCHEDULE", help_heading = "Timers")]
    schedules: Vec<String>,
    #[command(flatten)]
    timers: Choices,
    /// The name of the trigger that a push fires
    #[arg(long, default_value = "defaultSourceTriggerName", value_name = "NAME")]
    source_trigger_name: String,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Update {
    #[command(flatten)]
    task: OneTask,
    /// The source
    #[arg(short, long, value_name = "URL")]
    context: Option<String>,
    /// The Dockerfile or task file, relative to the context
    #[arg(short, long, value_name = "PATH")]
    file: Option<String>,
    /// A YAML file of values for the task file, relative to the context
    #[arg(long, value_name = "PATH")]
    values: Option<String>,
    #[command(flatten)]
    set: SetValues,
    #[command(flatten)]
    secrets: DeclaredSecrets,
    /// The image's name. May be given several times; replaces all former names
    #[arg(short = 't', long = "image", value_name = "NAME")]
    images: Vec<String>,
    #[command(flatten)]
    build_args: BuildArgs,
    #[command(flatten)]
    credentials: CredentialArgs,
    #[command(flatten)]
    git_token: GitTokenArg,
    #[command(flatten)]
    api_token: ApiTokenArg,
    #[command(flatten)]
    recipe: Recipe,
    #[command(flatten)]
    trigger: TriggerOptions,
    #[command(flatten)]
    base_trigger: BaseTriggerOptions,
    /// When it starts by the clock: `NAME:SCHEDULE` or `SCHEDULE`. May be given several times; replaces all former timers
    #[arg(long = "schedule", value_name = "SCHEDULE", help_heading = "Timers")]
    schedules: Vec<String>,
    #[command(flatten)]
    timers: Choices,
}

/// The options that `create` and `update` share.
#[derive(Debug, clap::Args)]
pub(crate) struct Recipe {
    /// Whether triggers may start it: Enabled or Disabled
    #[arg(long, value_name = "STATUS")]
    status: Option<String>,
    /// The stage to build [default: the last one]
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,
    /// The platform to build for, like linux/arm64; several, separated by commas, make an index
    #[arg(long, value_name = "OS/ARCHITECTURE[,…]")]
    platform: Option<String>,
    /// How long a run may take, in seconds
    #[arg(long, value_name = "SECONDS", value_parser = whole_number)]
    timeout: Option<u32>,
    /// How many of its runs may be ready or running at once
    #[arg(long, value_name = "COUNT", value_parser = whole_number)]
    run_limit: Option<u32>,
    /// Execute its runs one at a time with those of all tasks of the registry in this group; '' for no group
    #[arg(long, value_name = "NAME")]
    concurrency_group: Option<String>,
    /// Fetch the files of a git repository that Git LFS keeps
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", value_parser = yes_or_no)]
    lfs: Option<bool>,
    /// Fetch the submodules of a git repository as well
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", value_parser = yes_or_no)]
    submodules: Option<bool>,
    /// Build without pushing
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", value_parser = yes_or_no)]
    no_push: Option<bool>,
    /// Build without the cache
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", value_parser = yes_or_no)]
    no_cache: Option<bool>,
    /// Use and follow the newest tag that matches, instead of the one in the Dockerfile: like `node:20.*`, `node:20.*-slim`,
    /// where `*` stands for a version, or a range of versions like `node:^20.1`; '' for none. May be given several times
    #[arg(long, value_name = "REPOSITORY:PATTERN", help_heading = "Triggers")]
    base_image_follow: Vec<String>,
    /// Whether the code host shows the states of its runs at their commits; it does, unless told otherwise
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", value_parser = yes_or_no)]
    report_status: Option<bool>,
}

impl Create {
    pub(super) async fn run(self, client: &Client) -> Result<Exit> {
        let registry = client.registry(&self.task.registry).await?;
        let recipe = self.recipe;
        // Only git repositories have branches.
        let source = self.context.parse();
        let is_git = matches!(source, Ok(Source::Git(_)));
        let wants_trigger = match self.trigger.commit_trigger_enabled {
            _ if self.trigger.starts_otherwise() => true,
            Some(wants) => wants,
            None => match &source {
                Ok(Source::Git(git)) if names_no_branch(git) => {
                    say(format!(
                        "no push moves what {} names, so no push starts this task",
                        self.context
                    ));
                    false
                }
                _ => true,
            },
        };
        if self.trigger.asks_for_starts() && !is_git {
            return Err(UsageError(format!(
                "{} is no git repository, so no push and no pull request can start this task",
                self.context
            ))
            .into());
        }
        let trigger = SourceTrigger { name: self.source_trigger_name, ..SourceTrigger::default() };
        let source_trigger = (is_git && wants_trigger).then(|| self.trigger.apply(trigger));
        let has_base_trigger = self.base_trigger.is_given();
        let base_image_trigger =
            has_base_trigger.then(|| self.base_trigger.apply(BaseImageTrigger::default()));
        let is_file = self.cmd.is_some() || is_task_file(&self.file);
        let task_file = if is_file {
            let has_context = source.as_ref().ok() != Some(&Source::Nothing);
            let (text, path) = match &self.cmd {
                Some(command) => (Some(command_file(command, recipe.timeout)), None),
                None if has_context => (None, Some(self.file.clone())),
                None => (Some(task_file::read(Path::new(&self.file))?), None),
            };
            Some(TaskFileCreate {
                text,
                path,
                values_file: self.values,
                values: self.set.plain()?,
                secret_values: self.set.secret(&client.environment)?,
                secrets: self.secrets.read()?,
            })
        } else {
            None
        };
        let new = TaskCreate {
            name: self.task.name,
            context: self.context,
            dockerfile: task_file.is_none().then_some(self.file),
            task_file,
            push: !recipe.no_push.unwrap_or(false) && !self.images.is_empty(),
            images: self.images,
            build_args: self.build_args.plain(&client.environment)?,
            secret_build_args: self.build_args.secret(&client.environment)?,
            credentials: self.credentials.read(&client.environment)?,
            target: recipe.target,
            platform: recipe.platform,
            timeout: recipe.timeout,
            no_cache: recipe.no_cache.unwrap_or(false),
            lfs: recipe.lfs.unwrap_or(false),
            submodules: recipe.submodules.unwrap_or(false),
            status: recipe.status,
            source_trigger,
            base_image_trigger,
            base_image_follow: list(recipe.base_image_follow, Vec::new()),
            timers: named(&self.schedules, &self.timers)?,
            git_token: self.git_token.read(&client.environment)?,
            git_host_keys: self.git_token.host_keys()?,
            report_status: recipe.report_status.unwrap_or(true),
            api_token: self.api_token.read(&client.environment)?,
            run_limit: recipe.run_limit,
            concurrency_group: recipe.concurrency_group.filter(|group| !group.is_empty()),
        };
        let task: Task = client.api.post(&["registries", &registry, "tasks"], &new).await?;
        client.output.print(&task, view::details(&task))?;
        Ok(Exit::Ok)
    }
}

/// Whether a context refers to a tag, a commit or a pull request.
fn names_no_branch(git: &GitSource) -> bool {
    git.reference.as_ref().is_some_and(|reference| match reference.kind() {
        RefKind::DefaultBranch | RefKind::Branch(_) => false,
        RefKind::Tag | RefKind::Commit | RefKind::Other => true,
    })
}

impl Update {
    pub(super) async fn run(self, client: &Client) -> Result<Exit> {
        let registry = client.registry(&self.task.registry).await?;
        let path = ["registries", &registry, "tasks", &self.task.name];
        let recipe = self.recipe;
        let source_trigger = if self.trigger.is_given() {
            let task: Task = client.api.get(&path).await?;
            Some(Some(self.trigger.apply(task.source_trigger.unwrap_or_default())))
        } else {
            None
        };
        let base_image_trigger = if self.base_trigger.is_given() {
            let task: Task = client.api.get(&path).await?;
            Some(Some(self.base_trigger.apply(task.base_image_trigger.unwrap_or_default())))
        } else {
            None
        };
        let plain = self.build_args.plain(&client.environment)?;
        let secret = self.build_args.secret(&client.environment)?;
        let (values, secret_values) = (self.set.plain()?, self.set.secret(&client.environment)?);
        let secrets = self.secrets.read()?;
        let secrets = if secrets.is_empty() || self.context.is_some() {
            secrets
        } else {
            // Another context needs all of them again. Otherwise those that are not named stay.
            let task: Task = client.api.get(&path).await?;
            with_declared(task.task_file.unwrap_or_default().secrets, secrets)
        };
        let (path_in_source, dockerfile) = match self.file {
            Some(file) if is_task_file(&file) => (Some(file), None),
            file => (None, file),
        };
        let file = TaskFileUpdate {
            text: None,
            path: path_in_source,
            values_file: self.values.map(Some),
            values: (!values.is_empty()).then_some(values),
            secret_values: (!secret_values.is_empty()).then_some(secret_values),
            secrets: (!self.secrets.is_empty()).then_some(secrets),
        };
        let timers = named(&self.schedules, &self.timers)?;
        let credentials = self.credentials.read(&client.environment)?;
        let change = TaskUpdate {
            context: self.context,
            task_file: (file != TaskFileUpdate::default()).then_some(file),
            dockerfile,
            images: (!self.images.is_empty()).then_some(self.images),
            build_args: (!plain.is_empty()).then_some(plain),
            secret_build_args: (!secret.is_empty()).then_some(secret),
            credentials: credentials.into_iter().map(|(server, it)| (server, Some(it))).collect(),
            target: recipe.target.map(Some),
            platform: recipe.platform,
            timeout: recipe.timeout,
            push: recipe.no_push.map(|no_push| !no_push),
            no_cache: recipe.no_cache,
            lfs: recipe.lfs,
            submodules: recipe.submodules,
            status: recipe.status,
            source_trigger,
            base_image_trigger,
            base_image_follow: (!recipe.base_image_follow.is_empty())
                .then(|| list(recipe.base_image_follow, Vec::new())),
            timers: (!timers.is_empty()).then_some(timers),
            git_token: self.git_token.read(&client.environment)?.map(Some),
            git_host_keys: Some(self.git_token.host_keys()?).filter(|keys| !keys.is_empty()),
            report_status: recipe.report_status,
            api_token: self.api_token.read(&client.environment)?.map(Some),
            run_limit: recipe.run_limit.map(Some),
            concurrency_group: recipe
                .concurrency_group
                .map(|group| Some(group).filter(|group| !group.is_empty())),
        };
        if change == TaskUpdate::default() {
            return Err(UsageError(
                "nothing to change was named: see `gantry task update --help`".to_owned(),
            )
            .into());
        }
        let task: Task = client.api.patch(&path, &change).await?;
        client.output.print(&task, view::details(&task))?;
        Ok(Exit::Ok)
    }
}

/// The declared secrets with these changes. One without a source is removed.
fn with_declared(
    mut declared: BTreeMap<String, String>,
    changes: BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    declared.extend(changes);
    declared.retain(|_, source| !source.is_empty());
    declared
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_changes_the_secrets_that_it_names() {
        let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(id, source)| ((*id).to_owned(), (*source).to_owned())).collect()
        };
        let before = map(&[("a", "one"), ("b", "two"), ("c", "three")]);
        let changed = with_declared(before, map(&[("b", "other"), ("c", ""), ("d", "four")]));
        assert_eq!(changed, map(&[("a", "one"), ("b", "other"), ("d", "four")]));
    }
}
