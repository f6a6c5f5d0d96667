//! Counts how often a store is read, and how much.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use gantry_domain::timestamp::Timestamp;
use gantry_seams::store::{
    Batch, CommitError, Entry, From, Index, Key, Record, Room, SharedStore, Store, StoreError,
    Watch,
};

/// The reads of a store since it was opened.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    questions: AtomicU64,
    things: AtomicU64,
}

impl Reads {
    /// The number of reads, and the number of returned records and index entries.
    pub(crate) fn so_far(&self) -> (u64, u64) {
        (self.questions.load(Ordering::Relaxed), self.things.load(Ordering::Relaxed))
    }

    fn add(&self, things: usize) {
        self.questions.fetch_add(1, Ordering::Relaxed);
        self.things.fetch_add(things as u64, Ordering::Relaxed);
    }
}

/// A store that counts its reads.
pub(crate) struct Watched {
    store: SharedStore,
    reads: Arc<Reads>,
}

impl Watched {
    /// Wraps `store`; also returns the counters.
    pub(crate) fn shared(store: SharedStore) -> (SharedStore, Arc<Reads>) {
        let reads = Arc::default();
        (Arc::new(Self { store, reads: Arc::clone(&reads) }), reads)
    }
}

#[async_trait]
impl Store for Watched {
    async fn load(&self, keys: &[Key]) -> Result<Vec<Option<Record>>, StoreError> {
        self.reads.add(keys.len());
        self.store.load(keys).await
    }

    async fn range(
        &self,
        index: &Index,
        from: From,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        let entries = self.store.range(index, from, limit).await?;
        self.reads.add(entries.len());
        Ok(entries)
    }

    async fn commit(&self, batch: Batch) -> Result<(), CommitError> {
        self.store.commit(batch).await
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
