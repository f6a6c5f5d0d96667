//! The store: the source of truth of an installation.
//!
//! A record is bytes under a key, with a version. An index is a set of members ordered by score. All changes go through
//! [`Store::commit`], which applies a whole batch or nothing, and only if the batch's preconditions hold.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use gantry_domain::timestamp::Timestamp;
use tokio::sync::{mpsc, watch};

/// A transactional store of small records.
#[async_trait]
pub trait Store: Send + Sync {
    /// Reads records as one consistent snapshot, in the order of `keys`.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn load(&self, keys: &[Key]) -> Result<Vec<Option<Record>>, StoreError>;

    /// Reads at most `limit` entries of an index, in the order of (score, member).
    ///
    /// # Errors
    /// [`StoreError`].
    async fn range(
        &self,
        index: &Index,
        from: From,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError>;

    /// Applies all of `batch` durably, or nothing.
    ///
    /// # Errors
    /// [`CommitError::Conflict`] when a precondition does not hold; nothing was applied. After
    /// [`StoreError::Unavailable`] the batch may or may not have been applied: read before trying again.
    async fn commit(&self, batch: Batch) -> Result<(), CommitError>;

    /// The store's clock, the only one that leases and limits are measured with.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn now(&self) -> Result<Timestamp, StoreError>;

    /// How full the store is.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn room(&self) -> Result<Room, StoreError>;

    /// Notifies of commits that touch `key`. Spurious notifications are possible. A missed one only costs time, since
    /// readers poll every few seconds as well.
    fn watch(&self, key: &Key) -> Watch;
}

/// A store that can enumerate its contents, so that they can be moved elsewhere.
#[async_trait]
pub trait Walk: Store {
    /// Sends everything that is stored, in chunks, each item at least once and in no particular order. Concurrent
    /// writes may or may not be included: for a consistent copy nobody may write. Ends early when the receiver is
    /// dropped.
    ///
    /// # Errors
    /// [`WalkError`].
    async fn walk(&self, into: mpsc::Sender<Vec<Stored>>) -> Result<(), WalkError>;
}

/// Enumerating a store failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WalkError {
    /// An error from the store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store was written by a newer gantry.
    #[error(
        "there are records of the kind `{word}`, which this gantry does not know: use the one that wrote them"
    )]
    UnknownKind {
        /// The kind's word.
        word: String,
    },
}

/// One item in a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stored {
    /// A record.
    Record(Key, Bytes),
    /// A member of an index.
    Entry(Index, Entry),
}

/// A shared handle to the store.
pub type SharedStore = Arc<dyn Store>;

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $word:literal,)*) => {
        /// The kind of a record.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Kind {
            $($(#[$doc])* $name,)*
        }

        impl Kind {
            /// The kind's name in the store.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)*
                }
            }

            /// The kind with this name; `None` if this build knows none.
            #[must_use]
            pub fn of_word(word: &str) -> Option<Self> {
                match word {
                    $($word => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

kinds! {
    /// The installation.
    Installation = "installation",
    /// A counter.
    Counter = "counter",
    /// A registry.
    Registry = "registry",
    /// A task.
    Task = "task",
    /// A revision of a task.
    TaskRevision = "task-revision",
    /// The images that a task needs.
    TaskImages = "task-images",
    /// A hook.
    Hook = "hook",
    /// A secret of a registry, with its versions.
    Secret = "secret",
    /// An API token.
    Token = "token",
    /// A delivery.
    Delivery = "delivery",
    /// A delivery's body.
    DeliveryBody = "delivery-body",
    /// An event.
    Event = "event",
    /// A decision.
    Decision = "decision",
    /// A fact.
    Fact = "fact",
    /// A run.
    Run = "run",
    /// The steps of an attempt.
    Steps = "steps",
    /// Maps what a run was created for (the change, the instant or the request) to the run's id.
    RunKey = "run-key",
    /// The id of the last admitted run of a registry or task. Each admission replaces it.
    Admission = "admission",
    /// The sealed secrets of a ready run.
    Bundle = "bundle",
    /// A piece of a log that is not yet in the object store.
    LogTail = "log-tail",
    /// The writers of a tag.
    Tag = "tag",
    /// The newest generation of a fact that moved a tag.
    TagFact = "tag-fact",
    /// Where a pushed digest comes from.
    Lineage = "lineage",
    /// A tag that is watched for changes.
    ImageWatch = "image-watch",
    /// A registry that is not asked for now.
    RegistryPause = "registry-pause",
    /// What follows from a change of a base image.
    Wave = "wave",
    /// A task in a wave.
    WaveTask = "wave-task",
    /// A task that waves have reached, and that is not up to date yet.
    Node = "node",
    /// What the last successful run of a task used and made.
    LastBuild = "last-build",
    /// A worker.
    Worker = "worker",
    /// A request that a worker take no more runs.
    Drain = "drain",
    /// When a pool was last served.
    Pool = "pool",
    /// An uploaded archive.
    Upload = "upload",
    /// A report on its way to a code host.
    Outbox = "outbox",
    /// Who sends the reports of a commit now.
    OutboxTurn = "outbox-turn",
    /// When the repository of a task is looked at next.
    Watch = "watch",
    /// When a timer is due next.
    Timer = "timer",
    /// The webhook that gantry keeps at a code host.
    Provisioned = "provisioned",
    /// A notification of a registry.
    Notification = "notification",
    /// A message of a notification.
    Message = "message",
    /// A record that did not decode, kept for inspection.
    Quarantine = "quarantine",
    /// An import into this store is unfinished: no process may start on it.
    Import = "import",
}

/// A record's key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The kind of record.
    pub kind: Kind,
    /// The id, unique within its kind.
    pub id: String,
}

impl Key {
    /// The key of the record `id` of `kind`.
    #[must_use]
    pub fn new(kind: Kind, id: impl fmt::Display) -> Self {
        Self { kind, id: id.to_string() }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind.as_str(), self.id)
    }
}

/// A stored record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Increases with each put of this key.
    pub version: u64,
    /// The stored bytes.
    pub bytes: Bytes,
}

/// The name of an index.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Index(String);

impl Index {
    /// An index named by its path, like `runs/ready/linux-amd64`. Called only by the modules that own records.
    #[must_use]
    pub fn new(path: impl Into<String>) -> Self {
        Self(path.into())
    }

    /// The path.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A member of an index and its score.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Entries are in ascending order of score.
    pub score: i64,
    /// Unique within the index.
    pub member: String,
}

/// Where a range starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum From {
    /// At the first entry.
    Start,
    /// At the first entry with at least this score.
    Score(i64),
    /// After this entry, which may have been removed meanwhile.
    After(Entry),
}

/// Changes that are applied together or not at all; at most about a thousand.
///
/// Preconditions are checked against the state before the batch. Deletes apply before puts; of two puts to one place
/// the later one wins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// The preconditions.
    pub expect: Vec<(Key, Expect)>,
    /// Records to write.
    pub put: Vec<(Key, Bytes)>,
    /// Records to remove; a missing record is no error.
    pub delete: Vec<Key>,
    /// Index entries to write; an existing member moves to its new score.
    pub index: Vec<(Index, Entry)>,
    /// Index entries to remove, by member; a missing member is no error.
    pub unindex: Vec<(Index, String)>,
}

/// A precondition on one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// The record does not exist.
    Absent,
    /// The record has this version.
    Version(u64),
}

impl Batch {
    /// Writes a record that must not exist yet.
    pub fn create(&mut self, key: Key, bytes: impl Into<Bytes>) {
        self.expect.push((key.clone(), Expect::Absent));
        self.put.push((key, bytes.into()));
    }

    /// Writes a record that must be at `version`.
    pub fn replace(&mut self, key: Key, version: u64, bytes: impl Into<Bytes>) {
        self.expect.push((key.clone(), Expect::Version(version)));
        self.put.push((key, bytes.into()));
    }

    /// Writes a record without a precondition.
    pub fn put(&mut self, key: Key, bytes: impl Into<Bytes>) {
        self.put.push((key, bytes.into()));
    }

    /// Writes an index entry.
    pub fn index(&mut self, index: Index, score: i64, member: impl fmt::Display) {
        self.index.push((index, Entry { score, member: member.to_string() }));
    }

    /// Removes a member from an index.
    pub fn unindex(&mut self, index: Index, member: impl fmt::Display) {
        self.unindex.push((index, member.to_string()));
    }

    /// Appends all changes and preconditions of another batch.
    pub fn append(&mut self, other: Self) {
        let Self { expect, put, delete, index, unindex } = other;
        self.expect.extend(expect);
        self.put.extend(put);
        self.delete.extend(delete);
        self.index.extend(index);
        self.unindex.extend(unindex);
    }

    /// Whether the batch changes nothing. Preconditions do not count.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.put.is_empty()
            && self.delete.is_empty()
            && self.index.is_empty()
            && self.unindex.is_empty()
    }
}

/// How full a store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Bytes in use.
    pub used: u64,
    /// The capacity in bytes; `None` if no limit is known.
    pub most: Option<u64>,
}

impl Room {
    /// From this share on, deliveries' bodies are moved out to make room.
    const TIGHT: f64 = 0.8;
    /// From this share on, hooks and uploads are refused, so that running work has room.
    const CLOSED: f64 = 0.95;

    /// Whether bodies are to be moved out early.
    #[must_use]
    pub fn is_tight(self) -> bool {
        self.share() >= Self::TIGHT
    }

    /// Whether hooks and uploads are to be refused for now.
    #[must_use]
    pub fn is_closed(self) -> bool {
        self.share() >= Self::CLOSED
    }

    #[expect(clippy::cast_precision_loss, reason = "a share is rounded anyway")]
    fn share(self) -> f64 {
        self.most.map_or(0.0, |most| self.used as f64 / most.max(1) as f64)
    }
}

/// An operation of the store failed.
#[derive(Debug, Clone, thiserror::Error)]
#[expect(missing_docs, reason = "the fields without a comment explain themselves")]
pub enum StoreError {
    /// The store does not answer, or too slowly. Try again later.
    #[error("the store does not answer: {message}")]
    Unavailable {
        /// Details from the adapter.
        message: String,
    },
    /// The store is full.
    #[error("the store is full: free space, or shorten what is kept ({message})")]
    Full {
        /// Details from the adapter.
        message: String,
    },
    /// A record does not decode. It was put into quarantine; see `gantry status`.
    #[error("the record {key} does not decode: {message}")]
    Undecodable { key: Key, message: String },
}

/// A batch was not committed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CommitError {
    /// A precondition did not hold. Nothing was applied.
    #[error("{key} was changed by someone else")]
    Conflict {
        /// The first key whose precondition did not hold.
        key: Key,
    },
    /// An error from the store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Waits for commits that touch one key.
#[derive(Debug)]
pub struct Watch(watch::Receiver<u64>);

impl Watch {
    /// Returns after a commit that touched the key since the last call, or since the watch was made.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            // The store is gone; the caller's next read reports that.
            std::future::pending::<()>().await;
        }
    }
}

/// The watches of one store, for adapters to notify after each commit.
#[derive(Debug, Default)]
pub struct Watchers {
    by_key: Mutex<HashMap<Key, watch::Sender<u64>>>,
}

impl Watchers {
    /// A watch of `key`.
    #[must_use]
    pub fn watch(&self, key: &Key) -> Watch {
        let mut by_key = self.by_key.lock().unwrap_or_else(PoisonError::into_inner);
        by_key.retain(|_, sender| sender.receiver_count() > 0);
        let sender = by_key.entry(key.clone()).or_insert_with(|| watch::channel(0).0);
        Watch(sender.subscribe())
    }

    /// The keys that have a live watch.
    #[must_use]
    pub fn watched(&self) -> Vec<Key> {
        let mut by_key = self.by_key.lock().unwrap_or_else(PoisonError::into_inner);
        by_key.retain(|_, sender| sender.receiver_count() > 0);
        by_key.keys().cloned().collect()
    }

    /// Notifies the watches of `keys`, which a commit touched.
    pub fn touched<'a>(&self, keys: impl IntoIterator<Item = &'a Key>) {
        let by_key = self.by_key.lock().unwrap_or_else(PoisonError::into_inner);
        if by_key.is_empty() {
            return;
        }
        for key in keys {
            if let Some(sender) = by_key.get(key) {
                sender.send_modify(|count| *count += 1);
            }
        }
    }
}
