//! Where queued runs stand, and when they will probably start.

use std::collections::{BTreeMap, BTreeSet};

use gantry_domain::decide::forecast::{Forecast, History, LINE, Line};
use gantry_domain::id::{PoolName, RunId, RunPrefix};
use gantry_domain::run::{Run as RunRecord, RunStatus};
use gantry_seams::runs::{self, RunFilter, TurnsOf};
use gantry_seams::store::{Store, StoreError};
use gantry_seams::workers;

/// How many of the last successful runs tell how long runs take.
const LAST: usize = 100;

/// What to expect of those of the runs that are queued. Reads nothing if none is.
pub(crate) async fn forecasts(
    store: &dyn Store,
    of: &[RunRecord],
) -> Result<BTreeMap<RunId, Forecast>, StoreError> {
    let mut queued: BTreeMap<PoolName, Vec<&RunRecord>> = BTreeMap::new();
    for run in of.iter().filter(|run| run.status() == RunStatus::Queued) {
        queued.entry(run.pool()).or_default().push(run);
    }
    let mut forecasts = BTreeMap::new();
    if queued.is_empty() {
        return Ok(forecasts);
    }
    let succeeded = RunFilter { status: Some(RunStatus::Succeeded), ..RunFilter::default() };
    let last = runs::list(store, &succeeded, None, LAST).await?;
    let leased = runs::leased(store, LINE).await?;
    let workforce = workers::workforce(store).await?;
    for (pool, queued) in queued {
        let of_pool = leased.iter().filter(|run| run.pool() == pool && !run.is_hidden());
        let waiting = runs::waiting_for(store, &pool, LINE).await?;
        let mut line = Line {
            ready: runs::ready_in(store, &pool, LINE).await?,
            leased: of_pool.cloned().collect(),
            slots: workforce.slots(&pool),
            history: History::learn(&pool, &last),
            registries: runs::find_turns(store, &TurnsOf::Pool(pool)).await?,
            ..Line::default()
        };
        let registries: BTreeSet<RunPrefix> = waiting.iter().map(|run| run.registry).collect();
        for registry in registries {
            let turns = runs::find_turns(store, &TurnsOf::Registry(registry)).await?;
            line.tasks.insert(registry, turns);
        }
        line.waiting = waiting;
        forecasts.extend(
            queued.into_iter().filter_map(|run| Some((run.id, line.forecast(run, workforce.now)?))),
        );
    }
    Ok(forecasts)
}
