//! Operations on workers.

use gantry_domain::id::WorkerId;
use gantry_domain::worker::{Drain, Worker, Workforce};
use gantry_seams::store::StoreError;
use gantry_seams::{runs, workers};

use crate::access::{Admin, Allowed, Read};
use crate::refusal::Refusal;
use crate::state::State;

/// The workers, each with those of its runs that the caller may see.
pub(crate) async fn visible(
    state: &State,
    allowed: &Allowed<Read>,
) -> Result<Workforce, StoreError> {
    let store = state.store.as_ref();
    let mut workforce = workers::workforce(store).await?;
    if allowed.bound_to().is_none() {
        return Ok(workforce);
    }
    for worker in &mut workforce.workers {
        for run in std::mem::take(&mut worker.runs) {
            let record = runs::find(store, run).await?;
            if record.is_some_and(|record| allowed.sees(&record)) {
                worker.runs.push(run);
            }
        }
    }
    Ok(workforce)
}

/// Drains a worker: it finishes its runs and takes no more until it is resumed. A worker with a fixed name stays
/// drained across restarts; for any other the drain is forgotten when it leaves.
pub(crate) async fn drain(
    state: &State,
    allowed: &Allowed<Admin>,
    id: &WorkerId,
) -> Result<(Worker, Option<Drain>), Refusal> {
    allowed.check_everywhere()?;
    if !workers::drain(state.store.as_ref(), id, &allowed.by()).await? {
        return Err(unknown(id));
    }
    one(state, id).await
}

pub(crate) async fn resume(
    state: &State,
    allowed: &Allowed<Admin>,
    id: &WorkerId,
) -> Result<(Worker, Option<Drain>), Refusal> {
    allowed.check_everywhere()?;
    if !workers::resume(state.store.as_ref(), id).await? {
        return Err(unknown(id));
    }
    one(state, id).await
}

async fn one(state: &State, id: &WorkerId) -> Result<(Worker, Option<Drain>), Refusal> {
    let mut workforce = workers::workforce(state.store.as_ref()).await?;
    let worker = workforce.workers.into_iter().find(|worker| worker.id == *id);
    let drain = workforce.drained.remove(id);
    worker.map(|worker| (worker, drain)).ok_or_else(|| unknown(id))
}

fn unknown(id: &WorkerId) -> Refusal {
    Refusal::NotFound { what: "worker", name: id.to_string() }
}
