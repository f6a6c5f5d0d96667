//! Reads a run's log: all attempts in order, as a whole or live.

mod follow;
mod live;
mod walk;

pub(crate) use follow::Followers;
pub(crate) use live::LiveLog;
pub(crate) use walk::{LogItem, LogPosition, LogWalk, WalkError};
