//! The report of a round: one line, and what went wrong.

use std::fmt;
use std::time::Duration;

use crate::base_images::Rebuilds;

/// The report of a round.
#[derive(Debug)]
pub(crate) struct Report {
    seed: u64,
    parts: &'static str,
    /// Deliveries that were answered with 2xx at least once.
    pub(crate) accepted: usize,
    /// The number of 2xx answers, including repetitions.
    pub(crate) answered: usize,
    /// Missing runs.
    pub(crate) lost: usize,
    /// Unexpected runs.
    pub(crate) doubled: usize,
    /// Rebuilds on an old image.
    stale: usize,
    /// The runs that changed base images started.
    rebuilt: usize,
    /// Attempts beyond the first of each run.
    pub(crate) extra_attempts: usize,
    /// The phases of attempts that died with their process.
    pub(crate) cut_short: CutShort,
    /// The number of kills.
    pub(crate) kills: usize,
    took: Duration,
    faults: Vec<String>,
    notes: Vec<String>,
}

/// The phases that attempts had reached when their process was killed.
#[derive(Debug, Default)]
pub(crate) struct CutShort([usize; PHASES.len()]);

/// The phases of an attempt, and the line in its log that shows them.
const PHASES: [(&str, &str); 5] = [
    ("fetching", ""),
    ("resolving", "at commit "),
    ("building", "begins"),
    ("pushing", "pushing to "),
    ("finishing", "pushed "),
];

impl CutShort {
    /// Adds an attempt with this log.
    pub(crate) fn count(&mut self, log: &str) {
        let come_to = PHASES.iter().rposition(|(_, line)| log.contains(line));
        self.0[come_to.unwrap_or_default()] += 1;
    }

    pub(crate) fn add(&mut self, others: &Self) {
        for (count, other) in self.0.iter_mut().zip(others.0) {
            *count += other;
        }
    }
}

impl fmt::Display for CutShort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let phases =
            PHASES.iter().zip(self.0).map(|((phase, _), count)| format!("{count} {phase}"));
        write!(f, "attempts that were cut short: {}", phases.collect::<Vec<_>>().join(", "))
    }
}

impl Report {
    pub(crate) fn new(seed: u64, parts: &'static str) -> Self {
        Self {
            seed,
            parts,
            accepted: 0,
            answered: 0,
            lost: 0,
            doubled: 0,
            stale: 0,
            rebuilt: 0,
            extra_attempts: 0,
            cut_short: CutShort::default(),
            kills: 0,
            took: Duration::ZERO,
            faults: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Records what was found about rebuilds.
    pub(crate) fn rebuilds(&mut self, found: Rebuilds) {
        let Rebuilds { rebuilt, lost, doubled, stale } = found;
        self.rebuilt += rebuilt;
        self.lost += lost.len();
        self.doubled += doubled.len();
        self.stale += stale.len();
        self.faults.extend(lost.into_iter().chain(doubled).chain(stale));
    }

    /// Records a violated invariant.
    pub(crate) fn fault(&mut self, what: impl Into<String>) {
        self.faults.push(what.into());
    }

    /// Records a note that helps to understand a fault.
    pub(crate) fn note(&mut self, what: String) {
        self.notes.push(what);
    }

    pub(crate) fn took(&mut self, time: Duration) {
        self.took = time;
    }

    pub(crate) fn has_faults(&self) -> bool {
        !self.faults.is_empty()
    }

    /// The faults.
    pub(crate) fn wrong(&self) -> &[String] {
        &self.faults
    }

    /// All faults, and how to reproduce them.
    pub(crate) fn faults(&self) -> String {
        format!(
            "seed {seed} ({parts}), again with GANTRY_FAULT_SEED={seed}:\n  {faults}\n{notes}",
            seed = self.seed,
            parts = self.parts,
            faults = self.faults.join("\n  "),
            notes = self.notes.join("\n"),
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, parts, accepted, answered, lost, doubled, kills, .. } = self;
        let Self { rebuilt, stale, extra_attempts, .. } = self;
        write!(
            f,
            "seed {seed:4} {parts:8} {kills} kills: {accepted:2} accepted, {answered:2} answered, {rebuilt:2} rebuilt, {lost} lost, {doubled} doubled, \
             {stale} stale, {extra_attempts:2} extra attempts, {:5} ms",
            self.took.as_millis()
        )?;
        if self.has_faults() {
            f.write_str("  WRONG")?;
        }
        Ok(())
    }
}
