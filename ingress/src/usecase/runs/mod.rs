//! Operations on runs.

use gantry_domain::id::RunId;
use gantry_domain::image::Digest;
use gantry_domain::lineage::Lineage;
use gantry_domain::run::{CanceledBy, Legs, Purpose, Run as RunRecord};
use gantry_domain::source::CommitId;
use gantry_domain::step::Steps;
use gantry_ops::metrics;
use gantry_seams::store::StoreError;
use gantry_seams::{lineages, runs, steps};

use crate::access::{Allowed, Needs, Read, Run, Write};
use crate::refusal::Refusal;
use crate::state::State;

mod list;
mod queue;
mod waits;

pub(crate) use list::{Wanted, list};
pub(crate) use queue::forecasts;
pub(crate) use waits::{explain_wait, waits_for};

/// A run that the caller may see. Scans are nobody's to see; legs are, for their logs, but they are in no list.
pub(crate) async fn find<S: Needs>(
    state: &State,
    allowed: &Allowed<S>,
    id: RunId,
) -> Result<RunRecord, Refusal> {
    runs::find(state.store.as_ref(), id)
        .await?
        .filter(|run| run.purpose != Purpose::Scan && allowed.sees(run))
        .ok_or_else(|| Refusal::NotFound { what: "run", name: id.to_string() })
}

/// The steps of a run's last attempt. Workers write that record: if it does not decode, the run is shown without steps.
pub(crate) async fn last_steps(state: &State, run: &RunRecord) -> Result<Steps, StoreError> {
    let last = run.state.lease().map(|lease| lease.attempt);
    let Some(attempt) = last.or(run.attempts.last().map(|ended| ended.attempt)) else {
        return Ok(Steps::default());
    };
    match steps::find(state.store.as_ref(), run.id, attempt).await {
        Err(StoreError::Undecodable { .. }) => Ok(Steps::default()),
        found => found,
    }
}

/// The legs of a run that are still recorded, in the order of its platforms. One that does not decode is left out.
pub(crate) async fn legs(state: &State, run: &RunRecord) -> Result<Vec<RunRecord>, StoreError> {
    let mut found = Vec::new();
    for leg in run.legs.as_ref().map(Legs::runs).unwrap_or_default() {
        match runs::find(state.store.as_ref(), *leg).await {
            Ok(leg) => found.extend(leg),
            Err(StoreError::Undecodable { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// Sets whether a run and its log are kept for good.
pub(crate) async fn archive(
    state: &State,
    allowed: &Allowed<Run>,
    id: RunId,
    archived: bool,
) -> Result<RunRecord, Refusal> {
    let run = find(state, allowed, id).await?;
    Ok(runs::archive(state.store.as_ref(), run.id, archived).await?)
}

/// Requests cancellation. A run without a lease ends at once. A second call, or a call on an ended run, changes
/// nothing.
pub(crate) async fn cancel(
    state: &State,
    allowed: &Allowed<Run>,
    id: RunId,
) -> Result<RunRecord, Refusal> {
    let found = find(state, allowed, id).await?;
    let by = CanceledBy::Token { token: allowed.by() };
    let run = runs::cancel(state.store.as_ref(), found.id, &by).await?;
    if found.state.done().is_none() {
        metrics::run_ended(&run);
    }
    state.doorbells.cancel_asked(&run);
    Ok(run)
}

/// Lets a held run of exactly this commit start. A second call changes nothing.
pub(crate) async fn approve(
    state: &State,
    allowed: &Allowed<Write>,
    id: RunId,
    commit: &CommitId,
) -> Result<RunRecord, Refusal> {
    let found = find(state, allowed, id).await?;
    let by = format!("token {}", allowed.by());
    let run = runs::approve(state.store.as_ref(), found.id, commit, &by).await?;
    state.doorbells.run_created(&run);
    Ok(run)
}

/// The lineage of a pushed digest.
pub(crate) async fn lineage(
    state: &State,
    allowed: &Allowed<Read>,
    digest: &Digest,
) -> Result<Lineage, Refusal> {
    let found = lineages::find(state.store.as_ref(), digest).await?;
    found
        .filter(|lineage| allowed.sees(lineage))
        .ok_or_else(|| Refusal::NotFound { what: "lineage", name: digest.to_string() })
}
