//! Decides what a due timer starts. Pure: the runs of the timer that have not ended are passed in.

use super::Rule;
use crate::id::RunId;
use crate::task::{Status, Task};
use crate::timer::{Overlap, Timer, TimerName};

/// The most runs of a timer that have not ended, if each waits for the one before.
pub const MOST_QUEUED: usize = 10;

/// What a due timer starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// A run, beside earlier ones.
    Now,
    /// A run that waits until earlier ones end.
    Queued,
    /// A run, and the earlier ones end.
    Instead,
}

/// The timer, if it may start runs of its task. `None` if the task does not have it any more.
///
/// # Errors
/// The [`Rule`] that says no.
pub fn enabled<'a>(task: &'a Task, timer: &TimerName) -> Result<Option<&'a Timer>, Rule> {
    if task.status == Status::Disabled {
        return Err(Rule::TaskDisabled);
    }
    match task.timers.find(timer) {
        Some(Timer { status: Status::Disabled, name, .. }) => {
            Err(Rule::TimerDisabled { timer: name.clone() })
        }
        found => Ok(found),
    }
}

/// What the timer starts while these of its runs have not ended, older ones first.
///
/// # Errors
/// The [`Rule`] that says no.
pub fn start(timer: &Timer, open: &[RunId]) -> Result<Start, Rule> {
    match (timer.overlap, open) {
        (Overlap::Allow, _) => Ok(Start::Now),
        (Overlap::Cancel, _) => Ok(Start::Instead),
        (Overlap::Queue, open) if open.len() < MOST_QUEUED => Ok(Start::Queued),
        (Overlap::Queue, open) => Err(Rule::QueueFull { runs: open.len() }),
        (Overlap::Skip, []) => Ok(Start::Now),
        (Overlap::Skip, [first, ..]) => Err(Rule::Overlaps { run: *first }),
    }
}
