//! The second fetch of a large repository, beside git alone.
//!
//! Both have fetched the repository before. Then one commit changes a small file, and both fetch it and write its files
//! into a new folder: gantry as a run does, git by fetching into a bare clone and checking out.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use gantry_domain::source::GitSource;
use gantry_remote::git::{Git, GitLimits};
use gantry_remote::guard::OutboundPolicy;
use gantry_remote::http::OutboundClient;
use gantry_tests::git_server::{GitServer, TestRepository};
use gantry_worker::source::{Sources, UnpackLimits};

use crate::Effort;
use crate::process;
use crate::report::{Report, Row};
use crate::samples::{Samples, milliseconds};

const NAME: &str = "large";
const MIB: usize = 1 << 20;
/// The files of a commit, of 1 MiB each. Every commit of the history replaces all of them.
const FILES: usize = 40;
/// Fetches that are measured in a round.
const FETCHES: usize = 5;

/// Measures fetches of one small commit after the other.
pub(crate) fn measure(effort: Effort, report: &mut Report) -> Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    let (gantrys, gits) = runtime.block_on(fetch_often(effort))?;
    let ratio = gantrys.median() / gits.median();
    report.row(Row {
        what: format!("the second fetch of a repository with {} MiB of history", effort.history),
        reach: "≤ 1.3 × `git fetch` into a warm mirror, and a checkout",
        measured: format!("{ratio:.2} × ({} ms beside {} ms)", gantrys.show(0), gits.show(0)),
        reached: ratio <= 1.3,
    });
    Ok(())
}

async fn fetch_often(effort: Effort) -> Result<(Samples, Samples)> {
    let folder = process::folder()?;
    let host = GitServer::start().await?;
    let repository = host.repository(NAME)?;
    // Git blocks, and the git host runs in the same runtime.
    tokio::task::block_in_place(|| write_history(&repository, effort.history))?;
    let sources = sources(&folder.path().join("gantry"))?;
    let clone = folder.path().join("clone");
    let url = host.url(NAME);
    tokio::task::block_in_place(|| git(&["clone", "-q", "--bare", &url, text(&clone)?]))?;
    by_gantry(&sources, &url, &repository.git(&["rev-parse", "HEAD"])?).await?;

    let (mut gantrys, mut gits) = (Vec::new(), Vec::new());
    for number in 0..effort.rounds * FETCHES {
        let commit = tokio::task::block_in_place(|| {
            repository.commit("main", &[("number", &number.to_string())])
        })?;
        let checkout = folder.path().join(format!("checkout-{number}"));
        std::fs::create_dir(&checkout)?;
        // Who is first warms the host's files for the other.
        for is_gantrys in [number % 2 == 0, number % 2 != 0] {
            if is_gantrys {
                gantrys.push(by_gantry(&sources, &url, &commit).await?);
            } else {
                gits.push(tokio::task::block_in_place(|| by_git(&clone, &url, &checkout))?);
            }
        }
        std::fs::remove_dir_all(&checkout)?;
    }
    Ok((Samples::of(gantrys), Samples::of(gits)))
}

/// Commits random files until the history has this many MiB.
fn write_history(repository: &TestRepository, mebibytes: usize) -> Result<()> {
    for _ in 0..mebibytes.div_ceil(FILES) {
        for number in 0..FILES {
            let mut content = vec![0; MIB];
            rand::fill(content.as_mut_slice());
            std::fs::write(repository.work().join(format!("file-{number}")), content)?;
        }
        repository.commit("main", &[])?;
    }
    git(&["-C", text(repository.bare())?, "repack", "-adq"])
}

fn sources(folder: &Path) -> Result<Sources> {
    let http = OutboundClient::new(OutboundPolicy::parse(["127.0.0.1"])?)?;
    let most = 1 << 30;
    let limits = GitLimits { fetched_bytes: most, checkout_bytes: most, checkout_files: 10_000 };
    let git = Git::new(Arc::clone(http.policy()), limits);
    let limits = UnpackLimits { archive_bytes: most, unpacked_bytes: most, entries: 10_000 };
    Ok(Sources::open(folder.to_owned(), git, http, limits, most)?)
}

async fn by_gantry(sources: &Sources, url: &str, commit: &str) -> Result<f64> {
    let source: GitSource = format!("{url}#{commit}").parse()?;
    let began = Instant::now();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(300);
    let checkout = sources.from_git(&source, None, deadline).await?;
    let took = milliseconds(began.elapsed());
    ensure!(checkout.root().join("file-0").exists(), "its files are there");
    Ok(took)
}

fn by_git(clone: &Path, url: &str, checkout: &Path) -> Result<f64> {
    let (clone, checkout) = (text(clone)?, text(checkout)?);
    let began = Instant::now();
    git(&["-C", clone, "fetch", "-q", "--no-tags", url, "+main:main"])?;
    git(&["--git-dir", clone, "--work-tree", checkout, "checkout", "-qf", "main", "--", "."])?;
    let took = milliseconds(began.elapsed());
    ensure!(Path::new(checkout).join("file-0").exists(), "its files are there");
    Ok(took)
}

/// Runs git to its end.
pub(crate) fn git(arguments: &[&str]) -> Result<()> {
    let status = Command::new("git")
        .args(["-c", "maintenance.auto=false", "-c", "gc.auto=0"])
        .args(arguments)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .stdin(Stdio::null())
        .status()
        .context("git must be installed")?;
    ensure!(status.success(), "git {arguments:?} failed");
    Ok(())
}

/// A path as an argument.
pub(crate) fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path is text")
}
