//! Splits runs into legs where no engine builds for all their platforms, joins them again, and ends legs that are left over.

use std::sync::Arc;

use gantry_domain::platform::Platform;
use gantry_domain::run::{ErrorCode, LegWork, Legs as LegsOf, Outcome, Run, RunError, Split};
use gantry_domain::worker::Workforce;
use gantry_ops::metrics;
use gantry_ops::secret::Keyring;
use gantry_seams::runs::{self, Joined, RunOpError};
use gantry_seams::store::{SharedStore, StoreError};
use gantry_seams::workers;

/// How many runs one tick looks at.
const MOST: usize = 256;

/// Does what is to be done for legs.
pub(crate) struct Legs {
    pub(crate) store: SharedStore,
    /// Signs the legs.
    pub(crate) keyring: Arc<Keyring>,
}

impl Legs {
    /// Does what is to be done for legs now. Returns for how many runs.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn tick(&self) -> Result<usize, StoreError> {
        let mut moved = 0;
        for run in runs::with_leg_work(self.store.as_ref(), MOST).await? {
            match self.work_on(&run).await {
                Ok(()) => moved += 1,
                // Only this run waits for the quarantined record.
                Err(RunOpError::Store(StoreError::Undecodable { .. })) => {}
                Err(RunOpError::Store(error)) => return Err(error),
                // Another scheduler was first.
                Err(_) => {}
            }
        }
        Ok(moved)
    }

    async fn work_on(&self, run: &Run) -> Result<(), RunOpError> {
        let store = self.store.as_ref();
        match run.leg_work() {
            Some(LegWork::Make) => self.make(run).await,
            Some(LegWork::Join) => {
                if let Joined::Ended(whole) = runs::join_leg(store, run.id).await? {
                    metrics::run_ended(&whole);
                }
                Ok(())
            }
            Some(LegWork::Close) => runs::close_legs(store, run).await,
            None => Ok(()),
        }
    }

    async fn make(&self, run: &Run) -> Result<(), RunOpError> {
        let store = self.store.as_ref();
        let workforce = workers::workforce(store).await?;
        if !self.is_genuine(run, &workforce) {
            let message = format!(
                "the request to split run {} was not made by a worker of a pool that builds it: assume that the workers are \
                 compromised (docs/redis-acl.md), and start the run again",
                run.id
            );
            return self.end(run, ErrorCode::Unsigned, message).await;
        }
        if let Some(message) = unbuildable(run, &workforce) {
            return self.end(run, ErrorCode::BuildRefused, message).await;
        }
        let made = runs::make_legs(store, run.id, self.keyring.as_ref()).await?;
        tracing::info!(run.id = %run.id, "run {} is split into {} legs", run.id, made.len());
        Ok(())
    }

    /// Whether the service made the run, and a worker that may have its secrets asked for the legs. Who may only write
    /// records must not choose the commit that the legs build.
    fn is_genuine(&self, run: &Run, workforce: &Workforce) -> bool {
        let Some(LegsOf::Wanted(Split { bases, pool, proof })) = &run.legs else { return false };
        let platforms = &run.recipe.platforms;
        let builds = |platform: &Platform| workforce.pool_for(&platform.clone().into()) == *pool;
        let may_ask = workforce.pool_for(platforms) == *pool
            || platforms.iter().any(|platform| platform.pool() == *pool || builds(platform));
        let text = run.split_text(run.read.as_ref(), bases);
        may_ask
            && run.is_signed(self.keyring.as_ref())
            && self.keyring.pool_key(pool).has_proved(&text, proof)
    }

    async fn end(&self, run: &Run, code: ErrorCode, message: String) -> Result<(), RunOpError> {
        tracing::warn!(run.id = %run.id, "run {} cannot be split: {message}", run.id);
        let error = RunError { code, step: None, exit_code: None, message };
        // Whoever saved the task can give it other platforms.
        let outcome = if code == ErrorCode::BuildRefused {
            Outcome::Failed { error }
        } else {
            Outcome::Error { error }
        };
        let ended = runs::give_up(self.store.as_ref(), run.id, outcome).await?;
        metrics::run_ended(&ended);
        Ok(())
    }
}

/// Why a platform of the run is built nowhere, if so. A pool whose workers are silent or drained may return.
fn unbuildable(run: &Run, workforce: &Workforce) -> Option<String> {
    run.recipe.platforms.iter().find_map(|platform| {
        let pool = workforce.pool_for(&platform.clone().into());
        let is_known = workforce.workers.iter().any(|worker| worker.pool == pool);
        let lack = workforce.lacks(&pool).filter(|_| !is_known)?;
        Some(format!("no engine builds for {platform}: {lack}"))
    })
}
