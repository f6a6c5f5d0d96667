//! Work that runs beside a loop, because it waits for a host of somebody else: a slow host delays only what needs it.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// How much runs at once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// What one host gets at once.
    pub(crate) a_host: usize,
    /// What runs at once in all.
    pub(crate) at_once: usize,
    /// What runs or waits for its turn. The rest stays in the store for a later tick.
    pub(crate) most: usize,
}

/// The work of one kind, each piece under a key.
#[derive(Debug)]
pub(crate) struct Beside<K> {
    bounds: Bounds,
    keys: Mutex<HashSet<K>>,
    hosts: Mutex<HashMap<String, Arc<Semaphore>>>,
    all: Arc<Semaphore>,
    one_ended: Notify,
}

impl<K: Eq + Hash + Clone> Beside<K> {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            keys: Mutex::default(),
            hosts: Mutex::default(),
            all: Arc::new(Semaphore::new(bounds.at_once)),
            one_ended: Notify::new(),
        }
    }

    pub(crate) fn has(&self, key: &K) -> bool {
        self.keys().contains(key)
    }

    pub(crate) fn count(&self) -> usize {
        self.keys().len()
    }

    /// Begins work under a key, until the result is dropped; `None` if it has begun already, or too much has.
    pub(crate) fn begin(self: &Arc<Self>, key: &K) -> Option<Begun<K>> {
        let mut keys = self.keys();
        if keys.len() >= self.bounds.most || !keys.insert(key.clone()) {
            return None;
        }
        Some(Begun { beside: Arc::clone(self), key: key.clone() })
    }

    /// Waits until nothing runs. Returns `false` if nothing did.
    pub(crate) async fn settled(&self) -> bool {
        let mut waited = false;
        loop {
            let ended = self.one_ended.notified();
            if self.count() == 0 {
                return waited;
            }
            waited = true;
            ended.await;
        }
    }

    /// Waits until `host` may be asked. The permit of the host comes first: what waits for a busy host holds none of the
    /// permits that all hosts share.
    pub(crate) async fn turn(&self, host: &str) -> Option<Turn> {
        let of_host = {
            let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
            hosts.retain(|_, turns| Arc::strong_count(turns) > 1);
            let turns = hosts.entry(host.to_owned());
            Arc::clone(turns.or_insert_with(|| Arc::new(Semaphore::new(self.bounds.a_host))))
        };
        let of_host = of_host.acquire_owned().await.ok()?;
        let of_all = Arc::clone(&self.all).acquire_owned().await.ok()?;
        Some(Turn { _of_host: of_host, _of_all: of_all })
    }

    fn keys(&self) -> MutexGuard<'_, HashSet<K>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The permission to ask a host, until this is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    _of_host: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

/// A piece of work, until this is dropped, even by a panic.
#[derive(Debug)]
pub(crate) struct Begun<K: Eq + Hash> {
    beside: Arc<Beside<K>>,
    key: K,
}

impl<K: Eq + Hash> Drop for Begun<K> {
    fn drop(&mut self) {
        self.beside.keys.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
        self.beside.one_ended.notify_waiters();
    }
}
