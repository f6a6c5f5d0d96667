//! Runs as tables and words.

use std::fmt::Write as _;
use std::time::Duration;

use gantry_api::{CommitStatus, OutputImage, QueuePlace, Run, Step};
use gantry_ops::terminal::one_line;

use crate::client::image::chosen;
use crate::client::lanes;
use crate::client::log_view::Show;
use crate::client::table::{Details, Table, clock, instant};

pub(super) fn table(runs: &[Run]) -> Table<7> {
    let mut table = Table::new(
        ["RUN ID", "TASK", "PLATFORM", "STATUS", "TRIGGER", "STARTED", "DURATION"],
        "no runs: `gantry build` and `gantry task run` start one, a push starts those of its tasks",
    );
    for run in runs {
        let queued = run.queue.as_ref().map(|queue| format!("place {}", place(queue)));
        table.row([
            run.id.clone(),
            run.task.clone().unwrap_or_default(),
            run.platform.clone(),
            run.status.clone(),
            run.trigger.clone(),
            run.started.as_deref().map(instant).or(queued).unwrap_or_default(),
            run.duration_ms.map(|millis| clock(Duration::from_millis(millis))).unwrap_or_default(),
        ]);
    }
    table
}

/// The place in the queue.
fn place(queue: &QueuePlace) -> String {
    queue.place.map_or_else(|| "behind 1000 others".to_owned(), |place| place.to_string())
}

/// When a queued run will probably start, or why nothing tells.
fn start(queue: &QueuePlace) -> Option<String> {
    let probably = queue.estimated_start.as_deref().map(|at| format!("probably {}", instant(at)));
    probably.or_else(|| Some(format!("unknown: {}", queue.no_estimate.as_ref()?)))
}

pub(super) fn details(run: &Run) -> Details {
    let mut details = Details::default();
    let task = run.task.as_ref().map(|task| match run.task_revision {
        Some(revision) => format!("{task}, revision {revision}"),
        None => task.clone(),
    });
    details
        .line("run", &run.id)
        .line("status", &run.status)
        .maybe("waits for", run.waits_for.as_ref())
        .maybe("place", run.queue.as_ref().map(place))
        .maybe("starts", run.queue.as_ref().and_then(start))
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
        .each("pushed", run.images.iter().flat_map(pushed))
        .maybe("commit status", run.commit_status.as_ref().map(status_words))
        .each("left alone", run.superseded.iter().map(|tag| tag.why.clone()))
        .each(
            "bases",
            run.bases.iter().map(|base| {
                let chosen = chosen(base).map(|chosen| format!(", {chosen}")).unwrap_or_default();
                format!("{}@{} ({}{chosen})", base.image, base.digest, base.role)
            }),
        )
        .each("steps", steps(&run.steps))
        .each(
            "legs",
            run.legs.iter().map(|leg| {
                format!("{}: {}, {} (`gantry logs {}`)", leg.platform, leg.run, leg.status, leg.run)
            }),
        )
        .each(
            "attempts",
            run.attempts.iter().map(|one| {
                let error =
                    one.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
                format!("{} on {}, {}{error}", one.attempt, one.worker, one.end.replace('_', " "))
            }),
        )
        .maybe(
            "pull request",
            run.pull_request.as_ref().map(|of| {
                let fork = if of.is_fork { ", of a fork" } else { "" };
                format!("{} into {}, head {}{fork}", of.number, of.base, of.head)
            }),
        )
        .maybe(
            "approved",
            run.approved.as_ref().map(|given| format!("by {} at {}", given.by, instant(&given.at))),
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

/// The lines of a pushed image: an index is followed by its images.
fn pushed(image: &OutputImage) -> Vec<String> {
    let children = image.children.iter();
    let children = children.map(|child| format!("  {}: {}", child.platform, child.digest));
    std::iter::once(format!("{}@{}", image.image, image.digest)).chain(children).collect()
}

fn status_words(status: &CommitStatus) -> String {
    match &status.problem {
        None => status.context.clone(),
        Some(problem) => format!("{} is not shown: {problem}", status.context),
    }
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
pub(super) fn ending(run: &Run, show: Show) -> String {
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
            "waits_for": "one of the registry's 4 places for runs",
            "queue": {"place": 3, "estimated_start": "2026-03-09T20:40:10Z"}
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
        ca13           linux/amd64  Queued     Manual   place 3
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
        place       3
        starts      probably 2026-03-09T20:40:10Z
        registry    demo
        type        QuickBuild
        cause       asked for with token admin
        source      https://git.example/hello.git#main
        dockerfile  Dockerfile
        platform    linux/amd64
        created     2026-03-09T20:30:10Z
        ");
        let status = json!({"context": "gantry/web", "commit": "4f2a91c", "problem": "401: give another token"});
        let refused = run(json!({"commit_status": status}));
        let shown = details(&refused).to_string();
        let line = shown.lines().find(|line| line.starts_with("commit status"));
        assert_eq!(line, Some("commit status  gantry/web is not shown: 401: give another token"));
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
}
