//! Reads the log of a run: one attempt after the other, each from its first byte to its last.

use gantry_domain::id::RunId;
use gantry_domain::log::LogFrame;
use gantry_domain::run::Run;
use gantry_seams::blobs::Blobs;
use gantry_seams::logs::{LogError, LogId, LogPart, LogReader};
use gantry_seams::runs;
use gantry_seams::store::{Store, StoreError};

/// A position in a run's log: an attempt, and a byte offset in its log. Ordered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LogPosition {
    /// From 1; 0 is before the first.
    pub(crate) attempt: u32,
    pub(crate) offset: u64,
}

/// The next item of a log.
#[derive(Debug)]
pub(crate) enum LogItem {
    /// The log of this attempt begins.
    Attempt(u32),
    /// Output. The first frame may begin before the position that was asked for.
    Frames(Vec<LogFrame>),
    /// The bytes between these offsets are lost.
    Hole { from: u64, until: u64 },
    /// The end of the log so far; final if the run has ended.
    CaughtUp(Box<Run>),
}

/// Why a log cannot be read further.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WalkError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("run {0} is no longer kept")]
    Gone(RunId),
}

impl From<StoreError> for WalkError {
    fn from(error: StoreError) -> Self {
        Self::Log(error.into())
    }
}

/// A reader of a run's log, across its attempts.
#[derive(Debug)]
pub(crate) struct LogWalk {
    run: RunId,
    attempt: u32,
    reader: Option<LogReader>,
    /// Whether the attempt was over before the reader last reached the end, so that this end is final.
    is_end_final: bool,
}

impl LogWalk {
    /// Starts at a position; the default is the beginning of the first attempt.
    pub(crate) fn from(run: RunId, position: LogPosition) -> Self {
        let reader = (position.attempt > 0).then(|| {
            let attempt = position.attempt;
            LogReader::at(LogId { run, attempt }, position.offset)
        });
        Self { run, attempt: position.attempt, reader, is_end_final: false }
    }

    pub(crate) fn position(&self) -> LogPosition {
        LogPosition {
            attempt: self.attempt,
            offset: self.reader.as_ref().map_or(0, LogReader::offset),
        }
    }

    pub(crate) async fn next(
        &mut self,
        store: &dyn Store,
        blobs: &dyn Blobs,
    ) -> Result<LogItem, WalkError> {
        loop {
            if let Some(item) = self.read(store, blobs).await? {
                return Ok(item);
            }
            let run = runs::find(store, self.run).await?.ok_or(WalkError::Gone(self.run))?;
            if !is_over(&run, self.attempt) {
                return Ok(LogItem::CaughtUp(Box::new(run)));
            }
            if !self.is_end_final {
                // The log may have grown after it was read and before the attempt ended, so read it once more.
                self.is_end_final = true;
                continue;
            }
            if self.attempt < last_attempt(&run) {
                self.begin(self.attempt + 1);
                return Ok(LogItem::Attempt(self.attempt));
            }
            return Ok(LogItem::CaughtUp(Box::new(run)));
        }
    }

    async fn read(
        &mut self,
        store: &dyn Store,
        blobs: &dyn Blobs,
    ) -> Result<Option<LogItem>, LogError> {
        let Some(reader) = &mut self.reader else {
            self.is_end_final = true;
            return Ok(None);
        };
        let from = reader.offset();
        Ok(match reader.next(store, blobs).await? {
            LogPart::Frames(frames) => Some(LogItem::Frames(frames)),
            LogPart::Hole { until } => Some(LogItem::Hole { from, until }),
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

/// Whether this attempt's log is complete: no lease of it is held. Attempt 0 has no log and is complete.
fn is_over(run: &Run, attempt: u32) -> bool {
    run.state.lease().is_none_or(|lease| lease.attempt != attempt)
}
