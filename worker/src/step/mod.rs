//! The steps of a run.

pub(crate) mod build;
mod push;
pub(crate) mod build_log;
