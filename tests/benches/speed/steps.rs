//! How long the steps of a task file take, beside `docker run` in a shell script.

use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use gantry_domain::id::RunId;
use gantry_domain::run::RunStatus;
use gantry_tests::real;
use serde_json::{Value, json};

use crate::Effort;
use crate::composition::REGISTRY;
use crate::report::{Report, Row, say};
use crate::running::Gantry;
use crate::samples::{Samples, milliseconds};

const STEPS: usize = 10;

/// Measures ten trivial commands both ways in turn, and a task that builds, tests and pushes.
pub(crate) fn measure(effort: Effort, report: &mut Report) -> Result<()> {
    tokio::runtime::Runtime::new()?.block_on(measure_steps(effort, report))
}

async fn measure_steps(effort: Effort, report: &mut Report) -> Result<()> {
    let gantry = Gantry::start().await?;
    let base = real::base_image();
    let commands = format!("steps:\n{}", format!("- cmd: {base} true\n").repeat(STEPS));
    let (mut own, mut docker, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    // The first round pulls the image, and starts what is started once.
    for round in 0..=effort.rounds {
        let through = run(&gantry, &json!({"task_file": {"text": commands}})).await?;
        let script = docker_runs(&base)?;
        say(format_args!("  {STEPS} commands: docker run {script:.0} ms, gantry {through:.0} ms"));
        if round > 0 {
            own.push(through);
            docker.push(script);
            ratios.push(through / script);
        }
    }
    let (own, docker, ratios) = (Samples::of(own), Samples::of(docker), Samples::of(ratios));
    report.row(Row {
        what: format!("{STEPS} trivial `cmd` steps, beside {STEPS} `docker run` in a shell script"),
        reach: "≤ 1.15 ×",
        measured: format!("{} × ({} and {} ms)", ratios.show(2), own.show(0), docker.show(0)),
        reached: ratios.median() <= 1.15,
    });

    let mut five = Vec::new();
    for round in 0..=effort.rounds {
        let took = run(&gantry, &json!({"task_file": {"text": five_steps(&base, round)}})).await?;
        say(format_args!("  five steps: {took:.0} ms"));
        if round > 0 {
            five.push(took);
        }
    }
    let five = Samples::of(five);
    report.row(Row {
        what: "five steps: write a Dockerfile, build, two tests side by side, push".to_owned(),
        reach: "≤ 7.4 s, the original's on such a machine",
        measured: format!("{} ms", five.show(0)),
        reached: five.median() <= 7400.0,
    });
    gantry.stop().await;
    Ok(())
}

fn five_steps(base: &str, round: usize) -> String {
    format!(
        r#"version: v1.1.0
steps:
- id: write
  cmd: {base} sh -c 'printf "FROM {base}\nRUN echo {round} $ID > /word\n" > Dockerfile'
- {{id: build, build: -t $Registry/bench-steps:1 .}}
- {{id: one, cmd: $Registry/bench-steps:1 cat /word, when: [build]}}
- {{id: two, cmd: $Registry/bench-steps:1 true, when: [build]}}
- {{push: [$Registry/bench-steps:1], when: [one, two]}}
"#
    )
}

/// Runs a task file to its end. Returns how long that took from the request, in milliseconds.
async fn run(gantry: &Gantry, request: &Value) -> Result<f64> {
    let began = Instant::now();
    let run = gantry.ask(&format!("/registries/{REGISTRY}/runs"), request).await?;
    let id: RunId = run["id"].as_str().context("a run has an id")?.parse()?;
    let run = gantry.parts.ended(id).await?;
    let took = milliseconds(began.elapsed());
    ensure!(run.status() == RunStatus::Succeeded, "{id}: {:?}", run.state);
    Ok(took)
}

fn docker_runs(base: &str) -> Result<f64> {
    let script = format!("set -e\n{}", format!("docker run --rm {base} true\n").repeat(STEPS));
    let began = Instant::now();
    let status = Command::new("sh")
        .args(["-c", &script])
        .env("DOCKER_HOST", real::docker_host())
        .stdout(Stdio::null())
        .status()
        .context("sh and docker are installed")?;
    ensure!(status.success(), "docker run: {status}");
    Ok(milliseconds(began.elapsed()))
}
