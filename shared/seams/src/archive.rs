//! Exports a whole installation to files, and imports it into another store.
//!
//! `store.jsonl` has a header, a line for each record and each index entry, and a last line with their count.
//! `objects/` has every object under its own path. [`export`] needs stores that nobody writes to; [`import`] needs
//! empty ones. Keys are not included: sealed secrets stay sealed, and open wherever the same key file is used.

use std::path::PathBuf;

use gantry_domain::timestamp::Timestamp;
use serde::{Deserialize, Serialize};

use crate::blobs::BlobError;
use crate::store::{Key, Kind, Store, StoreError, WalkError};

mod export;
mod import;
mod line;

pub use export::export;
pub use import::import;

/// The format version that this build writes and reads.
const FORMAT: u32 = 1;

const RECORDS: &str = "store.jsonl";
const OBJECTS: &str = "objects";

/// Which installation was exported, and when. Identifies the archive when an import is resumed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Header {
    format: u32,
    gantry: String,
    installation: String,
    exported: Timestamp,
}

/// What was moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Moved {
    /// The number of records.
    pub records: u64,
    /// The number of index entries.
    pub entries: u64,
    /// The number of objects.
    pub objects: u64,
}

/// Whether an import into this store has begun and not finished.
///
/// # Errors
/// [`StoreError`].
pub async fn is_unfinished(store: &dyn Store) -> Result<bool, StoreError> {
    Ok(store.load(&[mark()]).await?.into_iter().flatten().next().is_some())
}

/// Exists while an import is unfinished. Its value is the archive's header.
fn mark() -> Key {
    Key::new(Kind::Import, "this")
}

/// An export or import failed.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the fields without a comment explain themselves")]
pub enum ArchiveError {
    /// The store has no installation.
    #[error("there is no installation in the store: nothing is exported")]
    NothingThere,
    /// The folder is not empty.
    #[error("{} is not empty: name a new folder", path.display())]
    FolderInUse {
        /// The folder.
        path: PathBuf,
    },
    /// The store already has an installation.
    #[error(
        "the store has installation {installation}: import into an empty one (another `store.prefix`, or another folder)"
    )]
    StoreInUse { installation: String },
    /// Another archive's import was begun and not finished.
    #[error(
        "an import of another archive was not completed, of installation {installation}: repeat that one, or take an \
         empty store"
    )]
    OtherUnfinished {
        /// Whose import was begun.
        installation: String,
    },
    /// The archive is malformed.
    #[error("{}, line {line}: {message}", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// What is wrong, and the remedy.
        message: String,
    },
    /// A file cannot be read or written.
    #[error("{}", path.display())]
    File {
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// An error while enumerating the store.
    #[error(transparent)]
    Walk(#[from] WalkError),
    /// An error from the store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An error from the object store.
    #[error(transparent)]
    Blob(#[from] BlobError),
}

/// Adds the path to a system error.
fn at(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> ArchiveError {
    let path = path.into();
    move |source| ArchiveError::File { path, source }
}
