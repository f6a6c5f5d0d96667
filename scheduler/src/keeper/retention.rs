//! Deletes old records and objects by age, in small pieces, so that no commit takes long.

use std::time::Duration;

use gantry_domain::id::RunPrefix;
use gantry_domain::run::{Purpose, Run};
use gantry_domain::timestamp::Timestamp;
use gantry_seams::deliveries::{Ledger, Part, RemoveError};
use gantry_seams::logs::{self, LogError, LogId};
use gantry_seams::store::StoreError;
use gantry_seams::{
    deliveries, events, lineages, messages, outbox, runs, tags, tasks, uploads, waves,
};

use super::Keeper;

/// How many records of each kind one piece has.
const PIECE: usize = 128;

/// Added to the time so that deliveries of the current millisecond are included.
const A_MOMENT: Duration = Duration::from_secs(1);

/// How long things are kept.
#[derive(Debug, Clone)]
pub struct Retention {
    /// Ended runs that are not archived, their logs, and what was reported of them.
    pub runs: Duration,
    /// Deliveries, their events and decisions.
    pub deliveries: Duration,
    /// Bodies of deliveries in the store. Older ones are compressed and moved to the object store.
    pub bodies: Duration,
    /// The lineage of digests.
    pub lineage: Duration,
    /// Waves that are over.
    pub waves: Duration,
    /// Former revisions of tasks.
    pub revisions: Duration,
    /// Messages of notifications that were sent or given up.
    pub messages: Duration,
    /// Uploaded archives.
    pub uploads: Duration,
    /// Uploaded archives that no run has used, and large bodies whose delivery was not accepted.
    pub unused_uploads: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        let days = |days: u64| Duration::from_secs(days * 24 * 3600);
        Self {
            runs: days(30),
            deliveries: days(30),
            bodies: days(1),
            lineage: days(400),
            waves: days(90),
            revisions: days(90),
            messages: days(7),
            uploads: days(7),
            unused_uploads: days(1),
        }
    }
}

impl Keeper {
    /// Deletes what is older than [`Retention`] allows, and returns how many items. What the object store fails to
    /// remove is tried again by the next call.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn forget_old(&self) -> Result<usize, StoreError> {
        let mut forgotten = 0;
        loop {
            let count = self.forget_piece().await?;
            forgotten += count;
            if count == 0 {
                return Ok(forgotten);
            }
            tokio::task::yield_now().await;
        }
    }

    async fn forget_piece(&self) -> Result<usize, StoreError> {
        let store = self.store.as_ref();
        let now = store.now().await?;
        let keep = &self.retention;
        let mut count = self.forget_runs().await?;
        let ledgers = deliveries::ledgers(store).await?;
        count += self.move_bodies(&ledgers, now.before(keep.bodies)).await?;
        count += self.forget_deliveries(&ledgers, now.before(keep.deliveries)).await?;
        count += self.remove_unowned_bodies(now.before(keep.unused_uploads)).await?;
        count += events::forget(store, now.before(keep.deliveries), PIECE).await?;
        count += tasks::forget_revisions(store, now.before(keep.revisions), PIECE).await?;
        count += waves::forget(store, now.before(keep.waves), PIECE).await?;
        count += lineages::forget(store, now.before(keep.lineage), PIECE).await?;
        count += outbox::forget(store, now.before(keep.runs), PIECE).await?;
        count += messages::forget(store, now.before(keep.messages), PIECE).await?;
        count += tags::forget(store, now.before(keep.lineage), PIECE).await?;
        let mut old = uploads::older_than(store, now.before(keep.uploads), PIECE).await?;
        let unused = now.before(keep.unused_uploads);
        old.extend(uploads::unused_since(store, unused, PIECE).await?);
        for upload in old {
            if let Err(error) = self.blobs.delete(&uploads::blob_path(&upload.id)).await {
                tracing::warn!("upload {} is removed later: {error}", upload.id);
                continue;
            }
            uploads::delete(store, &upload).await?;
            count += 1;
        }
        Ok(count)
    }

    async fn forget_runs(&self) -> Result<usize, StoreError> {
        let before = self.store.now().await?.before(self.retention.runs);
        let mut count = 0;
        for run in runs::ended(self.store.as_ref(), PIECE).await? {
            // What a scan found is recorded elsewhere, so it need not be kept.
            if run.purpose != Purpose::Scan && run.state.done().is_none_or(|done| done.at >= before)
            {
                break;
            }
            match self.forget_logs(&run).await {
                Ok(()) => {}
                Err(LogError::Store(error)) => return Err(error),
                Err(LogError::Blob(error)) => {
                    tracing::warn!(run.id = %run.id, "the log of run {} is removed later: {error}", run.id);
                    continue;
                }
            }
            runs::delete(self.store.as_ref(), run.id).await?;
            count += 1;
        }
        Ok(count)
    }

    async fn forget_logs(&self, run: &Run) -> Result<(), LogError> {
        for ended in &run.attempts {
            let log = LogId { run: run.id, attempt: ended.attempt };
            logs::delete(self.store.as_ref(), self.blobs.as_ref(), log).await?;
        }
        Ok(())
    }

    /// Moves bodies to the object store early while the store is nearly full, the oldest first. Returns how many were
    /// moved.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn make_room(&self) -> Result<usize, StoreError> {
        let store = self.store.as_ref();
        let (mut moved, mut age) = (0, self.retention.bodies);
        while store.room().await?.is_tight() {
            let ledgers = deliveries::ledgers(store).await?;
            let now = store.now().await?;
            let before = if age.is_zero() { now.after(A_MOMENT) } else { now.before(age) };
            match self.move_bodies(&ledgers, before).await? {
                0 if age.is_zero() => break,
                0 => age = if age > A_MOMENT { age / 2 } else { Duration::ZERO },
                count => moved += count,
            }
        }
        if moved > 0 {
            tracing::warn!(
                bodies = moved,
                "the store is nearly full: {moved} bodies of deliveries were moved to the object store early; raise \
                 `store.budget`, or shorten what `retention` keeps"
            );
        }
        Ok(moved)
    }

    async fn move_bodies(
        &self,
        ledgers: &[Ledger],
        before: Timestamp,
    ) -> Result<usize, StoreError> {
        let store = self.store.as_ref();
        let mut count = 0;
        for Ledger { registry, .. } in ledgers {
            let part = Part::WithBody;
            let old = deliveries::older_than(store, *registry, part, before, None, PIECE).await?;
            for delivery in old.items {
                if let Some(body) = deliveries::find_body(store, &delivery).await? {
                    let put = deliveries::put_body(self.blobs.as_ref(), &delivery, body).await;
                    // The next one would most likely fail as well, each after a timeout.
                    if let Err(error) = put {
                        tracing::warn!(delivery.id = %delivery.id, "the body of delivery {} is moved later: {error}", delivery.id);
                        return Ok(count);
                    }
                }
                deliveries::drop_body(store, &delivery).await?;
                count += 1;
            }
        }
        Ok(count)
    }

    async fn remove_unowned_bodies(&self, before: Timestamp) -> Result<usize, StoreError> {
        let mut count = 0;
        for body in deliveries::announced_before(self.store.as_ref(), before, PIECE).await? {
            match body.remove(self.store.as_ref(), self.blobs.as_ref()).await {
                Ok(()) => count += 1,
                Err(RemoveError::Store(error)) => return Err(error),
                Err(RemoveError::Blob(error)) => {
                    tracing::warn!("a body without a delivery is removed later: {error}");
                }
            }
        }
        Ok(count)
    }

    async fn forget_deliveries(
        &self,
        ledgers: &[Ledger],
        before: Timestamp,
    ) -> Result<usize, StoreError> {
        let mut count = 0;
        for ledger in ledgers {
            count += self.forget_deliveries_of(ledger.registry, before).await?;
            if ledger.closed.is_some_and(|closed| closed < before) {
                deliveries::forget_ledger(self.store.as_ref(), ledger.registry).await?;
            }
        }
        Ok(count)
    }

    async fn forget_deliveries_of(
        &self,
        registry: RunPrefix,
        before: Timestamp,
    ) -> Result<usize, StoreError> {
        let (store, blobs, part) = (self.store.as_ref(), self.blobs.as_ref(), Part::WithoutBody);
        let (mut count, mut after) = (0, None);
        loop {
            let old = deliveries::older_than(store, registry, part, before, after.as_ref(), PIECE)
                .await?;
            for delivery in old.items {
                match deliveries::delete(store, blobs, &delivery).await {
                    Ok(is_gone) => count += usize::from(is_gone),
                    Err(RemoveError::Store(error)) => return Err(error),
                    Err(RemoveError::Blob(error)) => {
                        tracing::warn!(delivery.id = %delivery.id, "delivery {} is removed later: {error}", delivery.id);
                        return Ok(count);
                    }
                }
            }
            // Undecided deliveries stay. Read past them, so that they do not hide those that can be deleted.
            match old.next {
                Some(next) if count == 0 => after = Some(next),
                _ => return Ok(count),
            }
        }
    }
}
