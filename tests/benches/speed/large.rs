//! How much memory a large context takes on its way to the engine.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bytes::Bytes;
use gantry_domain::run::RunStatus;
use gantry_tests::real;

use crate::Effort;
use crate::context::Context;
use crate::process;
use crate::report::{Report, Row};
use crate::running::Gantry;

/// A piece of 1 MiB, and pieces per file.
const PIECE: usize = 1 << 20;
const PIECES_A_FILE: usize = 64;

/// The limit for the growth of memory, in MiB.
const MOST: f64 = 64.0;

/// Uploads a context and builds it. gantry and the uploading client share this process, so all of their memory is
/// measured.
pub(crate) fn measure(effort: Effort, report: &mut Report) -> Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    let (grown, took) = runtime.block_on(build(effort.large_files))?;
    report.row(Row {
        what: format!(
            "a context of {} MiB, uploaded and built",
            effort.large_files * PIECES_A_FILE
        ),
        reach: "grows ≤ 64 MiB",
        measured: format!("{grown:+.0} MiB at most, in {:.0} s", took.as_secs_f64()),
        reached: grown <= MOST,
    });
    Ok(())
}

async fn build(files: usize) -> Result<(f64, Duration)> {
    let gantry = Gantry::start().await?;
    let dockerfile = format!("FROM {}\nCOPY . /context\n", real::base_image());
    // A first build, so that memory that every build takes is not counted.
    let first = gantry.build(Context::new(&dockerfile)?.archive()?).await?;
    gantry.parts.ended(first).await?;

    process::forget_peak(std::process::id())?;
    let before = process::memory(std::process::id())?;
    let began = Instant::now();
    let piece = Bytes::from(vec![b'x'; PIECE]);
    let context = Context::new(&dockerfile)?.with_large_files(files, piece, PIECES_A_FILE)?;
    let run = gantry.parts.ended(gantry.build_stream(context).await?).await?;
    let took = began.elapsed();
    let after = process::memory(std::process::id())?;
    ensure!(run.status() == RunStatus::Succeeded, "{}: {:?}", run.id, run.state);
    gantry.stop().await;
    Ok((after.peak - before.resident, took))
}
