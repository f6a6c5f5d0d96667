//! The time from when a build step prints a line to when a live reader of the log receives it.
//!
//! Each line contains the time at which it was printed, in seconds since the machine's start: a build step can read
//! this clock without another program, and it ticks 100 times a second. The reader compares it with the same clock.

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use gantry_domain::id::RunId;
use gantry_domain::run::RunStatus;
use gantry_tests::real;

use crate::Effort;
use crate::context::Context;
use crate::report::{Report, Row, say};
use crate::running::Gantry;
use crate::samples::Samples;

/// The start of each line.
const SPOKEN: &str = "spoken ";

/// The clock.
const UPTIME: &str = "/proc/uptime";

/// Reads a log while it is written.
pub(crate) fn measure(effort: Effort, report: &mut Report) -> Result<()> {
    let late = tokio::runtime::Runtime::new()?.block_on(read_live(effort.lines))?;
    say(format_args!("  {} lines, {} ms late", effort.lines, late.show(0)));
    let (p50, p99) = (late.median(), late.quantile(0.99));
    report.row(Row {
        what: format!("log line → reader, {} lines", effort.lines),
        reach: "p50 ≤ 100 ms",
        measured: format!("p50 {p50:.0} ms, p99 {p99:.0} ms"),
        reached: p50 <= 100.0,
    });
    Ok(())
}

/// The delay of each line, in milliseconds.
async fn read_live(lines: usize) -> Result<Samples> {
    let gantry = Gantry::start().await?;
    // The text differs each time, so that the step is never cached.
    let speak = format!(
        "FROM {}\nRUN began={}; while [ ${{n:=0}} -lt {lines} ]; do read now rest <{UPTIME}; echo {SPOKEN}$now; \
         sleep 0.05; n=$((n + 1)); done\n",
        real::base_image(),
        uptime()?,
    );
    let run = gantry.build(Context::new(&speak)?.archive()?).await?;
    let late = listen(&gantry, run).await?;
    let ended = gantry.parts.ended(run).await?;
    ensure!(ended.status() == RunStatus::Succeeded, "{run}: {:?}", ended.state);
    ensure!(late.len() == lines, "of {lines} lines {} were read", late.len());
    gantry.stop().await;
    Ok(Samples::of(late))
}

async fn listen(gantry: &Gantry, run: RunId) -> Result<Vec<f64>> {
    let mut log = gantry.follow(run).await?;
    let mut late = Vec::new();
    let mut rest = String::new();
    while let Some(piece) = log.next().await? {
        let read = uptime()?;
        for spoken in spoken_in(&mut rest, &piece)? {
            late.push((read - spoken) * 1e3);
        }
    }
    Ok(late)
}

/// The times in the complete lines of what was read; an incomplete line is kept for the next call.
fn spoken_in(rest: &mut String, piece: &Bytes) -> Result<Vec<f64>> {
    rest.push_str(std::str::from_utf8(piece)?);
    let Some((whole, begun)) = rest.rsplit_once('\n') else { return Ok(Vec::new()) };
    // The step's command, which the log also shows, has no number after the prefix.
    let times = whole.split(SPOKEN).skip(1).filter_map(|text| {
        let number = text.split(|letter: char| !letter.is_ascii_digit() && letter != '.').next()?;
        number.parse().ok()
    });
    let times = times.collect();
    *rest = begun.to_owned();
    Ok(times)
}

fn uptime() -> Result<f64> {
    let text = std::fs::read_to_string(UPTIME)?;
    Ok(text.split(' ').next().context("it has a first number")?.parse()?)
}
