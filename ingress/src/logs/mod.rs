//! Reading a run's log: all attempts in one order, whole or live.

mod follow;
mod live;
mod walk;

pub(crate) use follow::Followers;
pub(crate) use live::LiveLog;
pub(crate) use walk::{LogItem, LogPosition, LogWalk, WalkError};
