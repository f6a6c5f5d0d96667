//! Finds credentials that do not work, from how runs ended.
//!
//! In: runs, newest first. Out: for each task, and for the quick builds of each registry, the last run that ended, if a
//! registry or git host refused its credentials. A later run that got further clears it. Pure.

use std::collections::BTreeSet;

use gantry_domain::run::{ErrorCode, Run, RunError};

/// The runs whose credentials were refused, with the error.
pub(super) fn refused(runs: &[Run]) -> Vec<(&Run, &RunError)> {
    let mut looked_at = BTreeSet::new();
    runs.iter()
        .filter_map(|run| Some((run, run.state.done()?)))
        .filter(|(run, _)| {
            looked_at.insert((&run.registry, run.task.as_ref().map(|task| &task.name)))
        })
        .filter_map(|(run, done)| Some((run, done.outcome.error()?)))
        .filter(|(_, error)| {
            matches!(error.code, ErrorCode::RegistryUnauthorized | ErrorCode::SourceUnauthorized)
        })
        .collect()
}
