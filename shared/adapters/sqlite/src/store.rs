//! Implements the store.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gantry_domain::timestamp::Timestamp;
use gantry_seams::clock::Clock;
use gantry_seams::store::{
    Batch, CommitError, Entry, From, Index, Key, Record, Room, Store, StoreError, Stored, Walk,
    WalkError, Watch, Watchers,
};
use tempfile::TempDir;
use tokio::sync::mpsc::Sender;

use crate::clock::StoreClock;
use crate::database::{self, Durability, OpenError};
use crate::readers::Readers;
use crate::walk;
use crate::writer::Writer;

/// The options of a store.
#[derive(Debug, Clone)]
pub struct Options {
    /// The number of concurrent reads.
    pub readers: usize,
    /// The time limit of a request, after which it fails with [`StoreError::Unavailable`].
    pub patience: Duration,
    /// The most bytes of the file. A commit that needs more fails with [`StoreError::Full`].
    pub max_bytes: Option<u64>,
    /// The clock behind [`Store::now`].
    pub clock: Clock,
}

impl Default for Options {
    fn default() -> Self {
        Self { readers: 4, patience: Duration::from_secs(10), max_bytes: None, clock: Clock::Wall }
    }
}

/// A store in one SQLite file. Dropping it waits until the file is closed.
#[derive(Debug)]
pub struct SqliteStore {
    // Dropped in this order: the writer closes last and checkpoints the file.
    readers: Readers,
    writer: Writer,
    clock: Arc<StoreClock>,
    watchers: Arc<Watchers>,
    max_bytes: Option<u64>,
    _temporary: Option<TempDir>,
}

impl SqliteStore {
    /// Opens the store in `file`, and creates it if necessary. Only one process at a time may do so: see
    /// [`crate::DataDir`].
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(file: impl Into<PathBuf>, options: Options) -> Result<Self, OpenError> {
        Self::open_as(file.into(), options, Durability::Disk, None)
    }

    /// A store for tests, in a temporary directory, that does not wait for the disk.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn in_memory(options: Options) -> Result<Self, OpenError> {
        let directory = tempfile::tempdir()
            .map_err(|source| OpenError::File { path: std::env::temp_dir(), source })?;
        let file = directory.path().join("gantry.db");
        Self::open_as(file, options, Durability::None, Some(directory))
    }

    fn open_as(
        file: PathBuf,
        options: Options,
        durability: Durability,
        temporary: Option<TempDir>,
    ) -> Result<Self, OpenError> {
        let Options { readers, patience, max_bytes, clock } = options;
        let failed = |source| OpenError::of_sqlite(&file, source);
        let (connection, stored) = database::open_writer(&file, durability, max_bytes)?;
        let clock = Arc::new(StoreClock::start(clock, stored.clock));
        let watchers = Arc::new(Watchers::default());
        let readers = Readers::open(&file, readers, patience).map_err(failed)?;
        let writer = Writer::start(
            connection,
            stored.change,
            Arc::clone(&clock),
            Arc::clone(&watchers),
            patience,
        )
        .map_err(|source| OpenError::Thread { source })?
        .map_err(failed)?;
        Ok(Self { readers, writer, clock, watchers, max_bytes, _temporary: temporary })
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn load(&self, keys: &[Key]) -> Result<Vec<Option<Record>>, StoreError> {
        self.readers.load(keys).await
    }

    async fn range(
        &self,
        index: &Index,
        from: From,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        self.readers.range(index, from, limit).await
    }

    async fn commit(&self, batch: Batch) -> Result<(), CommitError> {
        self.writer.commit(batch).await
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        Ok(self.clock.now())
    }

    async fn room(&self) -> Result<Room, StoreError> {
        let used = self.readers.used_bytes().await?;
        Ok(Room { used, most: self.max_bytes })
    }

    fn watch(&self, key: &Key) -> Watch {
        self.watchers.watch(key)
    }
}

#[async_trait]
impl Walk for SqliteStore {
    async fn walk(&self, into: Sender<Vec<Stored>>) -> Result<(), WalkError> {
        walk::walk(&self.readers, &into).await
    }
}
