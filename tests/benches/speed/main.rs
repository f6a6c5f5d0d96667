//! Measures gantry, the limits and the peer that it is compared with, and reports which targets are reached.
//!
//! In: the real servers that `make bench` starts. Out, on standard output: the tables of README.md, as Markdown.
//! Arguments select parts: `cargo bench -p gantry-tests -- accept forged`. `quick` runs one round of each part, as a
//! check; `rounds=3` sets the number of rounds.

mod accept;
mod backend;
mod bare;
mod base_images;
mod blocking;
mod burst;
mod composition;
mod context;
mod cost;
mod decide;
mod exchange;
mod fetch;
mod filled;
mod forged;
mod github;
mod image_server;
mod large;
mod leased;
mod lines;
mod load;
mod machine;
mod memory;
mod overhead;
mod process;
mod pusher;
mod reads;
mod report;
mod role;
mod running;
mod samples;
mod scale;
mod second_upload;
mod servers;
mod start;
mod steps;
mod stored;
mod take;
mod task_files;
mod timers;
mod warm;

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::backend::Backend;
use crate::filled::Size;
use crate::report::Report;
use crate::role::Role;

/// How often each thing is measured. Compared subjects are measured in turn, so that a disturbance affects all of them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    /// Rounds of load.
    pub(crate) rounds: usize,
    /// Seconds of load in a round.
    pub(crate) seconds: f64,
    /// Runs measured from push to engine.
    pub(crate) pushes: usize,
    /// Pairs of cached builds, 1.5 s builds and 30 s builds.
    pub(crate) builds: [usize; 3],
    /// MiB of history of a large repository.
    pub(crate) history: usize,
    /// Lines of a live log.
    pub(crate) lines: usize,
    /// Files of 64 MiB in a large context.
    pub(crate) large_files: usize,
    /// Runs stored before a start.
    pub(crate) stored_runs: usize,
    /// Ready runs in the store, and how many of them each group of takers takes.
    pub(crate) takes: [usize; 2],
    /// Ready runs that worker processes build.
    pub(crate) built_runs: usize,
    /// Pushes measured until their runs are leased.
    pub(crate) leases: usize,
    /// Runs in the Redis whose memory is measured.
    pub(crate) runs_in_memory: usize,
    /// Hooks and runs whose cost is measured.
    pub(crate) costs: [usize; 2],
    /// The sizes of a small and a full installation.
    pub(crate) scale: [Size; 2],
    /// Concurrent hooks.
    pub(crate) burst: usize,
    /// Stored timers, and how many of them are due at once.
    pub(crate) timers: (usize, [usize; 2]),
    /// Tasks that one base image reaches.
    pub(crate) users: usize,
    /// Watched images.
    pub(crate) watched: usize,
    /// How long it is measured what these cost.
    pub(crate) rest: Duration,
}

const FULL: Effort = Effort {
    rounds: 5,
    seconds: 2.0,
    pushes: 100,
    builds: [30, 15, 2],
    history: 200,
    lines: 200,
    large_files: 16,
    stored_runs: 100_000,
    takes: [5_000, 1_000],
    built_runs: 512,
    leases: 200,
    runs_in_memory: 10_000,
    costs: [10_000, 512],
    scale: [
        Size { runs: 1_000, tasks: 100, repositories: 10 },
        Size { runs: 100_000, tasks: 10_000, repositories: 1_000 },
    ],
    burst: 10_000,
    timers: (100_000, [1_000, 10_000]),
    users: 5_000,
    watched: 10_000,
    rest: Duration::from_secs(60),
};

const QUICK: Effort = Effort {
    rounds: 1,
    seconds: 0.5,
    pushes: 5,
    builds: [3, 1, 0],
    history: 40,
    lines: 20,
    large_files: 2,
    stored_runs: 1_000,
    takes: [320, 64],
    built_runs: 64,
    leases: 10,
    runs_in_memory: 640,
    costs: [1_000, 128],
    scale: [
        Size { runs: 100, tasks: 100, repositories: 10 },
        Size { runs: 1_000, tasks: 1_000, repositories: 100 },
    ],
    burst: 1_000,
    timers: (2_000, [100, 1_000]),
    users: 200,
    watched: 500,
    rest: Duration::from_secs(10),
};

/// A part of the benchmarks.
struct Part {
    /// The argument that selects it.
    name: &'static str,
    measure: fn(Effort, &mut Report) -> Result<()>,
    /// The number of rounds that suffices. A ratio of two rates needs all rounds.
    most_rounds: usize,
}

const ALL: usize = usize::MAX;
const FEW: usize = 3;

const fn part(
    name: &'static str,
    measure: fn(Effort, &mut Report) -> Result<()>,
    most_rounds: usize,
) -> Part {
    Part { name, measure, most_rounds }
}

const PARTS: [Part; 24] = [
    part("accept", accept::measure, ALL),
    part("accept-scaled", accept::measure_scaled, ALL),
    part("accept-apart", accept::measure_apart, ALL),
    part("forged", forged::measure, ALL),
    part("warm", warm::measure, ALL),
    part("fetch", fetch::measure, FEW),
    part("overhead", overhead::measure, ALL),
    part("large", large::measure, ALL),
    part("second-upload", second_upload::measure, ALL),
    part("lines", lines::measure, ALL),
    part("start", start::measure, FEW),
    part("scale", scale::measure, ALL),
    part("decide", decide::measure, FEW),
    part("timers", timers::measure, FEW),
    part("base-images", base_images::measure, 1),
    part("watched-images", base_images::measure_rest, 1),
    part("burst", burst::measure, FEW),
    part("take", take::measure, FEW),
    part("leased", leased::measure, FEW),
    part("memory", memory::measure, FEW),
    part("cost", cost::measure, FEW),
    part("blocking", blocking::measure, FEW),
    part("task-files", task_files::measure, ALL),
    part("steps", steps::measure, ALL),
];

fn main() -> Result<()> {
    // cargo passes `--bench` to every benchmark.
    let mut words: Vec<String> =
        std::env::args().skip(1).filter(|word| word != "--bench").collect();
    if let [serve, role, folder, backend @ ..] = words.as_slice()
        && serve == role::SERVE
    {
        return role.parse::<Role>()?.serve(Path::new(folder), &Backend::of_words(backend)?);
    }
    let mut effort = FULL;
    if let Some(place) = words.iter().position(|word| word == "quick") {
        words.remove(place);
        effort = QUICK;
    }
    if let Some(place) = words.iter().position(|word| word.starts_with("rounds=")) {
        effort.rounds = words.remove(place)["rounds=".len()..].parse()?;
    }
    let known: Vec<&str> = PARTS.iter().map(|part| part.name).collect();
    if let Some(unknown) = words.iter().find(|word| !known.contains(&word.as_str())) {
        bail!("there is no part `{unknown}`: choose from {}, quick and rounds=N", known.join(", "));
    }

    let mut report = Report::begin()?;
    let chosen = |part: &&Part| words.is_empty() || words.iter().any(|word| word == part.name);
    for Part { name, measure, most_rounds } in PARTS.iter().filter(chosen) {
        report::say(format_args!("{name}:"));
        let effort = Effort { rounds: effort.rounds.min(*most_rounds), ..effort };
        // An error must not discard the results of the other parts.
        if let Err(error) = measure(effort, &mut report) {
            report.not_measured(name, &error);
        }
    }
    report.print()
}
