//! How long a task file takes from its text to its graph, beside the YAML parser alone.

use std::time::Instant;

use anyhow::{Result, ensure};
use gantry_taskfile::task_file::{Inputs, LONGEST, RunVariables, compile};
use saphyr_parser::{Event, Parser};

use crate::Effort;
use crate::report::{Report, Row};
use crate::samples::{Samples, milliseconds};

const STEPS: usize = 200;

/// Texts that fill a file of 1 MiB, by what they cost.
const UNITS: [(&str, &str); 8] = [
    ("steps", "- cmd: x\n"),
    ("templates", "{{ .Run.ID }}"),
    ("aliases", "$Registry$$"),
    ("unknown properties", "a: &a\n"),
    ("comments", "# x\n"),
    ("open lists", "["),
    ("empty lines", "\n"),
    ("steps with lists", "- {cmd: x, env: [A=b]}\n"),
];

/// Compiles a large task file, and the largest that is accepted.
pub(crate) fn measure(effort: Effort, report: &mut Report) -> Result<()> {
    let source = task_file();
    let run = RunVariables {
        id: "ca1".to_owned(),
        registry: "registry.example".to_owned(),
        ..RunVariables::default()
    };
    let inputs = Inputs { run, ..Inputs::default() };
    let (mut own, mut parser) = (Vec::new(), Vec::new());
    for _ in 0..effort.rounds * 20 {
        let began = Instant::now();
        let compiled = compile(&source, &inputs);
        own.push(milliseconds(began.elapsed()));
        ensure!(
            compiled.is_ok_and(|compiled| compiled.task.steps.len() == STEPS),
            "it does not compile"
        );
        let began = Instant::now();
        let events = Parser::new_from_str(&source)
            .filter(|event| matches!(event, Ok((Event::Scalar(..), _))))
            .count();
        parser.push(milliseconds(began.elapsed()));
        ensure!(events > STEPS, "the parser read only {events} texts");
    }
    let (own, parser) = (Samples::of(own), Samples::of(parser));
    report.row(Row {
        what: format!("task file of {STEPS} steps, {} KiB, text to graph", source.len() >> 10),
        reach: "≤ 5 ms",
        measured: format!("{} ms; the YAML parser alone {} ms", own.show(2), parser.show(2)),
        reached: own.median() <= 5.0,
    });

    let mut slowest = ("", 0.0);
    for (name, unit) in UNITS {
        let head = "version: v1.1.0\nsteps:\n";
        let source = format!("{head}{}", unit.repeat((LONGEST - head.len()) / unit.len()));
        let samples = (0..effort.rounds).map(|_| {
            let began = Instant::now();
            let _refused = compile(&source, &inputs);
            milliseconds(began.elapsed())
        });
        let median = Samples::of(samples).median();
        if median > slowest.1 {
            slowest = (name, median);
        }
    }
    report.row(Row {
        what: format!("task file of 1 MiB, the slowest of {} kinds", UNITS.len()),
        reach: "≤ 1 s",
        measured: format!("{:.0} ms: {}", slowest.1, slowest.0),
        reached: slowest.1 <= 1000.0,
    });
    Ok(())
}

/// Steps of each kind with what they usually have, in branches of ten.
fn task_file() -> String {
    let mut source =
        "version: v1.1.0\nalias: {values: {repo: team/web}}\nenv: [CI=true]\nsteps:\n".to_owned();
    for step in 0..STEPS {
        let when = if step % 10 == 0 { "[\"-\"]".to_owned() } else { format!("[s{}]", step - 1) };
        source.push_str(&match step % 4 {
            0 => format!("- id: s{step}\n  build: -t $Registry/$repo:$ID-{step} -f Dockerfile --build-arg A={step} .\n"),
            3 => format!("- id: s{step}\n  push: [\"$Registry/$repo:$ID-{}\"]\n", step - 3),
            _ => format!(
                "- id: s{step}\n  cmd: $Registry/$repo sh -c 'echo {{{{ .Run.Branch | upper }}}} > out'\n  env: [N={step}]\n  retries: 2\n"
            ),
        });
        source.push_str(&format!("  when: {when}\n"));
    }
    source
}
