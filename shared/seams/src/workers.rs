//! Workers, as they say of themselves; which of them are drained; when a pool was last served.

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

/// How many workers are looked at.
const MOST: usize = 1000;

/// When a worker was last there that takes runs of a pool.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Served {
    last: Timestamp,
}

/// A worker says how it is. Answers whether it is drained.
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

/// How a worker said it is, if it is listed.
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
        // The next worker that is seen writes it anew.
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

/// Who is there, and who of them takes runs.
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

/// Lets a worker finish what it has and take nothing more; a second call changes nothing. Answers whether there is one.
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

/// Lets a worker take runs again; a second call changes nothing. Answers whether there is one, or was.
///
/// # Errors
/// [`StoreError`].
pub async fn resume(store: &dyn Store, id: &WorkerId) -> Result<bool, StoreError> {
    match DRAINS.find(store, id.as_str()).await {
        Ok(None) => return Ok(ALL.find(store, id.as_str()).await?.is_some()),
        // One that does not decode drains too, and goes like any other.
        Ok(Some(_)) | Err(StoreError::Undecodable { .. }) => {}
        Err(error) => return Err(error),
    }
    let mut batch = Batch::default();
    DRAINS.delete_in(&mut batch, id.as_str());
    commit_unconditional(store, batch).await?;
    Ok(true)
}

/// Tells a worker that it was drained or resumed.
#[must_use]
pub fn watch_drain(store: &dyn Store, id: &WorkerId) -> Watch {
    store.watch(&DRAINS.key(id.as_str()))
}

/// A worker leaves in good order. One that comes back under its name is still drained then.
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

/// Forgets workers that were not seen for `silence`. Answers how many.
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
