//! Which credentials do not work: read off how runs ended.
//!
//! In: runs from the newest. Out: for each task, and for the quick builds of each registry, the last run that ended, if
//! a registry or git host refused its credentials. A later run that got further takes it off the list. Pure.

use std::collections::BTreeSet;

use gantry_domain::run::{ErrorCode, Run, RunError};

/// The runs whose credentials were refused, with what was said.
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
