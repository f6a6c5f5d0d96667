//! A whole installation as files, to move it into another store.
//!
//! `store.jsonl` has a header, a line for each record and each entry of an index, and an end that says how many there
//! are; `objects/` has every object under its own path. Both are written by [`export`] from stores that nobody changes
//! meanwhile, and read by [`import`] into ones that are empty. Keys are not in it: what is sealed stays sealed, and is
//! opened where the same key file is.

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

/// The form that this build writes and reads.
const FORMAT: u32 = 1;

const RECORDS: &str = "store.jsonl";
const OBJECTS: &str = "objects";

/// Which installation, and when. An import is known by it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Header {
    format: u32,
    gantry: String,
    installation: String,
    exported: Timestamp,
}

/// How much was moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Moved {
    /// Records.
    pub records: u64,
    /// Entries of indexes.
    pub entries: u64,
    /// Objects.
    pub objects: u64,
}

/// Whether an import into this store did not come to its end.
///
/// # Errors
/// [`StoreError`].
pub async fn is_unfinished(store: &dyn Store) -> Result<bool, StoreError> {
    Ok(store.load(&[mark()]).await?.into_iter().flatten().next().is_some())
}

/// Stands while an import goes on. Its value is the header of the archive.
fn mark() -> Key {
    Key::new(Kind::Import, "this")
}

/// An installation could not be moved.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the fields without a comment explain themselves")]
pub enum ArchiveError {
    /// Nothing has begun there.
    #[error("there is no installation in the store: nothing is exported")]
    NothingThere,
    /// The folder has something in it.
    #[error("{} is not empty: name a new folder", path.display())]
    FolderInUse {
        /// The folder.
        path: PathBuf,
    },
    /// There is an installation already.
    #[error(
        "the store has installation {installation}: import into an empty one (another `store.prefix`, or another folder)"
    )]
    StoreInUse { installation: String },
    /// Another archive was begun.
    #[error(
        "an import of another archive did not come to its end, of installation {installation}: repeat that one, or take an \
         empty store"
    )]
    OtherUnfinished {
        /// Of which installation.
        installation: String,
    },
    /// The archive is not what it should be.
    #[error("{}, line {line}: {message}", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: u64,
        /// What is wrong, and the remedy.
        message: String,
    },
    /// A file cannot be read or written.
    #[error("{}", path.display())]
    File {
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The store shows something that this build does not know.
    #[error(transparent)]
    Walk(#[from] WalkError),
    /// The store's own.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The object store's own.
    #[error(transparent)]
    Blob(#[from] BlobError),
}

/// Names the file that a system error is about.
fn at(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> ArchiveError {
    let path = path.into();
    move |source| ArchiveError::File { path, source }
}
