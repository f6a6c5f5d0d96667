//! The steps of a run.

pub(crate) mod build;
pub(crate) mod build_log;
mod push;
