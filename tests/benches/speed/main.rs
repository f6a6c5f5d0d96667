//! Measures gantry beside the limits and the peer that it is held against, and says what is reached.
//!
//! In: the real parts that `make bench` starts. Out, on standard output: the tables of README.md, as Markdown. Words
//! choose parts of it: `cargo bench -p gantry-tests -- accept forged`. `quick` is a round of each, to see that it works;
//! `rounds=3` says how many.

mod accept;
mod bare;
mod blocking;
mod composition;
mod context;
mod cost;
mod exchange;
mod forged;
mod github;
mod ground;
mod large;
mod leased;
mod lines;
mod load;
mod machine;
mod memory;
mod overhead;
mod process;
mod pusher;
mod report;
mod role;
mod running;
mod samples;
mod servers;
mod start;
mod stored;
mod take;
mod warm;

use std::path::Path;

use anyhow::{Context as _, Result, bail};

use crate::ground::Ground;
use crate::report::Report;
use crate::role::Role;

/// How often each thing is measured. Those that are compared take turns, so that what disturbs one disturbs all.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    /// Rounds of load.
    pub(crate) rounds: usize,
    /// Seconds of load in a round.
    pub(crate) seconds: f64,
    /// Runs from a push to the engine.
    pub(crate) pushes: usize,
    /// Pairs of cached builds, of builds of 1.5 s and of builds of 30 s.
    pub(crate) builds: [usize; 3],
    /// Lines of a log that is read live.
    pub(crate) lines: usize,
    /// Files of 64 MiB in a large context.
    pub(crate) large_files: usize,
    /// Runs stored before a start.
    pub(crate) stored_runs: usize,
    /// Ready runs that takers meet, and how many of them each number of takers takes.
    pub(crate) takes: [usize; 2],
    /// Ready runs that worker processes build.
    pub(crate) built_runs: usize,
    /// Pushes whose runs are waited for until they are leased.
    pub(crate) leases: usize,
    /// Runs in a Redis whose memory is looked at.
    pub(crate) runs_in_memory: usize,
    /// Hooks and runs whose cost is measured.
    pub(crate) costs: [usize; 2],
}

const FULL: Effort = Effort {
    rounds: 5,
    seconds: 2.0,
    pushes: 100,
    builds: [30, 15, 3],
    lines: 200,
    large_files: 16,
    stored_runs: 100_000,
    takes: [5_000, 1_000],
    built_runs: 512,
    leases: 200,
    runs_in_memory: 10_000,
    costs: [10_000, 512],
};

const QUICK: Effort = Effort {
    rounds: 1,
    seconds: 0.5,
    pushes: 5,
    builds: [3, 1, 0],
    lines: 20,
    large_files: 2,
    stored_runs: 1_000,
    takes: [320, 64],
    built_runs: 64,
    leases: 10,
    runs_in_memory: 640,
    costs: [1_000, 128],
};

/// A part of the whole, chosen by its name.
type Part = (&'static str, fn(Effort, &mut Report) -> Result<()>);

const PARTS: [Part; 14] = [
    ("accept", accept::measure),
    ("accept-scaled", accept::measure_scaled),
    ("accept-apart", accept::measure_apart),
    ("forged", forged::measure),
    ("warm", warm::measure),
    ("overhead", overhead::measure),
    ("large", large::measure),
    ("lines", lines::measure),
    ("start", start::measure),
    ("take", take::measure),
    ("leased", leased::measure),
    ("memory", memory::measure),
    ("cost", cost::measure),
    ("blocking", blocking::measure),
];

fn main() -> Result<()> {
    // cargo says `--bench` to every bench.
    let mut words: Vec<String> =
        std::env::args().skip(1).filter(|word| word != "--bench").collect();
    if let [serve, role, folder, ground @ ..] = words.as_slice()
        && serve == role::SERVE
    {
        return role.parse::<Role>()?.serve(Path::new(folder), &Ground::of_words(ground)?);
    }
    let mut effort = FULL;
    if let Some(place) = words.iter().position(|word| word == "quick") {
        words.remove(place);
        effort = QUICK;
    }
    if let Some(place) = words.iter().position(|word| word.starts_with("rounds=")) {
        effort.rounds = words.remove(place)["rounds=".len()..].parse()?;
    }
    let known: Vec<&str> = PARTS.iter().map(|(name, _)| *name).collect();
    if let Some(unknown) = words.iter().find(|word| !known.contains(&word.as_str())) {
        bail!("there is no part `{unknown}`: choose from {}, quick and rounds=N", known.join(", "));
    }

    let mut report = Report::begin()?;
    for (name, measure) in PARTS {
        if words.is_empty() || words.iter().any(|word| word == name) {
            report::say(format_args!("{name}:"));
            measure(effort, &mut report).with_context(|| format!("`{name}` was not measured"))?;
        }
    }
    report.print()
}
