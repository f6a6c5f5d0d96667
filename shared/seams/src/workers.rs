//! Workers as they report themselves, which of them are drained, and when each pool was last served.

use std::time::Duration;

use gantry_domain::id::{PoolName, TokenId, WorkerId};
use gantry_domain::timestamp::Timestamp;
use gantry_domain::worker::{Drain, Worker, Workforce};
use serde::{Deserialize, Serialize};

use crate::codec;
use crate::collection::{Collection, commit_unconditional};
use crate::store::{Batch, Key, Kind, Store, StoreError, Watch};

const ALL: Collection<Worker> = Collection::new(Kind::Worker);
const DRAINS: Collection<Drain> = Collection::new(Kind::Drain);

/// The most workers that are read.
const MOST: usize = 1000;

/// When a worker of a pool that was not drained last reported.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Served {
    last: Timestamp,
}

/// Records a worker's report. Returns its drain if it is drained.
///
/// # Errors
/// [`StoreError`].
pub async fn record_seen(store: &dyn Store, worker: &Worker) -> Result<Option<Drain>, StoreError> {
    let drain = DRAINS.find(store, worker.id.as_str()).await?;
    let mut batch = Batch::default();
    ALL.put_in(&mut batch, worker.id.as_str(), worker)?;
    if drain.is_none() {
        let key = served_key(&worker.pool);
        batch.put(key.clone(), codec::encode(&key, &Served { last: worker.last_seen })?);
    }
    commit_unconditional(store, batch).await?;
    Ok(drain)
}

/// The last report of a worker, if there is one.
///
/// # Errors
/// [`StoreError`].
pub async fn find(store: &dyn Store, id: &WorkerId) -> Result<Option<Worker>, StoreError> {
    ALL.find(store, id.as_str()).await
}

/// When a pool was last served, if it ever was.
///
/// # Errors
/// [`StoreError`].
pub async fn last_served(
    store: &dyn Store,
    pool: &PoolName,
) -> Result<Option<Timestamp>, StoreError> {
    match codec::load::<Served>(store, &served_key(pool)).await {
        Ok(served) => Ok(served.map(|found| found.value.last)),
        // The next worker that reports writes it again.
        Err(StoreError::Undecodable { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Lists workers by id.
///
/// # Errors
/// [`StoreError`].
pub async fn list(store: &dyn Store, limit: usize) -> Result<Vec<Worker>, StoreError> {
    ALL.list(store, None, limit).await
}

/// All workers, and which of them are drained.
///
/// # Errors
/// [`StoreError`].
pub async fn workforce(store: &dyn Store) -> Result<Workforce, StoreError> {
    let drains = DRAINS.list(store, None, MOST).await?;
    Ok(Workforce {
        workers: list(store, MOST).await?,
        drained: drains.into_iter().map(|drain| (drain.worker.clone(), drain)).collect(),
        now: store.now().await?,
    })
}

/// Drains a worker: it finishes its runs and takes no more. A second call changes nothing. Returns whether the worker
/// exists.
///
/// # Errors
/// [`StoreError`].
pub async fn drain(store: &dyn Store, id: &WorkerId, by: &TokenId) -> Result<bool, StoreError> {
    if ALL.find(store, id.as_str()).await?.is_none() {
        return Ok(false);
    }
    if DRAINS.find(store, id.as_str()).await?.is_none() {
        let drain = Drain { worker: id.clone(), by: by.clone(), since: store.now().await? };
        DRAINS.put(store, id.as_str(), &drain).await?;
    }
    Ok(true)
}

/// Lets a worker take runs again. A second call changes nothing. Returns whether the worker exists, or was drained.
///
/// # Errors
/// [`StoreError`].
pub async fn resume(store: &dyn Store, id: &WorkerId) -> Result<bool, StoreError> {
    match DRAINS.find(store, id.as_str()).await {
        Ok(None) => return Ok(ALL.find(store, id.as_str()).await?.is_some()),
        // A record that does not decode drains the worker as well, and is removed in the same way.
        Ok(Some(_)) | Err(StoreError::Undecodable { .. }) => {}
        Err(error) => return Err(error),
    }
    let mut batch = Batch::default();
    DRAINS.delete_in(&mut batch, id.as_str());
    commit_unconditional(store, batch).await?;
    Ok(true)
}

/// A watch that fires when a worker is drained or resumed.
#[must_use]
pub fn watch_drain(store: &dyn Store, id: &WorkerId) -> Watch {
    store.watch(&DRAINS.key(id.as_str()))
}

/// Removes a worker that shuts down. The drain of a worker with a fixed name stays, for when it comes back.
///
/// # Errors
/// [`StoreError`].
pub async fn forget(store: &dyn Store, worker: &WorkerId) -> Result<(), StoreError> {
    let comes_back = match ALL.find(store, worker.as_str()).await {
        Ok(found) => found.is_some_and(|worker| worker.has_fixed_name),
        Err(StoreError::Undecodable { .. }) => false,
        Err(error) => return Err(error),
    };
    let mut batch = Batch::default();
    ALL.delete_in(&mut batch, worker.as_str());
    if !comes_back {
        DRAINS.delete_in(&mut batch, worker.as_str());
    }
    commit_unconditional(store, batch).await
}

/// Removes workers that have not reported for `silence`. Returns how many.
///
/// # Errors
/// [`StoreError`].
pub async fn forget_silent(store: &dyn Store, silence: Duration) -> Result<usize, StoreError> {
    let before = store.now().await?.before(silence);
    let mut forgotten = 0;
    for worker in list(store, MOST).await? {
        if worker.last_seen < before {
            forget(store, &worker.id).await?;
            forgotten += 1;
        }
    }
    Ok(forgotten)
}

fn served_key(pool: &PoolName) -> Key {
    Key::new(Kind::Pool, pool)
}
