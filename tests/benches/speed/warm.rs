//! The time from an accepted push until the engine receives the build, beside a bare `git fetch` of the same commit.
//!
//! A task builds and pushes. Commits are pushed and reported by signed webhooks, each after the previous run has ended,
//! and after git alone has fetched the commit into a warm mirror. git's time in a run is that between "fetching" and "at
//! commit" in its log.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use gantry_domain::run::{Run, RunStatus};
use gantry_seams::logs::{LogId, LogPart, LogReader};
use gantry_tests::git_server::{GitServer, TestRepository};
use gantry_tests::real;
use serde_json::json;

use crate::Effort;
use crate::accept;
use crate::composition::{Parts, REGISTRY};
use crate::fetch::{git, text};
use crate::github;
use crate::load::{self, Webhook};
use crate::process;
use crate::report::{Details, Report, Row};
use crate::running::Gantry;
use crate::samples::{Samples, milliseconds};

/// The number of warm-up pushes.
const FIRST: usize = 3;

const NAME: &str = "warm";

/// The durations for one push, in milliseconds.
struct Passage {
    /// From the response to the webhook until gantry's request to the engine.
    asked: f64,
    /// Until the engine's first event.
    first_event: f64,
    /// The part of git.
    git: f64,
    /// A bare `git fetch` of the commit.
    bare: f64,
}

/// Measures pushes one after the other.
pub(crate) fn measure(effort: Effort, report: &mut Report) -> Result<()> {
    let passages = tokio::runtime::Runtime::new()?.block_on(push_often(effort.pushes))?;
    let all = |of: fn(&Passage) -> f64| Samples::of(passages.iter().map(of));
    let git = all(|passage| passage.git);
    let without_git = all(|passage| passage.asked - passage.git);
    let (asked, bare) = (all(|passage| passage.asked), all(|passage| passage.bare));
    let more = asked.median() - bare.median();
    report.row(Row {
        what: format!("accepted → engine has the request, git included, {} runs", passages.len()),
        reach: "p50 ≤ a bare `git fetch` + 25 ms",
        measured: format!(
            "{more:+.0} ms (p50 {:.0} ms beside {:.0} ms)",
            asked.median(),
            bare.median()
        ),
        reached: more <= 25.0,
    });
    let (p50, p99) = (without_git.median(), without_git.quantile(0.99));
    report.row(Row {
        what: format!("accepted → engine has the request, warm, {} runs", passages.len()),
        reach: "p50 ≤ 50 ms + git time, p99 ≤ 250 ms + git time",
        measured: format!(
            "p50 {p50:.0} ms, p99 {p99:.0} ms, beside git's p50 {:.0} ms",
            git.median()
        ),
        reached: p50 <= 50.0 && p99 <= 250.0,
    });
    let row = |what: &str, samples: Samples| {
        let quantiles = [0.5, 0.9, 0.99].map(|part| format!("{:.0}", samples.quantile(part)));
        std::iter::once(what.to_owned()).chain(quantiles).collect()
    };
    report.details(Details {
        title: "warm: from the answer to the webhook, in ms".to_owned(),
        columns: ["until", "p50", "p90", "p99"].map(str::to_owned).into(),
        rows: vec![
            row("gantry asks the engine", asked),
            row("the same without git", without_git),
            row(
                "the engine's first word of the build, without git",
                all(|passage| passage.first_event - passage.git),
            ),
            row("the part of git", git),
            row("a bare `git fetch` of the commit", bare),
        ],
    });
    Ok(())
}

async fn push_often(pushes: usize) -> Result<Vec<Passage>> {
    let mut gantry = Gantry::start().await?;
    let host = GitServer::start().await?;
    let repository = host.repository(NAME)?;
    let dockerfile = format!("FROM {}\nRUN echo built > /word\n", real::base_image());
    let mut head = repository.commit("main", &[("Dockerfile", &dockerfile)])?;
    let task = json!({
        "name": NAME,
        "context": format!("{}#main", host.url(NAME)),
        "images": [format!("{NAME}:{{{{.Run.ID}}}}")],
        "source_trigger": {},
    });
    gantry.ask(&format!("/registries/{REGISTRY}/tasks"), &task).await?;

    let folder = process::folder()?;
    let mirror = Mirror { folder: folder.path(), url: host.url(NAME) };
    mirror.make()?;
    let mut passages = Vec::new();
    for number in 0..FIRST + pushes {
        let passage = push_once(&mut gantry, &mirror, &repository, &mut head, number).await?;
        if number >= FIRST {
            passages.push(passage);
        }
    }
    gantry.stop().await;
    Ok(passages)
}

async fn push_once(
    gantry: &mut Gantry,
    mirror: &Mirror<'_>,
    repository: &TestRepository,
    head: &mut String,
    number: usize,
) -> Result<Passage> {
    let before = std::mem::take(head);
    // This call blocks on git, and the git host runs in the same runtime.
    *head = tokio::task::block_in_place(|| {
        repository.commit("main", &[("number", &number.to_string())])
    })?;
    let bare = tokio::task::block_in_place(|| mirror.fetch(head))?;
    let body = github::push(&mirror.url, &before, head)?;
    let hook = Webhook::push(&accept::path(), &github::signature(&body)?, &body);
    let status = load::send_one(gantry.address, &hook).await?;
    let accepted = Instant::now();
    ensure!(status == 202, "a push was answered {status}");

    let patience = Duration::from_secs(60);
    let build = tokio::time::timeout(patience, gantry.builds.recv()).await;
    let build = build.context("no build began")?.context("gantry runs")?;
    let run = gantry.parts.ended(build.run).await?;
    ensure!(run.status() == RunStatus::Succeeded, "{}: {:?}", run.id, run.state);
    let first_event = build.first_event.context("the engine says what it does")?;
    Ok(Passage {
        asked: milliseconds(build.asked - accepted),
        first_event: milliseconds(first_event - accepted),
        git: git_time(&gantry.parts, &run).await?,
        bare,
    })
}

/// A repository into which git alone fetches each commit.
struct Mirror<'a> {
    folder: &'a Path,
    url: String,
}

impl Mirror<'_> {
    fn make(&self) -> Result<()> {
        git(&["init", "-q", "--bare", text(self.folder)?])
    }

    /// Returns how long it takes, in milliseconds.
    fn fetch(&self, commit: &str) -> Result<f64> {
        let kept = format!("+{commit}:refs/heads/{commit}");
        let began = Instant::now();
        let folder = text(self.folder)?;
        git(&["-C", folder, "fetch", "-q", "--no-tags", "--depth=1", &self.url, &kept])?;
        Ok(milliseconds(began.elapsed()))
    }
}

/// The time from "fetching" to "at commit", in milliseconds.
async fn git_time(parts: &Parts, run: &Run) -> Result<f64> {
    let mut reader = LogReader::at(LogId { run: run.id, attempt: 1 }, 0);
    let mut frames = Vec::new();
    while let LogPart::Frames(more) =
        reader.next(parts.store.as_ref(), parts.blobs.as_ref()).await?
    {
        frames.extend(more);
    }
    let said_at = |word: &str| {
        let frame = frames.iter().find(|frame| frame.text.starts_with(word));
        frame.map(|frame| frame.at.as_millis()).with_context(|| format!("the log has `{word}`"))
    };
    let took = said_at("at commit")? - said_at("fetching")?;
    Ok(f64::from(i32::try_from(took)?))
}
