//! Copies a store that is in use.

use std::io;
use std::path::{Path, PathBuf};

use crate::database;
use crate::private;

/// Writes a snapshot of the store in `file` to `copy`, which is replaced. The store may be used meanwhile. On return
/// the copy is complete and on disk.
///
/// # Errors
/// [`CopyError`]: what is in `copy` then is not usable.
pub fn copy(file: &Path, copy: &Path) -> Result<(), CopyError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| CopyError::File { path, source }
    };
    match std::fs::remove_file(copy) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(copy)(error)),
        Ok(()) | Err(_) => {}
    }
    let target = private::open_file(copy).map_err(at(copy))?;
    let failed = |source| CopyError::Sqlite { path: file.to_owned(), source };
    let store = database::open_reader(file).map_err(failed)?;
    store.execute("VACUUM INTO ?1", [copy.to_string_lossy()]).map_err(failed)?;
    drop(store);
    check(copy)?;
    target.sync_all().map_err(at(copy))?;
    private::sync_directory_of(copy).map_err(at(copy))
}

/// Reads the whole copy, to find out now if it is not usable.
fn check(copy: &Path) -> Result<(), CopyError> {
    let failed = |source| CopyError::Sqlite { path: copy.to_owned(), source };
    let store = database::open_reader(copy).map_err(failed)?;
    let found: String =
        store.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(failed)?;
    if found == "ok" {
        return Ok(());
    }
    Err(CopyError::Damaged { path: copy.to_owned(), found })
}

/// A store could not be copied.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the fields without a comment explain themselves")]
pub enum CopyError {
    /// SQLite returned an error.
    #[error("{} cannot be copied", path.display())]
    Sqlite {
        path: PathBuf,
        /// The error.
        source: rusqlite::Error,
    },
    /// The copy cannot be written.
    #[error("{} cannot be written", path.display())]
    File {
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The copy is damaged, because the store or the disk is.
    #[error("{} is damaged ({found}): check the disks, and keep the former backup", path.display())]
    Damaged {
        path: PathBuf,
        /// SQLite's finding.
        found: String,
    },
}
