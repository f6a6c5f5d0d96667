//! Explains in words what a queued run waits for.

use std::collections::BTreeSet;

use gantry_domain::id::PoolName;
use gantry_domain::run::{Run as RunRecord, RunState};
use gantry_seams::store::{Store, StoreError};
use gantry_seams::workers;

/// What a queued run waits for. For a ready run this includes what is wrong with its pool.
pub(crate) async fn explain_wait(
    store: &dyn Store,
    run: &RunRecord,
) -> Result<Option<String>, StoreError> {
    let RunState::Ready { pool, .. } = &run.state else {
        return Ok(waits_for(run));
    };
    let trouble = pool_trouble(store, pool).await?;
    Ok(waits_for(run).map(|text| match trouble {
        Some(trouble) => format!("{text}: {trouble}"),
        None => format!("{text}: all are busy"),
    }))
}

async fn pool_trouble(store: &dyn Store, pool: &PoolName) -> Result<Option<String>, StoreError> {
    let mut workforce = workers::workforce(store).await?;
    if let Some(lack) = workforce.lacks(pool) {
        return Ok(Some(lack.to_string()));
    }
    workforce.workers.retain(|worker| {
        worker.pool == *pool
            && !worker.is_silent(workforce.now)
            && !workforce.drained.contains_key(&worker.id)
    });
    let reasons: BTreeSet<String> = workforce
        .workers
        .iter()
        .map(|worker| worker.idle_because.clone().unwrap_or_default())
        .collect();
    let all_refuse = !reasons.contains("");
    Ok(all_refuse.then(|| {
        let reasons: Vec<String> = reasons.into_iter().collect();
        format!("none takes runs now: {}", reasons.join("; "))
    }))
}

/// What a queued run waits for according to its own record.
pub(crate) fn waits_for(run: &RunRecord) -> Option<String> {
    match &run.state {
        RunState::Waiting { reason, .. } => Some(reason.to_string()),
        RunState::Ready { pool, .. } => Some(format!("a worker of pool {pool}")),
        RunState::Started { .. } | RunState::Running { .. } | RunState::Done(_) => None,
    }
}
