//! A store with a hook on every commit.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use gantry_domain::timestamp::Timestamp;
use gantry_seams::store::{
    Batch, CommitError, Entry, From, Index, Key, Record, Room, SharedStore, Store, StoreError,
    Watch,
};

/// A hook on commits and reads. By default it lets everything through.
#[async_trait]
pub trait CommitHook: Send + Sync {
    /// Called before records are read.
    fn before_load(&self, _keys: &[Key]) {}

    /// Called before the commit. On an error the batch is not committed, and the error is returned instead.
    async fn before(&self, _batch: &Batch) -> Result<(), CommitError> {
        Ok(())
    }

    /// Called after the commit, with the store's result; returns the result for the caller.
    async fn after(
        &self,
        _batch: &Batch,
        answer: Result<(), CommitError>,
    ) -> Result<(), CommitError> {
        answer
    }
}

/// A store whose commits pass a hook.
pub struct HookedStore<H> {
    store: SharedStore,
    hook: Arc<H>,
}

impl<H: CommitHook + 'static> HookedStore<H> {
    /// Wraps the store.
    #[must_use]
    pub fn shared(store: SharedStore, hook: Arc<H>) -> SharedStore {
        Arc::new(Self { store, hook })
    }
}

#[async_trait]
impl<H: CommitHook> Store for HookedStore<H> {
    async fn load(&self, keys: &[Key]) -> Result<Vec<Option<Record>>, StoreError> {
        self.hook.before_load(keys);
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
        self.hook.before(&batch).await?;
        let answer = self.store.commit(batch.clone()).await;
        self.hook.after(&batch, answer).await
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

/// Counts conflicting commits.
#[derive(Debug, Default)]
pub struct Conflicts(AtomicUsize);

impl Conflicts {
    /// The number of conflicts so far.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl CommitHook for Conflicts {
    async fn after(
        &self,
        _batch: &Batch,
        answer: Result<(), CommitError>,
    ) -> Result<(), CommitError> {
        if matches!(answer, Err(CommitError::Conflict { .. })) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
        answer
    }
}
