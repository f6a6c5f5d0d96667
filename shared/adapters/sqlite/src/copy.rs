//! A copy of a store that is in use.

use std::io;
use std::path::{Path, PathBuf};

use crate::database;
use crate::private;

/// Writes the store in `file`, as it is at one moment, to `copy`, which is made anew. Whoever uses the store goes on
/// meanwhile. The copy is whole and on the disk afterwards.
///
/// # Errors
/// [`CopyError`]. What is in `copy` then is no store.
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

/// Reads it to its end: a copy that cannot be used is best known now.
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

/// Why a store was not copied.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the fields without a comment explain themselves")]
pub enum CopyError {
    /// SQLite refused.
    #[error("{} cannot be copied", path.display())]
    Sqlite {
        path: PathBuf,
        /// What it said.
        source: rusqlite::Error,
    },
    /// The copy cannot be made.
    #[error("{} cannot be written", path.display())]
    File {
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The copy is not sound, so the store is not either, or the disk.
    #[error("{} is damaged ({found}): check the disks, and keep the former backup", path.display())]
    Damaged {
        path: PathBuf,
        /// What SQLite found.
        found: String,
    },
}
