//! Starts, follows and lists runs.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Result, anyhow};
use clap::Subcommand;
use gantry_api::{RerunCreate, Run, RunUpdate, Step};
use gantry_domain::id::RunId;
use gantry_domain::run::RunStatus;
use gantry_domain::source::Source;
use gantry_ops::terminal::{Sanitiser, one_line};

use super::Client;
use super::arguments::RegistryArg;
use super::follow::{Followed, follow};
use super::lanes;
use super::log_view::{LogView, Show};
use super::output::{Output, say, write_out};
use super::table::{Details, Table, clock, instant};
use crate::exit::{Exit, UsageError};

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
its context names now, and says so; an upload must still be kept; a .tar.gz is fetched from its address again. Bases are \
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
        client.output.print(&runs, table(&runs))?;
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
            Output::Table => Show::Log,
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
    let mut view = LogView::new(run, show, colours, watched.task_file.is_some());
    match follow(&client.api, run, place, &mut view).await? {
        Followed::Interrupted => Ok(Exit::Interrupted),
        Followed::Ended(run) => {
            say(ending(&run, show));
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
    client.output.print(&run, details(&run))?;
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

fn table(runs: &[Run]) -> Table<7> {
    let mut table = Table::new(
        ["RUN ID", "TASK", "PLATFORM", "STATUS", "TRIGGER", "STARTED", "DURATION"],
        "no runs: `gantry build` and `gantry task run` start one, a push starts those of its tasks",
    );
    for run in runs {
        table.row([
            run.id.clone(),
            run.task.clone().unwrap_or_default(),
            run.platform.clone(),
            run.status.clone(),
            run.trigger.clone(),
            run.started.as_deref().map(instant).unwrap_or_default(),
            run.duration_ms.map(|millis| clock(Duration::from_millis(millis))).unwrap_or_default(),
        ]);
    }
    table
}

fn details(run: &Run) -> Details {
    let mut details = Details::default();
    let task = run.task.as_ref().map(|task| match run.task_revision {
        Some(revision) => format!("{task}, revision {revision}"),
        None => task.clone(),
    });
    details
        .line("run", &run.id)
        .line("status", &run.status)
        .maybe("waits for", run.waits_for.as_ref())
        .maybe("error", run.error.as_ref().map(|_| error_words(run)))
        .line("registry", &run.registry)
        .maybe("task", task)
        .line("type", &run.run_type)
        .line("cause", &run.cause)
        .line("source", &run.source)
        .maybe("commit", run.commit.as_ref())
        .maybe("dockerfile", run.dockerfile.as_ref())
        .maybe("task file", run.task_file.as_ref())
        .line("platform", &run.platform)
        .line("created", instant(&run.created))
        .maybe("started", run.started.as_deref().map(instant))
        .maybe("finished", run.finished.as_deref().map(instant))
        .maybe("duration", run.duration_ms.map(|millis| clock(Duration::from_millis(millis))))
        .each("pushed", run.images.iter().map(|image| format!("{}@{}", image.image, image.digest)))
        .each("left alone", run.superseded.iter().map(|tag| tag.why.clone()))
        .each(
            "bases",
            run.bases.iter().map(|base| format!("{}@{} ({})", base.image, base.digest, base.role)),
        )
        .each("steps", steps(&run.steps))
        .each(
            "attempts",
            run.attempts.iter().map(|one| {
                let error =
                    one.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
                format!("{} on {}, {}{error}", one.attempt, one.worker, one.end.replace('_', " "))
            }),
        )
        .maybe(
            "cancel",
            run.cancel_asked
                .as_ref()
                .map(|ask| format!("asked by {} at {}", ask.by, instant(&ask.at))),
        );
    if run.archived {
        details.line("archived", "kept for good");
    }
    details
}

/// The graph of the steps: who waits for whom, how each ended, and how long it took.
fn steps(steps: &[Step]) -> Vec<String> {
    let place = |id: &String| steps.iter().position(|step| step.id == *id);
    let after: Vec<Vec<usize>> =
        steps.iter().map(|step| step.after.iter().filter_map(place).collect()).collect();
    let rows = lanes::draw(&after);
    let width = rows.iter().map(|row| row.dot.chars().count()).max().unwrap_or(0);
    let longest = steps.iter().map(|step| step.id.len()).max().unwrap_or(0);
    let mut lines = Vec::new();
    for row in rows {
        lines.extend(row.before);
        if let Some(step) = steps.get(row.step) {
            let words = step_words(step);
            lines.push(format!("{:<width$}  {:<longest$}  {words}", row.dot, step.id));
        }
        lines.extend(row.after);
    }
    lines
}

/// `Succeeded  3.2 s`, with what is unusual.
fn step_words(step: &Step) -> String {
    let mut words = format!("{:<9}", step.status);
    if let Some(took) = step.duration_ms {
        let _infallible = write!(words, "  {}.{} s", took / 1000, took % 1000 / 100);
    }
    if let Some(code) = step.exit_code {
        let _infallible = write!(words, "  exit code {code}");
    }
    if let Some(tries) = step.tries {
        let _infallible = write!(words, "  {tries} executions");
    }
    words.trim_end().to_owned()
}

/// The message at the end of a followed run.
fn ending(run: &Run, show: Show) -> String {
    let after = match run.duration_ms {
        Some(millis @ ..60_000) => format!(" after {}.{} s", millis / 1000, millis % 1000 / 100),
        Some(millis) => format!(" after {}", clock(Duration::from_millis(millis))),
        None => String::new(),
    };
    let words = match run.status.as_str() {
        "Succeeded" => "succeeded",
        "Failed" => "failed",
        "Canceled" => "was cancelled",
        "Timeout" => "ran out of time",
        _ => "ended with an error of the infrastructure",
    };
    let mut text = format!("run {} {words}{after}", run.id);
    if run.error.is_some() {
        let _infallible = write!(text, ": {}", error_words(run));
    }
    if show == Show::State {
        // Already in the log, for those who saw it.
        for image in &run.images {
            let _infallible = write!(text, "\n  pushed {}@{}", image.image, image.digest);
        }
        for tag in &run.superseded {
            let _infallible = write!(text, "\n  {}", tag.why);
        }
    }
    text
}

fn error_words(run: &Run) -> String {
    run.error.as_ref().map_or_else(String::new, |error| match &error.step {
        Some(step) => format!("step `{step}`: {}", one_line(&error.message)),
        None => one_line(&error.message),
    })
}

/// Prints a run's log as far as it is written.
pub(crate) async fn print_log(
    client: &Client,
    run: &str,
    query: &[(&str, &str)],
    colours: bool,
) -> Result<Exit> {
    use std::io::IsTerminal as _;

    let colours =
        colours && client.environment.get("NO_COLOR").is_none() && std::io::stdout().is_terminal();
    let mut answer = client.api.open(&["runs", run, "log"], query, &[]).await?;
    let mut sanitiser = Sanitiser::new(colours);
    let mut rest = Vec::new();
    while let Some(bytes) = answer.chunk().await.map_err(|source| client.api.broken(source))? {
        rest.extend_from_slice(&bytes);
        let whole = whole_characters(&rest);
        let text = String::from_utf8_lossy(&rest[..whole]);
        write_out(&sanitiser.push(&text))?;
        rest.drain(..whole);
    }
    write_out(&sanitiser.push(&String::from_utf8_lossy(&rest)))?;
    write_out(sanitiser.finish())?;
    Ok(Exit::Ok)
}

/// The length of the bytes without an incomplete character at the end: chunks may end anywhere.
fn whole_characters(bytes: &[u8]) -> usize {
    match std::str::from_utf8(bytes) {
        Ok(_) => bytes.len(),
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        Err(_) => bytes.len(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn run(changes: serde_json::Value) -> Run {
        let mut run = json!({
            "id": "ca1", "status": "Succeeded", "run_type": "AutoBuild", "registry": "demo", "task": "hello",
            "task_revision": 2, "platform": "linux/amd64", "trigger": "Commit", "cause": "push to main at 4f2a91c",
            "event": "d/0", "source": "https://git.example/hello.git#main", "dockerfile": "Dockerfile",
            "image_names": ["hello:{{.Run.ID}}"], "created": "2026-03-09T20:30:10.123Z",
            "started": "2026-03-09T20:30:11.5Z", "finished": "2026-03-09T20:30:17.25Z", "duration_ms": 5750,
            "images": [{"image": "localhost:5000/hello:ca1", "digest": "sha256:aa"}],
            "bases": [{"image": "docker.io/library/busybox:1", "digest": "sha256:bb", "role": "runtime"}],
            "commit": "4f2a91c", "attempts": [
                {"attempt": 1, "worker": "w1", "started": "2026-03-09T20:30:11Z", "end": "lapsed"},
                {"attempt": 2, "worker": "w2", "started": "2026-03-09T20:30:11Z", "end": "finished"}
            ],
            "archived": false, "worker": "w2"
        });
        for (name, value) in changes.as_object().unwrap() {
            run[name] = value.clone();
        }
        serde_json::from_value(run).unwrap()
    }

    fn failed() -> Run {
        run(json!({
            "id": "ca2", "status": "Failed", "images": [], "bases": [], "duration_ms": 61_000,
            "error": {
                "code": "step_failed", "step": "build", "exit_code": 2,
                "message": "RUN make \u{1b}[31mended\u{1b}[0m with exit code 2"
            }
        }))
    }

    fn queued() -> Run {
        run(json!({
            "id": "ca13", "status": "Queued", "task": null, "run_type": "QuickBuild", "trigger": "Manual",
            "cause": "asked for with token admin", "started": null, "finished": null, "duration_ms": null,
            "images": [], "bases": [], "attempts": [], "commit": null, "worker": null,
            "waits_for": "one of the registry's 4 places for runs"
        }))
    }

    #[test]
    fn the_steps_of_a_run_are_drawn_with_how_they_ended() {
        let run = run(json!({"steps": [
            {"id": "build", "kind": "build", "status": "Succeeded", "duration_ms": 4120},
            {"id": "test", "kind": "cmd", "after": ["build"], "status": "Failed", "duration_ms": 1234, "tries": 3, "exit_code": 1},
            {"id": "lint", "kind": "cmd", "after": ["build"], "status": "Stopped", "duration_ms": 61_000},
            {"id": "push", "kind": "push", "after": ["test", "lint"], "status": "Skipped"},
        ]}));
        insta::assert_snapshot!(steps(&run.steps).join("\n"), @r"
        ●    build  Succeeded  4.1 s
        ├─┐
        ● │  test   Failed     1.2 s  exit code 1  3 executions
        │ ●  lint   Stopped    61.0 s
        ├─┘
        ●    push   Skipped
        ");
    }

    #[test]
    fn runs_are_listed_as_the_original_lists_them() {
        insta::assert_snapshot!(table(&[queued(), failed(), run(json!({}))]), @r"
        RUN ID  TASK   PLATFORM     STATUS     TRIGGER  STARTED               DURATION
        ca13           linux/amd64  Queued     Manual
        ca2     hello  linux/amd64  Failed     Commit   2026-03-09T20:30:11Z  00:01:01
        ca1     hello  linux/amd64  Succeeded  Commit   2026-03-09T20:30:11Z  00:00:05
        ");
    }

    #[test]
    fn a_run_is_shown_with_cause_and_end() {
        insta::assert_snapshot!(details(&run(json!({
            "superseded": [{"image": "localhost:5000/hello:latest", "by": "ca4", "why": "localhost:5000/hello:latest stays with run ca4, which built a newer change"}], "archived": true
        }))), @r"
        run         ca1
        status      Succeeded
        registry    demo
        task        hello, revision 2
        type        AutoBuild
        cause       push to main at 4f2a91c
        source      https://git.example/hello.git#main
        commit      4f2a91c
        dockerfile  Dockerfile
        platform    linux/amd64
        created     2026-03-09T20:30:10Z
        started     2026-03-09T20:30:11Z
        finished    2026-03-09T20:30:17Z
        duration    00:00:05
        pushed      localhost:5000/hello:ca1@sha256:aa
        left alone  localhost:5000/hello:latest stays with run ca4, which built a newer change
        bases       docker.io/library/busybox:1@sha256:bb (runtime)
        attempts    1 on w1, lapsed
                    2 on w2, finished
        archived    kept for good
        ");
        insta::assert_snapshot!(details(&queued()), @r"
        run         ca13
        status      Queued
        waits for   one of the registry's 4 places for runs
        registry    demo
        type        QuickBuild
        cause       asked for with token admin
        source      https://git.example/hello.git#main
        dockerfile  Dockerfile
        platform    linux/amd64
        created     2026-03-09T20:30:10Z
        ");
    }

    #[test]
    fn the_end_of_a_followed_run_is_described() {
        let ended = [run(json!({})), failed(), run(json!({"status": "Canceled", "images": []}))];
        let words: Vec<String> = ended.iter().map(|run| ending(run, Show::State)).collect();
        insta::assert_snapshot!(words.join("\n"), @r"
        run ca1 succeeded after 5.7 s
          pushed localhost:5000/hello:ca1@sha256:aa
        run ca2 failed after 00:01:01: step `build`: RUN make ended with exit code 2
        run ca1 was cancelled after 5.7 s
        ");
    }

    #[test]
    fn an_incomplete_character_waits_for_the_next_chunk() {
        assert_eq!(whole_characters("aé".as_bytes()), 3);
        assert_eq!(whole_characters(&"aé".as_bytes()[..2]), 1);
        assert_eq!(whole_characters(b"a\xffb"), 3);
    }
}
