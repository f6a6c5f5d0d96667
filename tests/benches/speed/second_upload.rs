//! How long a second `gantry build DIR` takes after one file has changed, beside the engine's own build of the folder.
//!
//! The program is the one that users have, in a process of its own; gantry's roles are in this process, with the real
//! engine. The engine alone gets the whole folder as one tar, which is all that it offers without a session. Before each of
//! the two builds that are compared, another file has changed.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use gantry_domain::run::{Run, RunStatus};
use gantry_tests::real;
use tempfile::TempDir;

use crate::Effort;
use crate::overhead::by_engine;
use crate::process;
use crate::report::{Details, Report, Row};
use crate::running::Gantry;
use crate::samples::milliseconds;

const MEBIBYTE: usize = 1 << 20;

/// One build of the folder.
struct Took {
    /// From the start of the program until its run existed, in ms.
    created: f64,
    /// Until the program ended, in ms.
    whole: f64,
    /// The bytes of the upload that were sent, as the program tells them.
    sent: Option<String>,
}

pub(crate) fn measure(effort: Effort, report: &mut Report) -> Result<()> {
    let files = effort.large_files * 64;
    let [first, second, engine] = tokio::runtime::Runtime::new()?.block_on(build(files))?;
    report.row(Row {
        what: format!("a second build of {files} MiB with one changed MiB"),
        reach: "run ≤ 4 s; in all ≤ 1.2 × the engine alone",
        measured: format!(
            "{} sent; run after {:.1} s; in all {:.2} ×",
            second.sent.as_deref().unwrap_or("everything"),
            second.created / 1000.0,
            second.whole / engine.whole
        ),
        reached: second.sent.is_some()
            && second.created <= 4000.0
            && second.whole <= 1.2 * engine.whole,
    });
    let row = |name: &str, took: &Took| {
        let sent = took.sent.clone().unwrap_or_else(|| "everything".to_owned());
        vec![name.to_owned(), format!("{:.0}", took.created), format!("{:.0}", took.whole), sent]
    };
    report.details(Details {
        title: "second-upload: in ms".to_owned(),
        columns: ["", "until the run exists", "in all", "sent"].map(str::to_owned).to_vec(),
        rows: vec![
            row("first build", &first),
            row("second build", &second),
            row("the engine alone, the second time", &engine),
        ],
    });
    Ok(())
}

async fn build(files: usize) -> Result<[Took; 3]> {
    let mut gantry = Gantry::start().await?;
    let home = process::folder()?;
    let folder = home.path().join("context");
    fill(&folder, files)?;
    let first = by_program(&mut gantry, &home, &folder).await?;
    change(&folder, files / 2)?;
    let second = by_program(&mut gantry, &home, &folder).await?;
    // Of content that it has built already, the engine would only see that it has.
    change(&folder, files / 4)?;
    let engine = alone(&folder).await?;
    gantry.stop().await;
    Ok([first, second, engine])
}

/// A folder with files of 1 MiB that do not compress.
fn fill(folder: &Path, files: usize) -> Result<()> {
    std::fs::create_dir(folder)?;
    let dockerfile = format!("FROM {}\nCOPY . /context\n", real::base_image());
    std::fs::write(folder.join("Dockerfile"), dockerfile)?;
    for number in 0..files {
        std::fs::write(folder.join(format!("{number}")), noise(number as u64))?;
    }
    Ok(())
}

fn change(folder: &Path, file: usize) -> Result<()> {
    Ok(std::fs::write(folder.join(format!("{file}")), noise(u64::MAX - file as u64))?)
}

fn noise(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut bytes = Vec::with_capacity(MEBIBYTE);
    while bytes.len() < MEBIBYTE {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.extend_from_slice(&(state >> 32).to_be_bytes()[4..]);
    }
    bytes
}

async fn by_program(gantry: &mut Gantry, home: &TempDir, folder: &Path) -> Result<Took> {
    let (began, start) = (Instant::now(), gantry.parts.store.now().await?);
    let output = tokio::process::Command::new(program()?)
        .args(["build", "--no-push", "--no-logs"])
        .arg(folder)
        .env_clear()
        .env("HOME", home.path())
        .env("GANTRY_URL", format!("http://{}", gantry.address))
        .env("GANTRY_TOKEN", gantry.token())
        .output()
        .await?;
    let whole = milliseconds(began.elapsed());
    ensure!(output.status.success(), "the build failed: {}", said(&output));
    let run = gantry.builds.recv().await.context("gantry runs")?.run;
    let run: Run = gantry.parts.ended(run).await?;
    ensure!(run.status() == RunStatus::Succeeded, "{}: {:?}", run.id, run.state);
    let created = milliseconds(run.created.since(start));
    let text = said(&output);
    let sent = text.lines().find_map(|line| Some(line.strip_prefix("sent ")?.split_once(':')?.0));
    Ok(Took { created, whole, sent: sent.map(str::to_owned) })
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

/// The program beside this one, which `make bench` builds.
fn program() -> Result<PathBuf> {
    let this = std::env::current_exe()?;
    let program = this.ancestors().nth(2).context("it is in a folder")?.join("gantry");
    ensure!(
        program.exists(),
        "{} is not built: `cargo build --profile bench -p gantry`",
        program.display()
    );
    Ok(program)
}

/// The engine's own build of the folder, packing included.
async fn alone(folder: &Path) -> Result<Took> {
    let began = Instant::now();
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_dir_all(".", folder)?;
    let mut bytes = archive.into_inner()?;
    bytes.flush()?;
    by_engine(Bytes::from(bytes)).await?;
    let whole = milliseconds(began.elapsed());
    Ok(Took { created: 0.0, whole, sent: None })
}
