//! How much longer a build through gantry takes than the same build by the engine alone.
//!
//! The engine alone: one `POST /build?version=2` with the context as its body, which is all that the engine's own
//! client does for such a build. Through gantry: the same context is uploaded, a quick build without push is requested,
//! and its run is watched until its end. The two alternate. Both ask the registry for the base, both send the whole
//! context, and each has its own cache.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use gantry_domain::run::RunStatus;
use gantry_ops::secret::random_hex;
use gantry_tests::real;
use http_body_util::Full;
use hyper::Request;
use hyper::header::{CONTENT_TYPE, HOST};
use tokio::net::UnixStream;

use crate::Effort;
use crate::context::{Context, TAR};
use crate::exchange::exchange;
use crate::report::{Details, Report, Row, say};
use crate::running::Gantry;
use crate::samples::{Samples, milliseconds};

/// The number of files in the context, of 16 KiB each.
const FILES: u8 = 64;

/// The name of the image that the engine builds alone.
const IMAGE: &str = "gantry-bench";

/// A measured build.
struct Build {
    name: &'static str,
    /// The duration of its uncached step in seconds; `None` if everything is cached.
    works: Option<f64>,
    reach: &'static str,
    /// Whether the target is reached, for the overhead in milliseconds and relative to the engine's own time.
    reaches: fn(f64, f64) -> bool,
}

const BUILDS: [Build; 3] = [
    Build {
        name: "cached",
        works: None,
        reach: "≤ +150 ms",
        reaches: |overhead, _| overhead <= 150.0,
    },
    Build {
        name: "1.5 s build",
        works: Some(0.9),
        reach: "≤ +10 %",
        reaches: |_, part| part <= 0.10,
    },
    Build {
        name: "30 s build",
        works: Some(29.5),
        reach: "≤ +1 %",
        reaches: |_, part| part <= 0.01,
    },
];

/// The durations of both builds, in milliseconds.
struct Pair {
    engine: f64,
    gantry: f64,
    stages: [f64; STAGES.len()],
}

/// The stages of a build through gantry.
const STAGES: [&str; 4] = [
    "until the engine is asked",
    "until its last word",
    "until gantry is done with it",
    "until the run has ended",
];

/// Measures each build both ways, in turn.
pub(crate) fn measure(effort: Effort, report: &mut Report) -> Result<()> {
    let mut rows = Vec::new();
    for (build, count) in BUILDS.iter().zip(effort.builds).filter(|(_, count)| *count > 0) {
        let pairs = tokio::runtime::Runtime::new()?.block_on(build_often(build, count))?;
        let overhead = Samples::of(pairs.iter().map(|pair| pair.gantry - pair.engine));
        let part = Samples::of(pairs.iter().map(|pair| pair.gantry / pair.engine - 1.0));
        let percent =
            Samples::of(pairs.iter().map(|pair| (pair.gantry / pair.engine - 1.0) * 100.0));
        report.row(Row {
            what: format!("overhead over the engine's own build, {}, {count} pairs", build.name),
            reach: build.reach,
            measured: format!("{} ms, {} %", overhead.show(0), percent.show(1)),
            reached: (build.reaches)(overhead.median(), part.median()),
        });
        let all = |of: fn(&Pair) -> f64| Samples::of(pairs.iter().map(of)).show(0);
        let mut row = vec![build.name.to_owned(), all(|pair| pair.engine), all(|pair| pair.gantry)];
        row.extend((0..STAGES.len()).map(|stage| {
            let median = Samples::of(pairs.iter().map(|pair| pair.stages[stage])).median();
            format!("{median:.0}")
        }));
        rows.push(row);
    }
    let columns = ["", "the engine alone", "through gantry"].into_iter().chain(STAGES);
    report.details(Details {
        title: "overhead: in ms, and the medians of what gantry's time consists of".to_owned(),
        columns: columns.map(str::to_owned).collect(),
        rows,
    });
    Ok(())
}

async fn build_often(build: &Build, count: usize) -> Result<Vec<Pair>> {
    let mut gantry = Gantry::start().await?;
    let mut pairs = Vec::new();
    // The first build fills the caches.
    for number in 0..=count {
        // The order alternates, because a build may disturb the one after it.
        let (engine, (through, stages)) = if number % 2 == 0 {
            let engine = by_engine(context(build)?).await?;
            (engine, by_gantry(&mut gantry, context(build)?).await?)
        } else {
            let gantry = by_gantry(&mut gantry, context(build)?).await?;
            (by_engine(context(build)?).await?, gantry)
        };
        let pair = Pair { engine, gantry: through, stages };
        say(format_args!(
            "  {}: engine {:.0} ms, gantry {:.0} ms",
            build.name, pair.engine, pair.gantry
        ));
        if number > 0 {
            pairs.push(pair);
        }
    }
    remove_image().await?;
    gantry.stop().await;
    Ok(pairs)
}

/// A context of about 1 MiB. A step that is to run contains a unique stamp, so that it is never cached.
fn context(build: &Build) -> Result<Bytes> {
    let base = real::base_image();
    let works = build.works.map_or_else(String::new, |seconds| {
        format!("COPY stamp /stamp\nRUN cat /stamp && sleep {seconds}\n")
    });
    let dockerfile = format!("FROM {base}\nCOPY files /files\nRUN cat /files/* | md5sum\n{works}");
    let mut context = Context::new(&dockerfile)?;
    if build.works.is_some() {
        context = context.with("stamp", random_hex::<16>()?.as_bytes())?;
    }
    for number in 0..FILES {
        context = context.with(&format!("files/{number}"), &[number; 16 * 1024])?;
    }
    context.archive()
}

/// Has the engine build a context by itself. Returns the duration in ms.
pub(crate) async fn by_engine(context: Bytes) -> Result<f64> {
    let began = Instant::now();
    let request = Request::post(format!("/build?version=2&t={IMAGE}"))
        .header(HOST, "engine")
        .header(CONTENT_TYPE, TAR)
        .body(Full::new(context))?;
    let said = exchange(engine().await?, request).await?;
    let took = milliseconds(began.elapsed());
    // HTTP reports success even if the build fails.
    let said = String::from_utf8_lossy(&said);
    ensure!(!said.contains("\"errorDetail\""), "the engine's own build failed: {said}");
    Ok(took)
}

async fn by_gantry(gantry: &mut Gantry, context: Bytes) -> Result<(f64, [f64; STAGES.len()])> {
    let began = Instant::now();
    let id = gantry.build(context).await?;
    let run = gantry.parts.ended(id).await?;
    let ended = Instant::now();
    ensure!(run.status() == RunStatus::Succeeded, "{id}: {:?}", run.state);
    let seen = gantry.builds.recv().await.context("gantry runs")?;
    let stages =
        [seen.asked - began, seen.said - seen.asked, seen.done - seen.said, ended - seen.done];
    // Wait for the removal of its image and context, which must not disturb the next build.
    tokio::time::sleep(Duration::from_millis(500)).await;
    Ok((milliseconds(ended - began), stages.map(milliseconds)))
}

async fn remove_image() -> Result<()> {
    let request = Request::delete(format!("/images/{IMAGE}"))
        .header(HOST, "engine")
        .body(Full::<Bytes>::default())?;
    exchange(engine().await?, request).await.map(drop)
}

async fn engine() -> Result<UnixStream> {
    let address = real::docker_host();
    let path = PathBuf::from(address.trim_start_matches("unix://"));
    UnixStream::connect(&path).await.with_context(|| format!("no engine at {address}"))
}
