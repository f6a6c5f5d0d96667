//! Ends runs that stay ready for too long in a pool that has no worker.

use std::collections::BTreeMap;

use gantry_domain::id::{PoolName, RunId};
use gantry_domain::run::{ErrorCode, Outcome, RunError};
use gantry_domain::timestamp::Timestamp;
use gantry_domain::worker::NoWorker;
use gantry_ops::metrics;
use gantry_seams::queue::RunsMoved;
use gantry_seams::runs::{self, ReadyRun, RunOpError};
use gantry_seams::store::StoreError;
use gantry_seams::workers;

use crate::sweeper::Sweeper;

/// How many ready runs are read at once.
const PAGE: usize = 512;

/// Why a pool has no worker, and when it was last served.
struct Forsaken {
    lack: NoWorker,
    last_served: Option<Timestamp>,
}

impl Sweeper {
    /// Ends runs that have been ready for longer than the queue timeout in a pool without workers. Time before
    /// `watching_since`, when no worker could report, does not count. Returns how many ended.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn end_stranded_runs(
        &self,
        now: Timestamp,
        watching_since: Timestamp,
    ) -> Result<usize, StoreError> {
        let too_long_ago = now.before(self.queue_timeout);
        if watching_since > too_long_ago {
            return Ok(0);
        }
        let store = self.store.as_ref();
        let mut pools = BTreeMap::new();
        let mut ended = 0;
        let mut after: Option<ReadyRun> = None;
        loop {
            let page = runs::ready_before(store, too_long_ago, after.as_ref(), PAGE).await?;
            if page.is_empty() {
                return Ok(ended);
            }
            for ready in &page {
                if !pools.contains_key(&ready.pool) {
                    pools.insert(ready.pool.clone(), self.forsaken(&ready.pool).await?);
                }
                let Some(Some(forsaken)) = pools.get(&ready.pool) else { continue };
                if forsaken.last_served.is_none_or(|last| last <= too_long_ago) {
                    ended += usize::from(self.strand(ready.run, &forsaken.lack).await?);
                }
            }
            after = page.into_iter().last();
        }
    }

    async fn forsaken(&self, pool: &PoolName) -> Result<Option<Forsaken>, StoreError> {
        let store = self.store.as_ref();
        let Some(lack) = workers::workforce(store).await?.lacks(pool) else { return Ok(None) };
        Ok(Some(Forsaken { lack, last_served: workers::last_served(store, pool).await? }))
    }

    async fn strand(&self, run: RunId, lack: &NoWorker) -> Result<bool, StoreError> {
        let waited = self.queue_timeout.as_secs();
        let message = format!(
            "nobody took it in {waited} s, `runs.queue_timeout`, since {lack}; then run it again"
        );
        tracing::error!(run.id = %run, "run {run} ends: {message}");
        let error = RunError { code: ErrorCode::NoWorker, step: None, exit_code: None, message };
        let ended = match runs::give_up(self.store.as_ref(), run, Outcome::Error { error }).await {
            Ok(ended) => ended,
            // A record that does not decode cannot be ended.
            Err(RunOpError::Store(StoreError::Undecodable { .. })) => return Ok(false),
            Err(RunOpError::Store(error)) => return Err(error),
            // A worker took the run, or it ended meanwhile.
            Err(_) => return Ok(false),
        };
        metrics::run_ended(&ended);
        if let Err(error) = self.queues.runs.publish(RunsMoved { run }, ended.trace).await {
            tracing::debug!("admission is not notified and will poll: {error}");
        }
        Ok(true)
    }
}
