//! The report of a round of the scaled mode: one line, a line for each fault, and what went wrong.

use std::fmt;
use std::time::Duration;

use gantry_domain::timestamp::Timestamp;

use super::plan::Kind;
use crate::base_images::Rebuilds;

/// A fault that was played.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Played {
    pub(crate) kind: Kind,
    pub(crate) from: Timestamp,
    pub(crate) until: Timestamp,
}

/// The report of a round.
#[derive(Debug, Default)]
pub(crate) struct Report {
    seed: u64,
    /// Deliveries that were answered with 2xx at least once.
    pub(crate) accepted: usize,
    /// The number of 2xx answers, including repetitions.
    pub(crate) answered: usize,
    /// The number of 503 answers.
    pub(crate) refused: usize,
    /// Missing deliveries, events and runs.
    pub(crate) lost: usize,
    /// Unexpected runs.
    pub(crate) doubled: usize,
    /// Attempts beyond the first of each run.
    pub(crate) extra_attempts: usize,
    /// Tags that do not point to the newest image, and rebuilds on an old one.
    pub(crate) stale: usize,
    /// Instants of timers, each of which must start one run.
    pub(crate) instants: usize,
    /// The runs that changed base images started.
    rebuilt: usize,
    /// Logs of attempts that were appended to after the attempt had lapsed.
    pub(crate) late_logs: usize,
    /// Pushes that were reported after a later one, and need no run.
    pub(crate) superseded: usize,
    /// Runs that lost their worker too often.
    pub(crate) given_up: usize,
    /// The faults, and how long after their end the delayed work was done.
    pub(crate) recovered: Vec<(Played, Duration)>,
    /// Other measurements.
    pub(crate) figures: Vec<String>,
    took: Duration,
    faults: Vec<String>,
    notes: Vec<String>,
}

impl Report {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, ..Self::default() }
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

    /// All faults, and how to reproduce them.
    pub(crate) fn faults(&self) -> String {
        format!(
            "seed {seed} (scaled), again with GANTRY_FAULT_SEED={seed}:\n  {faults}\n{notes}",
            seed = self.seed,
            faults = self.faults.join("\n  "),
            notes = self.notes.join("\n"),
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, accepted, answered, refused, lost, doubled, stale, .. } = self;
        let Self { instants, rebuilt, extra_attempts, superseded, given_up, late_logs, .. } = self;
        write!(
            f,
            "seed {seed} scaled: {accepted} accepted, {answered} answered, {refused} refused, {instants} instants, {rebuilt} rebuilt, {lost} lost, {doubled} doubled, \
             {stale} stale, {extra_attempts} extra attempts, {superseded} superseded, {given_up} given up, {late_logs} late logs, {:.1} s",
            self.took.as_secs_f64()
        )?;
        if self.has_faults() {
            f.write_str("  WRONG")?;
        }
        for (Played { kind, from, until }, recovered) in &self.recovered {
            let lasted = until.since(*from).as_secs_f64();
            let recovered = recovered.as_secs_f64();
            write!(f, "\n  {kind}: {lasted:.1} s, recovered {recovered:.1} s later")?;
        }
        self.figures.iter().try_for_each(|figure| write!(f, "\n  {figure}"))
    }
}
