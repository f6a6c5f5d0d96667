//! Undecided events become runs, waiting runs become ready, and what was lost on the way is found.
//!
//! In: the store's undecided events, waiting and leased runs, the clock. Out: decisions, ready runs, doorbells. Any
//! number may run: whatever two of them do at once is one commit that holds and one that is tried again.

#![warn(missing_docs)]

mod admission;
mod decider;
mod figures;
mod keeper;
mod resolver;
mod scheduler;
mod stranded;
mod sweeper;
mod ticking;

pub use decider::Asks;
pub use keeper::{Keeper, Retention};
pub use scheduler::{Scheduler, SchedulerSettings};
pub use sweeper::Sweeper;
