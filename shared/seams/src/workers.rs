//! Workers, as they say of themselves.

use std::time::Duration;

use gantry_domain::id::WorkerId;
use gantry_domain::worker::Worker;

use crate::collection::{Collection, commit_unconditional};
use crate::store::{Batch, Kind, Store, StoreError};

const ALL: Collection<Worker> = Collection::new(Kind::Worker);

/// A worker says how it is.
///
/// # Errors
/// [`StoreError`].
pub async fn record_seen(store: &dyn Store, worker: &Worker) -> Result<(), StoreError> {
    ALL.put(store, worker.id.as_str(), worker).await
}

/// Lists workers by id.
///
/// # Errors
/// [`StoreError`].
pub async fn list(store: &dyn Store, limit: usize) -> Result<Vec<Worker>, StoreError> {
    ALL.list(store, None, limit).await
}

/// A worker leaves in good order.
///
/// # Errors
/// [`StoreError`].
pub async fn forget(store: &dyn Store, id: &WorkerId) -> Result<(), StoreError> {
    let mut batch = Batch::default();
    ALL.delete_in(&mut batch, id.as_str());
    commit_unconditional(store, batch).await
}

/// Forgets workers that were not seen for `silence`. Answers how many.
///
/// # Errors
/// [`StoreError`].
pub async fn forget_silent(store: &dyn Store, silence: Duration) -> Result<usize, StoreError> {
    let before = store.now().await?.before(silence);
    let mut forgotten = 0;
    for worker in list(store, 1000).await? {
        if worker.last_seen < before {
            forget(store, &worker.id).await?;
            forgotten += 1;
        }
    }
    Ok(forgotten)
}
