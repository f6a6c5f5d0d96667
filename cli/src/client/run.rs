//! Starts, follows and lists runs.

use anyhow::{Result, anyhow};
use clap::Subcommand;
use gantry_api::{RerunCreate, Run, RunApproval, RunUpdate};
use gantry_domain::id::RunId;
use gantry_domain::run::RunStatus;
use gantry_domain::source::Source;

use super::Client;
use super::arguments::RegistryArg;
use super::follow::{Followed, follow};
use super::log_view::{LogView, Show};
use super::output::{Output, say};
use crate::exit::{Exit, UsageError};

mod view;

/// List, show and keep runs
#[derive(Debug, Subcommand)]
pub(crate) enum Runs {
    /// List runs from the newest
    #[command(
        visible_alias = "ls",
        after_long_help = "Examples:
  gantry runs list --status Failed
  gantry runs list --image web --top 5
  gantry runs list --output json | jq -r '.[].id'"
    )]
    List(ListRuns),
    /// Show one run: why it exists, what it waits for, what it made, how it ended
    Show(OneRun),
    /// Let a held run start, which builds a pull request of a fork
    #[command(after_long_help = "\
The code is a stranger's: look at the commit before you approve it. The run has no secrets and pushes nothing.

Examples:
  gantry runs show ca7
  gantry runs approve ca7 --commit 2f1c6e0d5a7b4c3f9e8d7c6b5a4f3e2d1c0b9a88")]
    Approve(Approve),
    /// Keep a run and its log for good
    Archive(Archive),
}

#[derive(Debug, clap::Args)]
pub(crate) struct ListRuns {
    #[command(flatten)]
    registry: RegistryArg,
    /// Only runs of this task
    #[arg(short = 'n', long, visible_alias = "name", value_name = "TASK")]
    task: Option<String>,
    /// Only runs with this status: Queued, Started, Running, Succeeded, Failed, Canceled, Error or Timeout
    #[arg(long, visible_alias = "run-status", value_name = "STATUS")]
    status: Option<RunStatus>,
    /// Only runs that pushed this image: `web`, `web:ca1` or `host/web@sha256:…`
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
    /// At most this many
    #[arg(long, default_value_t = 15, value_name = "COUNT")]
    top: usize,
}

#[derive(Debug, clap::Args)]
pub(crate) struct OneRun {
    /// The run's id, like `ca1`
    run: RunId,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Approve {
    /// The run's id, like `ca1`
    run: RunId,
    /// The commit that you looked at, in full. The run must build exactly this one
    #[arg(long, value_name = "COMMIT")]
    commit: String,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Archive {
    /// The run's id, like `ca1`
    run: RunId,
    /// Keep it for the usual time only
    #[arg(long)]
    undo: bool,
}

/// Cancel a run
#[derive(Debug, clap::Args)]
pub(crate) struct Cancel {
    /// The run's id, like `ca1`
    run: RunId,
}

/// Start the same build again: same task revision, same commit or upload
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
The recipe is that of the run, not of the task as it is now. A run that ended before its source was fetched builds what \
its context names now, and says so; an upload must still be kept; a .tar.gz or an artifact is fetched again. Bases are \
resolved anew unless --same-bases is given.")]
pub(crate) struct Rerun {
    /// The run's id, like `ca1`
    run: RunId,
    /// Build from the base images of that run, by digest, whatever their tags point to now
    #[arg(long)]
    same_bases: bool,
    /// Move the tags even if a run of a newer change has moved them
    #[arg(long)]
    force_tags: bool,
    #[command(flatten)]
    wait: WaitArgs,
}

/// How a started run is followed.
#[derive(Debug, clap::Args)]
pub(crate) struct WaitArgs {
    /// Print the run's id and exit, without waiting for the run
    #[arg(long)]
    no_wait: bool,
    /// Wait until the run is done, without its log
    #[arg(long)]
    no_logs: bool,
    /// Show the log without colours
    #[arg(long)]
    no_format: bool,
}

impl Runs {
    pub(crate) async fn run(self, client: &Client) -> Result<Exit> {
        match self {
            Self::List(list) => list.run(client).await,
            Self::Show(one) => show(client, &one.run.to_string(), None).await,
            Self::Approve(approve) => {
                let body = RunApproval { commit: approve.commit };
                let path = ["runs", &approve.run.to_string(), "approve"];
                let run: Run = client.api.post(&path, &body).await?;
                client.output.print(&run, format_args!("run {} is approved\n", run.id))?;
                Ok(Exit::Ok)
            }
            Self::Archive(archive) => {
                let change = RunUpdate { archived: !archive.undo };
                let run: Run =
                    client.api.patch(&["runs", &archive.run.to_string()], &change).await?;
                let kept =
                    if run.archived { "is kept for good" } else { "is kept for the usual time" };
                client.output.print(&run, format_args!("run {} {kept}\n", run.id))?;
                Ok(Exit::Ok)
            }
        }
    }
}

impl ListRuns {
    pub(crate) async fn run(self, client: &Client) -> Result<Exit> {
        // A task's name is unique only within its registry.
        let registry = match &self.task {
            Some(_) => Some(client.registry(&self.registry).await?),
            None => self.registry.registry,
        };
        let filter = [
            ("registry", registry.as_deref()),
            ("task", self.task.as_deref()),
            ("status", self.status.map(RunStatus::as_str)),
            ("image", self.image.as_deref()),
        ];
        let runs: Vec<Run> = client.api.list(&["runs"], &filter, self.top).await?;
        client.output.print(&runs, view::table(&runs))?;
        Ok(Exit::Ok)
    }
}

impl Cancel {
    pub(crate) async fn run(self, client: &Client) -> Result<Exit> {
        cancel(client, &self.run.to_string(), None).await
    }
}

impl Rerun {
    pub(crate) async fn run(self, client: &Client) -> Result<Exit> {
        let id = self.run.to_string();
        let first: Run = client.api.get(&["runs", &id]).await?;
        if first.commit.is_none() && matches!(first.source.parse(), Ok(Source::Git(_))) {
            say(format!("run {id} read no commit: what {} names now is built", first.source));
        }
        let order = RerunCreate { same_bases: self.same_bases, force_tags: self.force_tags };
        let run: Run = client.api.start(&["runs", &id, "reruns"], &order).await?;
        self.wait.see_through(client, run).await
    }
}

impl WaitArgs {
    /// Reports the queued run, and follows it to its end unless told otherwise.
    pub(crate) async fn see_through(&self, client: &Client, run: Run) -> Result<Exit> {
        say(format!("queued run {}", run.id));
        if self.no_wait {
            client.output.print(&run, format_args!("{}\n", run.id))?;
            return Ok(Exit::Ok);
        }
        let show = match client.output {
            _ if self.no_logs => Show::State,
            Output::Table | Output::Dot => Show::Log,
            Output::Json => Show::LogAside,
        };
        watch(client, &run.id, None, show, !self.no_format).await
    }
}

/// Follows a run to its end. The exit code is that of the run.
pub(crate) async fn watch(
    client: &Client,
    run: &str,
    place: Option<String>,
    show: Show,
    colours: bool,
) -> Result<Exit> {
    let colours = colours && client.environment.get("NO_COLOR").is_none();
    let watched: Run = client.api.get(&["runs", run]).await?;
    let has_parallel_steps = watched.task_file.is_some() || watched.platform.contains(',');
    let mut view = LogView::new(run, show, colours, has_parallel_steps);
    match follow(&client.api, run, place, &mut view).await? {
        Followed::Interrupted => Ok(Exit::Interrupted),
        Followed::Ended(run) => {
            say(view::ending(&run, show));
            if client.output == Output::Json {
                client.output.print(&run, "")?;
            }
            Ok(exit_of(&run))
        }
    }
}

/// Shows one run, which must belong to `registry` if that is given.
pub(crate) async fn show(client: &Client, run: &str, registry: Option<&str>) -> Result<Exit> {
    let run = find(client, run, registry).await?;
    client.output.print(&run, view::details(&run))?;
    Ok(Exit::Ok)
}

/// Requests cancellation of a run, which must belong to `registry` if that is given.
pub(crate) async fn cancel(client: &Client, run: &str, registry: Option<&str>) -> Result<Exit> {
    if registry.is_some() {
        find(client, run, registry).await?;
    }
    let run: Run = client.api.post(&["runs", run, "cancel"], &serde_json::json!({})).await?;
    let words = match run.status.parse() {
        Ok(status) if RunStatus::is_terminal(status) => format!("run {} is {}", run.id, run.status),
        _ => format!("run {} was asked to stop", run.id),
    };
    client.output.print(&run, format_args!("{words}\n"))?;
    Ok(Exit::Ok)
}

/// The newest matching run, if there is one.
pub(crate) async fn newest(
    client: &Client,
    filter: &[(&str, Option<&str>)],
) -> Result<Option<Run>> {
    let runs: Vec<Run> = client.api.list(&["runs"], filter, 1).await?;
    Ok(runs.into_iter().next())
}

/// Says that no run matches.
pub(crate) fn no_run(filter: &[(&str, Option<&str>)]) -> anyhow::Error {
    let asked: Vec<String> =
        filter.iter().filter_map(|(name, value)| Some(format!("{name} {}", (*value)?))).collect();
    match asked.as_slice() {
        [] => anyhow!("there is no run yet"),
        asked => anyhow!("there is no run of {} yet", asked.join(", ")),
    }
}

async fn find(client: &Client, run: &str, registry: Option<&str>) -> Result<Run> {
    let run: Run = client.api.get(&["runs", run]).await?;
    match registry {
        Some(registry) if registry != run.registry => Err(UsageError(format!(
            "run {} belongs to registry {}, not {registry}",
            run.id, run.registry
        ))
        .into()),
        _ => Ok(run),
    }
}

fn exit_of(run: &Run) -> Exit {
    run.status.parse().map_or(Exit::Failed, Exit::of_run)
}
