//! `gantry task`: manages tasks, with the names and flags of `az acr task` where it has them.

use anyhow::Result;
use clap::Subcommand;
use gantry_api::{Task, TaskImages};
use gantry_domain::id::RunId;

use self::credential::CredentialCommand;
use self::save::{Create, Update};
use self::start::RunTask;
use self::timer::TimerCommand;
use super::Client;
use super::arguments::RegistryArg;
use super::log_view::Show;
use super::run::{self, ListRuns};
use super::task_file::FileCommand;
use super::task_images::Images;
use crate::exit::Exit;

mod base_trigger;
mod credential;
mod save;
mod start;
mod timer;
mod trigger;
mod view;

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
  gantry task create -n nightly -c https://github.com/octo/web.git#main \\
    -t 'web:{{.Run.ID}}' --schedule 'nightly:0 3 * * *' --timezone Europe/Berlin
  gantry task create -n hello --cmd 'busybox echo hello'
  gantry task create -n api -c https://github.com/octo/mono.git#main:api \\
    -f build/Dockerfile -t 'api:{{.Run.ID}}'
  GANTRY_GIT_TOKEN=… gantry task create -n private \\
    -c https://github.com/octo/private.git -t 'private:{{.Run.ID}}'")]
    Create(Box<Create>),
    /// List tasks
    #[command(visible_alias = "ls")]
    List(List),
    /// Show a task
    Show(OneTask),
    /// Show the images that a task needs: bases of its builds, and images of its commands
    #[command(after_long_help = "\
They are read from the task's source when the task is saved, and when the source moves; each run of the task reads them \
too. Images that the task builds itself are left out.

Roles: `runtime` is the base of a built image, `buildtime` any other image that a build reads, `step` one that a command \
runs in.")]
    Images(OneTask),
    /// Change a task; omitted options keep their values
    #[command(after_long_help = "Examples:
  gantry task update -n web --status Disabled
  gantry task update -n web -c https://github.com/octo/web.git#release -t 'web:{{.Run.ID}}'")]
    Update(Box<Update>),
    /// Delete a task; its runs are kept
    Delete(OneTask),
    /// Start a run of a task now, and follow it
    #[command(after_long_help = "Examples:
  gantry task run -n web
  gantry task run -n web --arg VERSION=2 --no-wait
  gantry task run -n web -c .             the task's recipe on this folder")]
    Run(RunTask),
    #[command(subcommand)]
    Credential(CredentialCommand),
    #[command(subcommand)]
    Timer(TimerCommand),
    #[command(flatten)]
    File(FileCommand),
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
    pub(crate) async fn run(self, client: &Client) -> Result<Exit> {
        match self {
            Self::Create(create) => create.run(client).await,
            Self::List(list) => list.run(client).await,
            Self::Show(one) => one.show(client).await,
            Self::Images(one) => one.images(client).await,
            Self::Update(update) => update.run(client).await,
            Self::Delete(one) => one.delete(client).await,
            Self::Run(run) => run.run(client).await,
            Self::Credential(credential) => credential.run(client).await,
            Self::Timer(timer) => timer.run(client).await,
            Self::File(file) => file.run(client.output, &client.environment),
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
        client.output.print(&tasks, view::table(&tasks))?;
        Ok(Exit::Ok)
    }
}

impl OneTask {
    async fn show(self, client: &Client) -> Result<Exit> {
        let registry = client.registry(&self.registry).await?;
        let task: Task = client.api.get(&["registries", &registry, "tasks", &self.name]).await?;
        client.output.print(&task, view::details(&task))?;
        Ok(Exit::Ok)
    }

    async fn images(self, client: &Client) -> Result<Exit> {
        let registry = client.registry(&self.registry).await?;
        let path = ["registries", &registry, "tasks", &self.name, "images"];
        let images: TaskImages = client.api.get(&path).await?;
        client.output.print(&images, Images(&images))?;
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
