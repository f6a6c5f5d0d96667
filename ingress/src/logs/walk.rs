//! Walks through the log of a run: the attempts one after the other, each from its first byte to its last.

use gantry_domain::id::RunId;
use gantry_domain::log::LogFrame;
use gantry_domain::run::Run;
use gantry_seams::blobs::Blobs;
use gantry_seams::logs::{LogError, LogId, LogPart, LogReader};
use gantry_seams::runs;
use gantry_seams::store::{Store, StoreError};

/// A place in a run's log: after so many bytes of an attempt. Ordered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// From 1; 0 before the first.
    pub(crate) attempt: u32,
    pub(crate) offset: u64,
}

/// What comes next in a log.
#[derive(Debug)]
pub(crate) enum Step {
    /// What follows is of this attempt.
    Attempt(u32),
    /// Output. The first frame may begin before the place that was asked for.
    Frames(Vec<LogFrame>),
    /// What is between the place before and this offset is lost.
    Hole { from: u64, until: u64 },
    /// There is nothing more yet; or, if the run has ended, for good.
    CaughtUp(Box<Run>),
}

/// A log could not be read on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WalkError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("run {0} is not kept any more")]
    Gone(RunId),
}

impl From<StoreError> for WalkError {
    fn from(error: StoreError) -> Self {
        Self::Log(error.into())
    }
}

/// Someone on the way through a run's log.
#[derive(Debug)]
pub(crate) struct LogWalk {
    run: RunId,
    attempt: u32,
    reader: Option<LogReader>,
    /// The attempt was over before the reader last found the end, so that end is final.
    is_end_final: bool,
}

impl LogWalk {
    /// Begins at a place; the beginning of everything is the default one.
    pub(crate) fn from(run: RunId, place: Place) -> Self {
        let reader = (place.attempt > 0).then(|| {
            let attempt = place.attempt;
            LogReader::at(LogId { run, attempt }, place.offset)
        });
        Self { run, attempt: place.attempt, reader, is_end_final: false }
    }

    /// Where it is: everything before it was read.
    pub(crate) fn place(&self) -> Place {
        Place { attempt: self.attempt, offset: self.reader.as_ref().map_or(0, LogReader::offset) }
    }

    /// Takes a step.
    pub(crate) async fn next(
        &mut self,
        store: &dyn Store,
        blobs: &dyn Blobs,
    ) -> Result<Step, WalkError> {
        loop {
            if let Some(step) = self.read(store, blobs).await? {
                return Ok(step);
            }
            let run = runs::find(store, self.run).await?.ok_or(WalkError::Gone(self.run))?;
            if !is_over(&run, self.attempt) {
                return Ok(Step::CaughtUp(Box::new(run)));
            }
            if !self.is_end_final {
                // It may have grown between the reading and the end of the attempt: what is read now is all there is.
                self.is_end_final = true;
                continue;
            }
            if self.attempt < last_attempt(&run) {
                self.begin(self.attempt + 1);
                return Ok(Step::Attempt(self.attempt));
            }
            return Ok(Step::CaughtUp(Box::new(run)));
        }
    }

    async fn read(
        &mut self,
        store: &dyn Store,
        blobs: &dyn Blobs,
    ) -> Result<Option<Step>, LogError> {
        let Some(reader) = &mut self.reader else {
            self.is_end_final = true;
            return Ok(None);
        };
        let from = reader.offset();
        Ok(match reader.next(store, blobs).await? {
            LogPart::Frames(frames) => Some(Step::Frames(frames)),
            LogPart::Hole { until } => Some(Step::Hole { from, until }),
            LogPart::End => None,
        })
    }

    fn begin(&mut self, attempt: u32) {
        let run = self.run;
        self.attempt = attempt;
        self.reader = Some(LogReader::at(LogId { run, attempt }, 0));
        self.is_end_final = false;
    }
}

/// The number of the newest attempt; 0 if the run was never leased.
fn last_attempt(run: &Run) -> u32 {
    let ended = run.attempts.last().map_or(0, |attempt| attempt.attempt);
    let held = run.state.lease().map_or(0, |lease| lease.attempt);
    ended.max(held)
}

/// Whether nobody writes to this attempt's log any more. Before the first attempt, nobody does.
fn is_over(run: &Run, attempt: u32) -> bool {
    run.state.lease().is_none_or(|lease| lease.attempt != attempt)
}
