//! A store, and how many of its commits conflicted.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use gantry_domain::timestamp::Timestamp;
use gantry_seams::store::{
    Batch, CommitError, Entry, From, Index, Key, Record, Room, SharedStore, Store, StoreError,
    Watch,
};

/// The store, counted.
pub(crate) struct Counted {
    store: SharedStore,
    conflicts: Arc<AtomicUsize>,
}

impl Counted {
    /// Adds to `conflicts`, which several stores may share.
    pub(crate) fn new(store: SharedStore, conflicts: &Arc<AtomicUsize>) -> Self {
        Self { store, conflicts: Arc::clone(conflicts) }
    }
}

#[async_trait]
impl Store for Counted {
    async fn load(&self, keys: &[Key]) -> Result<Vec<Option<Record>>, StoreError> {
        self.store.load(keys).await
    }

    async fn range(
        &self,
        index: &Index,
        from: From,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        self.store.range(index, from, limit).await
    }

    async fn commit(&self, batch: Batch) -> Result<(), CommitError> {
        let committed = self.store.commit(batch).await;
        if matches!(committed, Err(CommitError::Conflict { .. })) {
            self.conflicts.fetch_add(1, Ordering::Relaxed);
        }
        committed
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        self.store.now().await
    }

    async fn room(&self) -> Result<Room, StoreError> {
        self.store.room().await
    }

    fn watch(&self, key: &Key) -> Watch {
        self.store.watch(key)
    }
}
