//! A copy of the store while it is in use.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::{database, private};

/// Writes the whole store as it is at one moment, compacted, into a new file.
pub(crate) fn copy(file: &Path, to: &Path) -> Result<(), BackupError> {
    let unwritable = |source| BackupError::File { path: to.to_owned(), source };
    let copy = private::create_file(to).map_err(unwritable)?;
    let copied = vacuum(file, to)
        .map_err(|source| BackupError::Sqlite { path: to.to_owned(), source })
        .and_then(|()| copy.sync_all().map_err(unwritable))
        .and_then(|()| private::sync_directory_of(to).map_err(unwritable));
    if copied.is_err() {
        // Half a copy is worse than none; that it cannot be removed says no more than the error that is reported.
        let _ = fs::remove_file(to);
    }
    copied
}

fn vacuum(file: &Path, to: &Path) -> rusqlite::Result<()> {
    let Some(name) = to.to_str() else {
        return Err(rusqlite::Error::InvalidPath(to.to_owned()));
    };
    database::open_reader(file)?.execute("VACUUM INTO ?1", [name])?;
    Ok(())
}

/// Why a store could not be copied.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The copy cannot be made: it may be there already.
    #[error("{} cannot be written", path.display())]
    File {
        /// The copy.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// SQLite could not copy.
    #[error("the store cannot be copied to {}", path.display())]
    Sqlite {
        /// The copy.
        path: PathBuf,
        /// What it said.
        source: rusqlite::Error,
    },
}
