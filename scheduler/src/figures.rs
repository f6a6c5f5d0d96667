//! Gauges of what is in the store: waiting runs, ready runs, workers. Counts stop at a maximum.

use gantry_domain::run::RunState;
use gantry_ops::metrics::{self, Seen};
use gantry_seams::store::{SharedStore, StoreError};
use gantry_seams::{installation, runs, workers};

/// How many waiting runs are read.
const WAITING: usize = 1024;

/// How many entries of the other indexes are read.
const ENTRIES: usize = 4096;

/// Publishes the gauges.
pub(crate) struct Figures {
    pub(crate) store: SharedStore,
}

impl Figures {
    /// Reads the store once and sets the gauges. Returns 0, since nothing moves.
    pub(crate) async fn tick(&self) -> Result<usize, StoreError> {
        let store = self.store.as_ref();
        let now = store.now().await?;
        let mut seen = Seen::default();
        for run in runs::waiting(store, None, WAITING).await? {
            if let RunState::Waiting { reason, .. } = &run.state
                && !run.is_hidden()
            {
                *seen.waiting.entry((run.pool(), reason.into())).or_default() += 1;
            }
        }
        // Oldest first: the first of each pool is its oldest.
        let ready = runs::ready_before(store, now, None, ENTRIES).await?;
        for ready in ready.into_iter().filter(|ready| !ready.run.is_hidden()) {
            let age = now.since(ready.since);
            seen.oldest_ready.entry(ready.pool.clone()).or_insert(age);
            *seen.ready.entry(ready.pool).or_default() += 1;
        }
        seen.leased = runs::count_leased(store, ENTRIES).await? as u64;
        let workforce = workers::workforce(store).await?;
        for worker in workforce.workers.iter().filter(|worker| !worker.is_silent(now)) {
            *seen.workers.entry(worker.pool.clone()).or_default() += 1;
            let takes_runs =
                worker.idle_because.is_none() && !workforce.drained.contains_key(&worker.id);
            let slots = if takes_runs { u64::from(worker.slots) } else { 0 };
            *seen.slots.entry(worker.pool.clone()).or_default() += slots;
        }
        // A pool with runs but without workers reports 0 workers instead of no value.
        let waited_for = seen.waiting.keys().map(|(pool, _)| pool).chain(seen.ready.keys());
        for pool in waited_for.cloned().collect::<Vec<_>>() {
            seen.workers.entry(pool.clone()).or_default();
            seen.slots.entry(pool).or_default();
        }
        seen.quarantined = installation::count_quarantined(store, ENTRIES).await? as u64;
        let room = store.room().await?;
        (seen.store_used, seen.store_limit) = (room.used, room.most);
        metrics::seen(&seen);
        Ok(0)
    }
}
