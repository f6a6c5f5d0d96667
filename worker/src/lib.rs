//! Takes runs, executes their steps on a container engine, and reports the outcome. Has no persistent state.
//!
//! In: ready runs of one pool. Out: images under their tags, logs, outcomes, lineage. A worker may die at any moment:
//! its leases expire, and another one takes the runs.

#![warn(missing_docs)]

pub mod engine;
pub mod source;

mod announce;
mod attempt;
mod away;
mod budget;
mod cleanup;
mod compile;
mod executor;
mod failure;
mod graph;
mod held;
mod housekeeping;
mod join;
mod lease;
mod limits;
mod log;
mod mask;
mod policy;
mod progress;
mod scan;
mod settings;
mod slot;
mod spans;
mod step;
mod tags;
mod walk;
mod worker;
mod workspace;

pub use budget::Usage;
pub use held::HeldRuns;
pub use lease::LeaseTimes;
pub use policy::{Permission, Policy};
pub use settings::WorkerSettings;
pub use worker::{TakeError, Worker};
