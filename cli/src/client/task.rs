//! `gantry task`: manages tasks, with the names and flags of `az acr task` where it has them.

use std::path::Path;

use anyhow::Result;
use clap::Subcommand;
use gantry_api::{
    Run, SourceTrigger, Task, TaskCreate, TaskFileCreate, TaskFileUpdate, TaskRunCreate, TaskUpdate,
};
use gantry_domain::id::RunId;
use gantry_domain::source::{GitSource, RefKind, Source};

use super::Client;
use super::arguments::{BuildArgs, GitTokenArg, RegistryArg, whole_number};
use super::build::{is_address, upload, upload_folder};
use super::file_values::{DeclaredSecrets, SetValues, command_file, is_task_file};
use super::log_view::Show;
use super::output::say;
use super::run::{self, ListRuns, WaitArgs};
use super::table::{Details, Table, instant};
use super::task_file::{self, Action, TaskFile};
use crate::exit::{Exit, UsageError};

/// Save what to build and what starts it, and run it
#[derive(Debug, Subcommand)]
pub(crate) enum Tasks {
    /// Save a task: a push to its branch starts it
    #[command(after_long_help = "\
The branch and the folder stand behind `#`; without a branch it is the repository's own default. So that pushes are \
received, create a hook too: `gantry hook create --help`.

Examples:
  gantry task create -n web -c https://github.com/octo/web.git#main \\
    -t 'web:{{.Run.ID}}' -t web:latest
  gantry task create -n test -c https://github.com/octo/web.git#main -f acr-task.yaml
  gantry task create -n hello --cmd 'busybox echo hello'
  gantry task create -n api -c https://github.com/octo/mono.git#main:api \\
    -f build/Dockerfile -t 'api:{{.Run.ID}}'
  GANTRY_GIT_TOKEN=… gantry task create -n private \\
    -c https://github.com/octo/private.git -t 'private:{{.Run.ID}}'")]
    Create(Create),
    /// List tasks
    #[command(visible_alias = "ls")]
    List(List),
    /// Show a task
    Show(OneTask),
    /// Change a task; omitted options keep their values
    #[command(after_long_help = "Examples:
  gantry task update -n web --status Disabled
  gantry task update -n web -c https://github.com/octo/web.git#release -t 'web:{{.Run.ID}}'")]
    Update(Update),
    /// Delete a task; its runs are kept
    Delete(OneTask),
    /// Start a run of a task now, and follow it
    #[command(after_long_help = "Examples:
  gantry task run -n web
  gantry task run -n web --arg VERSION=2 --no-wait
  gantry task run -n web -c .             the task's recipe on this folder")]
    Run(RunTask),
    /// Check a task file: every mistake with its line and remedy
    #[command(after_long_help = "Nothing is sent to a server.

Examples:
  gantry task lint
  gantry task lint acr-task.yaml --values values.yaml --set tag=1
  cat acr-task.yaml | gantry task lint -")]
    Lint(TaskFile),
    /// Show a task file with its aliases and templates replaced, secrets masked
    #[command(after_long_help = "Nothing is sent to a server.

Examples:
  gantry task render
  gantry task render acr-task.yaml --run-variable Branch=release --set-secret password")]
    Render(TaskFile),
    /// Show what the steps of a task file would do, and in which order
    #[command(after_long_help = "Nothing is sent to a server.

Examples:
  gantry task plan
  gantry task plan acr-task.yaml --set tag=1 --output json")]
    Plan(TaskFile),
    /// List runs from the newest
    ListRuns(ListRuns),
    /// Show one run
    ShowRun(ByRunId),
    /// Cancel a run
    CancelRun(ByRunId),
    /// Show the log of a run to its end: by id, or the newest of a task or image
    Logs(TaskLogs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct OneTask {
    #[command(flatten)]
    registry: RegistryArg,
    /// The task's name
    #[arg(short, long)]
    name: String,
}

#[derive(Debug, clap::Args)]
pub(crate) struct List {
    #[command(flatten)]
    registry: RegistryArg,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Create {
    #[command(flatten)]
    task: OneTask,
    /// The source: `https://host/repository.git#ref:folder`, or the address of a `.tar.gz`; only a task file or a command
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
    git_token: GitTokenArg,
    #[command(flatten)]
    recipe: Recipe,
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
    git_token: GitTokenArg,
    #[command(flatten)]
    recipe: Recipe,
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
    /// The platform to build for, like linux/arm64
    #[arg(long, value_name = "OS/ARCHITECTURE")]
    platform: Option<String>,
    /// How long a run may take, in seconds
    #[arg(long, value_name = "SECONDS", value_parser = whole_number)]
    timeout: Option<u32>,
    /// How many of its runs may be ready or running at once
    #[arg(long, value_name = "COUNT", value_parser = whole_number)]
    run_limit: Option<u32>,
    /// Build without pushing
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", value_parser = yes_or_no)]
    no_push: Option<bool>,
    /// Build without the cache
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", value_parser = yes_or_no)]
    no_cache: Option<bool>,
    /// Whether a push to the context's branch starts it; it does, unless told otherwise
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", value_parser = yes_or_no)]
    commit_trigger_enabled: Option<bool>,
}

/// Parses `true` and `false` in any case, because the original capitalizes them.
fn yes_or_no(text: &str) -> Result<bool, String> {
    text.to_ascii_lowercase().parse().map_err(|_| "`true` or `false`".to_owned())
}

#[derive(Debug, clap::Args)]
pub(crate) struct RunTask {
    #[command(flatten)]
    task: OneTask,
    /// Another context than the task's: a folder here, or an address
    #[arg(short, long, value_name = "CONTEXT")]
    context: Option<String>,
    /// Another Dockerfile or task file, relative to the context
    #[arg(short, long, value_name = "PATH")]
    file: Option<String>,
    #[command(flatten)]
    build_args: BuildArgs,
    #[command(flatten)]
    set: SetValues,
    /// Another stage
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,
    /// Move the tags even if a run of a newer change has moved them
    #[arg(long)]
    force_tags: bool,
    #[command(flatten)]
    git_token: GitTokenArg,
    #[command(flatten)]
    wait: WaitArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ByRunId {
    #[command(flatten)]
    registry: RegistryArg,
    /// The run's id, like `ca1`
    #[arg(long, value_name = "RUN")]
    run_id: RunId,
}

#[derive(Debug, clap::Args)]
pub(crate) struct TaskLogs {
    #[command(flatten)]
    registry: RegistryArg,
    /// The run's id, like `ca1`
    #[arg(long, value_name = "RUN")]
    run_id: Option<RunId>,
    /// The newest run of this task
    #[arg(short, long, conflicts_with = "run_id")]
    name: Option<String>,
    /// The newest run that pushed this image
    #[arg(long, conflicts_with_all = ["run_id", "name"])]
    image: Option<String>,
    /// Print without colours
    #[arg(long)]
    no_format: bool,
}

impl Tasks {
    /// The task file, and what to do with it, of a command that needs no server.
    pub(crate) fn offline(&self) -> Option<(&TaskFile, Action)> {
        match self {
            Self::Lint(file) => Some((file, Action::Lint)),
            Self::Render(file) => Some((file, Action::Render)),
            Self::Plan(file) => Some((file, Action::Plan)),
            Self::Create(_)
            | Self::List(_)
            | Self::Show(_)
            | Self::Update(_)
            | Self::Delete(_)
            | Self::Run(_)
            | Self::ListRuns(_)
            | Self::ShowRun(_)
            | Self::CancelRun(_)
            | Self::Logs(_) => None,
        }
    }

    pub(crate) async fn run(self, client: &Client) -> Result<Exit> {
        match self {
            Self::Create(create) => create.run(client).await,
            Self::List(list) => list.run(client).await,
            Self::Show(one) => one.show(client).await,
            Self::Update(update) => update.run(client).await,
            Self::Delete(one) => one.delete(client).await,
            Self::Run(run) => run.run(client).await,
            Self::Lint(file) => file.run(Action::Lint, client.output, &client.environment),
            Self::Render(file) => file.run(Action::Render, client.output, &client.environment),
            Self::Plan(file) => file.run(Action::Plan, client.output, &client.environment),
            Self::ListRuns(list) => list.run(client).await,
            Self::ShowRun(by) => {
                run::show(client, &by.run_id.to_string(), by.registry.registry.as_deref()).await
            }
            Self::CancelRun(by) => {
                run::cancel(client, &by.run_id.to_string(), by.registry.registry.as_deref()).await
            }
            Self::Logs(logs) => logs.run(client).await,
        }
    }
}

impl List {
    async fn run(self, client: &Client) -> Result<Exit> {
        let filter = [("registry", self.registry.registry.as_deref())];
        let tasks: Vec<Task> = client.api.list(&["tasks"], &filter, usize::MAX).await?;
        client.output.print(&tasks, table(&tasks))?;
        Ok(Exit::Ok)
    }
}

impl OneTask {
    async fn show(self, client: &Client) -> Result<Exit> {
        let registry = client.registry(&self.registry).await?;
        let task: Task = client.api.get(&["registries", &registry, "tasks", &self.name]).await?;
        client.output.print(&task, details(&task))?;
        Ok(Exit::Ok)
    }

    async fn delete(self, client: &Client) -> Result<Exit> {
        let registry = client.registry(&self.registry).await?;
        client.api.delete(&["registries", &registry, "tasks", &self.name]).await?;
        client
            .output
            .done(format_args!("task {} of {registry} is gone; its runs are kept", self.name))?;
        Ok(Exit::Ok)
    }
}

impl Create {
    async fn run(self, client: &Client) -> Result<Exit> {
        let registry = client.registry(&self.task.registry).await?;
        let recipe = self.recipe;
        // Only git repositories have branches.
        let source = self.context.parse();
        let is_git = matches!(source, Ok(Source::Git(_)));
        let wants_trigger = match recipe.commit_trigger_enabled {
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
        let source_trigger = (is_git && wants_trigger)
            .then(|| SourceTrigger { name: self.source_trigger_name, ..SourceTrigger::default() });
        if recipe.commit_trigger_enabled == Some(true) && !is_git {
            return Err(UsageError(format!(
                "{} is no git repository, so no push can start this task",
                self.context
            ))
            .into());
        }
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
            target: recipe.target,
            platform: recipe.platform,
            timeout: recipe.timeout,
            no_cache: recipe.no_cache.unwrap_or(false),
            status: recipe.status,
            source_trigger,
            git_token: self.git_token.read(&client.environment)?,
            run_limit: recipe.run_limit,
        };
        let task: Task = client.api.post(&["registries", &registry, "tasks"], &new).await?;
        client.output.print(&task, details(&task))?;
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
    async fn run(self, client: &Client) -> Result<Exit> {
        let registry = client.registry(&self.task.registry).await?;
        let path = ["registries", &registry, "tasks", &self.task.name];
        let recipe = self.recipe;
        let source_trigger = match recipe.commit_trigger_enabled {
            None => None,
            Some(enabled) => {
                let task: Task = client.api.get(&path).await?;
                let status = if enabled { "Enabled" } else { "Disabled" }.to_owned();
                Some(Some(SourceTrigger { status, ..task.source_trigger.unwrap_or_default() }))
            }
        };
        let plain = self.build_args.plain(&client.environment)?;
        let secret = self.build_args.secret(&client.environment)?;
        let (values, secret_values) = (self.set.plain()?, self.set.secret(&client.environment)?);
        let secrets = self.secrets.read()?;
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
            secrets: (!secrets.is_empty()).then_some(secrets),
        };
        let change = TaskUpdate {
            context: self.context,
            task_file: (file != TaskFileUpdate::default()).then_some(file),
            dockerfile,
            images: (!self.images.is_empty()).then_some(self.images),
            build_args: (!plain.is_empty()).then_some(plain),
            secret_build_args: (!secret.is_empty()).then_some(secret),
            target: recipe.target.map(Some),
            platform: recipe.platform,
            timeout: recipe.timeout,
            push: recipe.no_push.map(|no_push| !no_push),
            no_cache: recipe.no_cache,
            status: recipe.status,
            source_trigger,
            git_token: self.git_token.read(&client.environment)?.map(Some),
            run_limit: recipe.run_limit.map(Some),
        };
        if change == TaskUpdate::default() {
            return Err(UsageError(
                "nothing to change was named: see `gantry task update --help`".to_owned(),
            )
            .into());
        }
        let task: Task = client.api.patch(&path, &change).await?;
        client.output.print(&task, details(&task))?;
        Ok(Exit::Ok)
    }
}

impl RunTask {
    async fn run(self, client: &Client) -> Result<Exit> {
        let registry = client.registry(&self.task.registry).await?;
        let path = ["registries", &registry, "tasks", &self.task.name];
        let (task_file, dockerfile) = match self.file.clone() {
            Some(file) if is_task_file(&file) => (Some(file), None),
            file => (None, file),
        };
        let mut order = TaskRunCreate {
            task_file,
            values: self.set.plain()?,
            secret_values: self.set.secret(&client.environment)?,
            dockerfile,
            build_args: self.build_args.plain(&client.environment)?,
            secret_build_args: self.build_args.secret(&client.environment)?,
            target: self.target,
            force_tags: self.force_tags,
            ..TaskRunCreate::default()
        };
        match self.context {
            Some(context) if is_address(&context) => {
                order.context = Some(context);
                order.git_token = self.git_token.read(&client.environment)?;
            }
            Some(folder) => {
                let folder = Path::new(&folder);
                let (file, is_task_file) = match self.file {
                    Some(file) => (Some(file), order.task_file.is_some()),
                    None => {
                        let task: Task = client.api.get(&path).await?;
                        let is_task_file = task.task_file.is_some();
                        (
                            task.dockerfile.or(task.task_file.and_then(|file| file.path)),
                            is_task_file,
                        )
                    }
                };
                match file {
                    Some(file) => {
                        let uploaded = upload(client, &registry, folder, &file).await?;
                        order.upload = Some(uploaded.id);
                        let is_named = order.dockerfile.is_some() || order.task_file.is_some();
                        if uploaded.dockerfile != file || is_named {
                            let field = if is_task_file {
                                &mut order.task_file
                            } else {
                                &mut order.dockerfile
                            };
                            *field = Some(uploaded.dockerfile);
                        }
                    }
                    None => order.upload = Some(upload_folder(client, &registry, folder).await?),
                }
            }
            None => {}
        }
        let path = ["registries", &registry, "tasks", &self.task.name, "runs"];
        let run: Run = client.api.start(&path, &order).await?;
        self.wait.see_through(client, run).await
    }
}

impl TaskLogs {
    async fn run(self, client: &Client) -> Result<Exit> {
        let run = match self.run_id {
            Some(run) => run.to_string(),
            None => {
                let registry = client.registry(&self.registry).await?;
                let filter = [
                    ("registry", Some(registry.as_str())),
                    ("task", self.name.as_deref()),
                    ("image", self.image.as_deref()),
                ];
                run::newest(client, &filter).await?.ok_or_else(|| run::no_run(&filter))?.id
            }
        };
        run::watch(client, &run, None, Show::Log, !self.no_format).await
    }
}

fn table(tasks: &[Task]) -> Table<6> {
    let mut table = Table::new(
        ["NAME", "REGISTRY", "PLATFORM", "STATUS", "SOURCE REPOSITORY", "TRIGGERS"],
        "no tasks: `gantry task create --help` shows how to make one",
    );
    for task in tasks {
        table.row([
            task.name.clone(),
            task.registry.clone(),
            task.platform.clone(),
            task.status.clone(),
            task.context.clone(),
            triggers(task),
        ]);
    }
    table
}

fn triggers(task: &Task) -> String {
    match &task.source_trigger {
        Some(trigger) if trigger.status == "Enabled" => "SOURCE".to_owned(),
        Some(_) | None => String::new(),
    }
}

fn details(task: &Task) -> Details {
    let mut details = Details::default();
    let trigger = task.source_trigger.as_ref().map(|trigger| {
        let branch = trigger.branch.as_deref().unwrap_or("the context's branch");
        format!("push to {branch}, {}", trigger.status)
    });
    details
        .line("task", &task.name)
        .line("registry", &task.registry)
        .line("status", &task.status)
        .line("context", &task.context)
        .maybe("dockerfile", task.dockerfile.as_ref())
        .each("images", &task.images)
        .maybe("push", task.dockerfile.as_ref().map(|_| if task.push { "yes" } else { "no" }))
        .each("arguments", task.build_args.iter().map(|(name, value)| format!("{name}={value}")))
        .each("secret arguments", &task.secret_build_args)
        .maybe("target", task.target.as_ref());
    if let Some(file) = &task.task_file {
        details
            .line("task file", file.path.as_deref().unwrap_or("given with the task"))
            .maybe("values file", file.values_file.as_ref())
            .each("values", file.values.iter().map(|(name, value)| format!("{name}={value}")))
            .each("secret values", &file.secret_values)
            .each("secrets", file.secrets.iter().map(|(id, source)| format!("{id} is {source}")))
            .each("text", file.text.iter().flat_map(|text| text.lines()));
    }
    details
        .line("platform", &task.platform)
        .line("timeout", format_args!("{} s", task.timeout))
        .maybe("cache", task.no_cache.then_some("not used"))
        .maybe("run limit", task.run_limit)
        .line("trigger", trigger.as_deref().unwrap_or("none: `gantry task run` starts it"))
        .maybe("git token", task.has_git_token.then_some("kept"))
        .line("revision", task.revision)
        .line("created", instant(&task.created))
        .line("updated", instant(&task.updated));
    details
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn task(trigger: serde_json::Value) -> Task {
        serde_json::from_value(json!({
            "registry": "demo", "name": "hello", "revision": 1, "status": "Enabled",
            "context": "https://git.example/hello.git#main", "dockerfile": "Dockerfile",
            "images": ["hello:{{.Run.ID}}", "hello:latest"], "build_args": {"A": "1"},
            "secret_build_args": ["NPM"], "platform": "linux/amd64", "timeout": 3600, "push": true,
            "no_cache": false, "source_trigger": trigger, "has_git_token": true,
            "created": "2026-03-09T20:30:10.123Z", "updated": "2026-03-09T20:30:10.123Z"
        }))
        .unwrap()
    }

    #[test]
    fn tasks_are_listed_as_the_original_lists_them() {
        let disabled = json!({"name": "t", "status": "Disabled"});
        insta::assert_snapshot!(table(&[task(json!({"name": "t"})), task(disabled), task(json!(null))]), @r"
        NAME   REGISTRY  PLATFORM     STATUS   SOURCE REPOSITORY                   TRIGGERS
        hello  demo      linux/amd64  Enabled  https://git.example/hello.git#main  SOURCE
        hello  demo      linux/amd64  Enabled  https://git.example/hello.git#main
        hello  demo      linux/amd64  Enabled  https://git.example/hello.git#main
        ");
    }

    #[test]
    fn a_task_is_shown_without_its_secrets() {
        insta::assert_snapshot!(details(&task(json!({"name": "t"}))), @r"
        task              hello
        registry          demo
        status            Enabled
        context           https://git.example/hello.git#main
        dockerfile        Dockerfile
        images            hello:{{.Run.ID}}
                          hello:latest
        push              yes
        arguments         A=1
        secret arguments  NPM
        platform          linux/amd64
        timeout           3600 s
        trigger           push to the context's branch, Enabled
        git token         kept
        revision          1
        created           2026-03-09T20:30:10Z
        updated           2026-03-09T20:30:10Z
        ");
    }
}
