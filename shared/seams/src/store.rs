//! The store: the truth of an installation.
//!
//! A record is bytes under a key, with a version. An index is a set of members in the order of their scores. Everything
//! changes by [`Store::commit`]: all of a batch or nothing, and only if its preconditions hold.

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
    /// Reads records, in the order of `keys`, as they were at one moment.
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

    /// Does all of `batch`, durably, or nothing.
    ///
    /// # Errors
    /// [`CommitError::Conflict`] when a precondition does not hold: nothing was done. After
    /// [`StoreError::Unavailable`] it may or may not have been done: read before trying again.
    async fn commit(&self, batch: Batch) -> Result<(), CommitError>;

    /// The store's clock: the only one that leases and limits are measured with.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn now(&self) -> Result<Timestamp, StoreError>;

    /// How full it is.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn room(&self) -> Result<Room, StoreError>;

    /// Tells when a commit touched a key. May tell more often than that, and loses nothing but time if it misses one:
    /// a reader looks again every few seconds.
    fn watch(&self, key: &Key) -> Watch;
}

/// A store that shows everything in it, to move it elsewhere.
#[async_trait]
pub trait Walk: Store {
    /// Sends everything that is stored, in pieces, each thing at least once and in no order. What others write
    /// meanwhile may be in it or not: for a whole picture nobody may. Ends early when nobody receives any more.
    ///
    /// # Errors
    /// [`WalkError`].
    async fn walk(&self, into: mpsc::Sender<Vec<Stored>>) -> Result<(), WalkError>;
}

/// A store could not be shown.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WalkError {
    /// The store's own.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A newer gantry wrote it.
    #[error(
        "there are records of the kind `{word}`, which this gantry does not know: use the one that wrote them"
    )]
    UnknownKind {
        /// The kind's word.
        word: String,
    },
}

/// One thing that a store holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stored {
    /// A record.
    Record(Key, Bytes),
    /// A member of an index.
    Entry(Index, Entry),
}

/// The store as everyone holds it.
pub type SharedStore = Arc<dyn Store>;

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $word:literal,)*) => {
        /// What a record is.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Kind {
            $($(#[$doc])* $name,)*
        }

        impl Kind {
            /// The word in the store.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)*
                }
            }

            /// The kind of a word; `None` if this build knows none.
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
    /// The installation itself.
    Installation = "installation",
    /// A counter.
    Counter = "counter",
    /// A registry.
    Registry = "registry",
    /// A task.
    Task = "task",
    /// A task as it was at a revision.
    TaskRevision = "task-revision",
    /// A hook.
    Hook = "hook",
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
    /// What a run was created for: the change, the instant or the request. Its value is the run's id.
    RunKey = "run-key",
    /// The last run that was admitted of a registry or task: each admission replaces it. Its value is the run's id.
    Admission = "admission",
    /// A ready run's secrets.
    Bundle = "bundle",
    /// A piece of a log that is not yet in the object store.
    LogTail = "log-tail",
    /// Who moved a tag last.
    Tag = "tag",
    /// The newest generation of a fact that moved a tag.
    TagFact = "tag-fact",
    /// Where a digest comes from.
    Lineage = "lineage",
    /// A worker.
    Worker = "worker",
    /// A worker is to take nothing more.
    Drain = "drain",
    /// When a pool was last served.
    Pool = "pool",
    /// An uploaded archive.
    Upload = "upload",
    /// A record that did not decode, kept for people.
    Quarantine = "quarantine",
    /// An archive is being read into this store: nothing may begin here.
    Import = "import",
}

/// A record's key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// What it is.
    pub kind: Kind,
    /// Which one.
    pub id: String,
}

impl Key {
    /// The `id` of its kind.
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

/// What stands under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Different after each put of this key, and larger.
    pub version: u64,
    /// What was put.
    pub bytes: Bytes,
}

/// The name of an index.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Index(String);

impl Index {
    /// An index by its path, like `runs/ready/linux-amd64`. Called only by the modules that own records.
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

/// A member of an index and its place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// The lowest comes first.
    pub score: i64,
    /// Unique in its index.
    pub member: String,
}

/// Where a range begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum From {
    /// At the first entry.
    Start,
    /// At the first entry with at least this score.
    Score(i64),
    /// After this entry, which need not be there any more.
    After(Entry),
}

/// Changes that happen together or not at all. At most a few hundred.
///
/// What it expects is compared with what was there before it. It removes before it writes, and of two writes to one place
/// the later one stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// What must hold.
    pub expect: Vec<(Key, Expect)>,
    /// Records to write.
    pub put: Vec<(Key, Bytes)>,
    /// Records to remove; one that is not there is no error.
    pub delete: Vec<Key>,
    /// Index entries to write; a member that is there already moves to its new score.
    pub index: Vec<(Index, Entry)>,
    /// Index entries to remove, by member; one that is not there is no error.
    pub unindex: Vec<(Index, String)>,
}

/// A precondition on one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// There is no such record.
    Absent,
    /// It has this version.
    Version(u64),
}

impl Batch {
    /// Writes a record that must not be there yet.
    pub fn create(&mut self, key: Key, bytes: impl Into<Bytes>) {
        self.expect.push((key.clone(), Expect::Absent));
        self.put.push((key, bytes.into()));
    }

    /// Writes a record that must be at `version`.
    pub fn replace(&mut self, key: Key, version: u64, bytes: impl Into<Bytes>) {
        self.expect.push((key.clone(), Expect::Version(version)));
        self.put.push((key, bytes.into()));
    }

    /// Writes a record whatever was there.
    pub fn put(&mut self, key: Key, bytes: impl Into<Bytes>) {
        self.put.push((key, bytes.into()));
    }

    /// Puts a member at a place of an index.
    pub fn index(&mut self, index: Index, score: i64, member: impl fmt::Display) {
        self.index.push((index, Entry { score, member: member.to_string() }));
    }

    /// Takes a member out of an index.
    pub fn unindex(&mut self, index: Index, member: impl fmt::Display) {
        self.unindex.push((index, member.to_string()));
    }

    /// Adds everything that another batch does and expects.
    pub fn append(&mut self, other: Self) {
        let Self { expect, put, delete, index, unindex } = other;
        self.expect.extend(expect);
        self.put.extend(put);
        self.delete.extend(delete);
        self.index.extend(index);
        self.unindex.extend(unindex);
    }

    /// Whether it does nothing.
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
    /// Bytes that are taken.
    pub used: u64,
    /// Bytes that may be taken; `None` if nobody said.
    pub most: Option<u64>,
}

impl Room {
    /// What is moved out to make room leaves from here on: bodies of deliveries.
    const TIGHT: f64 = 0.8;
    /// Nothing new comes in from here on, so that what goes on has room: hooks and uploads wait.
    const CLOSED: f64 = 0.95;

    /// Whether bodies are to leave early.
    #[must_use]
    pub fn is_tight(self) -> bool {
        self.share() >= Self::TIGHT
    }

    /// Whether what comes from outside is to be refused for now.
    #[must_use]
    pub fn is_closed(self) -> bool {
        self.share() >= Self::CLOSED
    }

    #[expect(clippy::cast_precision_loss, reason = "a share is rounded anyway")]
    fn share(self) -> f64 {
        self.most.map_or(0.0, |most| self.used as f64 / most.max(1) as f64)
    }
}

/// The store could not be asked.
#[derive(Debug, Clone, thiserror::Error)]
#[expect(missing_docs, reason = "the fields without a comment explain themselves")]
pub enum StoreError {
    /// It is away, or too slow. Trying again later is right.
    #[error("the store does not answer: {message}")]
    Unavailable {
        /// What the adapter knows.
        message: String,
    },
    /// It has no room.
    #[error("the store is full: free space, or shorten what is kept ({message})")]
    Full {
        /// What the adapter knows.
        message: String,
    },
    /// A record does not decode. It stands in quarantine, for people; see `gantry status`.
    #[error("the record {key} does not decode: {message}")]
    Undecodable { key: Key, message: String },
}

/// A batch was not committed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CommitError {
    /// A precondition did not hold. Nothing was done.
    #[error("{key} was changed by someone else")]
    Conflict {
        /// The first key whose precondition did not hold.
        key: Key,
    },
    /// The store's own.
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
            // The store is gone; whoever waits is about to learn that from the store itself.
            std::future::pending::<()>().await;
        }
    }
}

/// Who watches what, for adapters: a commit tells it the keys that it touched.
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

    /// What somebody still watches.
    #[must_use]
    pub fn watched(&self) -> Vec<Key> {
        let mut by_key = self.by_key.lock().unwrap_or_else(PoisonError::into_inner);
        by_key.retain(|_, sender| sender.receiver_count() > 0);
        by_key.keys().cloned().collect()
    }

    /// A commit touched `keys`.
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
