//! Opens the database file and creates its tables.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gantry_domain::timestamp::Timestamp;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

use crate::error::is_full;
use crate::private;

/// Earlier versions may corrupt the file if the write-ahead log is reset during a checkpoint by another connection.
const LEAST_SQLITE: i32 = 3_051_003;

/// The application id in SQLite's header: `gntr`.
const APPLICATION: i32 = 0x676e_7472;
const SCHEMA_VERSION: i32 = 1;

// Records are found through a small tree of keys and stored in a table in the order of writing, so that large ones do
// not bloat the tree. Entries are small and stored only in their two trees.
const SCHEMA: &str = "
    CREATE TABLE record (
        kind TEXT NOT NULL,
        id TEXT NOT NULL,
        version INTEGER NOT NULL,
        bytes BLOB NOT NULL,
        UNIQUE (kind, id)
    ) STRICT;
    CREATE TABLE entry (
        path TEXT NOT NULL,
        member TEXT NOT NULL,
        score INTEGER NOT NULL,
        PRIMARY KEY (path, member)
    ) STRICT, WITHOUT ROWID;
    CREATE UNIQUE INDEX entry_order ON entry (path, score, member);
    CREATE TABLE high_water (change INTEGER NOT NULL, clock INTEGER NOT NULL) STRICT;
    INSERT INTO high_water VALUES (0, 0);
";

/// How long a connection waits for the lock of another one, such as an operator's shell.
const BUSY: Duration = Duration::from_secs(5);

/// The minimum for later commits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HighWater {
    /// The number of the last change.
    pub(crate) change: i64,
    /// The store's clock at the last commit.
    pub(crate) clock: Timestamp,
}

/// What a commit survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// A power failure.
    Disk,
    /// A crash of the process, which is enough for tests.
    None,
}

/// Opens the connection that writes, and creates the file and its tables if necessary.
pub(crate) fn open_writer(
    file: &Path,
    durability: Durability,
    max_bytes: Option<u64>,
) -> Result<(Connection, HighWater), OpenError> {
    if rusqlite::version_number() < LEAST_SQLITE {
        return Err(OpenError::OldSqlite { version: rusqlite::version() });
    }
    make_file(file).map_err(|source| OpenError::of_system(file, source))?;

    let failed = |source| OpenError::of_sqlite(file, source);
    let mut connection =
        Connection::open_with_flags(file, flags(OpenFlags::SQLITE_OPEN_READ_WRITE))
            .map_err(failed)?;
    let (application, version) = identity(&connection).map_err(failed)?;
    match (application, version) {
        (0, 0) | (APPLICATION, SCHEMA_VERSION) => {}
        (APPLICATION, found) => {
            return Err(OpenError::Schema { path: file.to_owned(), found, known: SCHEMA_VERSION });
        }
        _ => {
            return Err(OpenError::Foreign { path: file.to_owned() });
        }
    }
    let mode = configure(&connection, durability, max_bytes).map_err(failed)?;
    if mode != "wal" {
        return Err(OpenError::NoWriteAheadLog { path: file.to_owned() });
    }
    if version == 0 {
        create_tables(&mut connection).map_err(failed)?;
    }
    let high_water = connection
        .query_row("SELECT change, clock FROM high_water", [], |row| {
            Ok(HighWater { change: row.get(0)?, clock: Timestamp::from_millis(row.get(1)?) })
        })
        .map_err(failed)?;
    Ok((connection, high_water))
}

pub(crate) fn open_reader(file: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(file, flags(OpenFlags::SQLITE_OPEN_READ_ONLY))?;
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "cache_size", -4_096)?; // KiB
    Ok(connection)
}

/// No two threads use a connection at once, so SQLite's mutexes are not needed. File names are not treated as URIs.
fn flags(access: OpenFlags) -> OpenFlags {
    access | OpenFlags::SQLITE_OPEN_NO_MUTEX
}

fn make_file(file: &Path) -> io::Result<()> {
    if let Some(parent) = file.parent() {
        private::create_directory(parent)?;
    }
    // SQLite gives its two side files the mode of this file.
    private::open_file(file)?;
    private::sync_directory_of(file)
}

fn identity(connection: &Connection) -> rusqlite::Result<(i32, i32)> {
    let application = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let version = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if (application, version) != (0, 0) {
        return Ok((application, version));
    }
    // An empty database can be used; one with foreign tables cannot.
    let tables: i32 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    Ok(if tables == 0 { (0, 0) } else { (0, -1) })
}

fn configure(
    connection: &Connection,
    durability: Durability,
    max_bytes: Option<u64>,
) -> rusqlite::Result<String> {
    connection.busy_timeout(BUSY)?;
    let mode = connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
    let synchronous = match durability {
        Durability::Disk => "full",
        Durability::None => "off",
    };
    connection.pragma_update(None, "synchronous", synchronous)?;
    // On macOS an ordinary fsync only reaches the drive's cache.
    connection.pragma_update(None, "fullfsync", durability == Durability::Disk)?;
    connection.pragma_update(None, "checkpoint_fullfsync", durability == Durability::Disk)?;
    connection.pragma_update(None, "cache_size", -16_384)?; // KiB
    // A checkpoint costs two fsyncs, so do one every 16 MiB instead of every 4.
    connection.pragma_update(None, "wal_autocheckpoint", 4_096)?; // pages
    connection.pragma_update(None, "journal_size_limit", 64 << 20)?; // bytes
    if let Some(most) = max_bytes {
        let page: i64 = connection.pragma_query_value(None, "page_size", |row| row.get(0))?;
        let pages = i64::try_from(most).unwrap_or(i64::MAX) / page.max(1);
        connection.pragma_update_and_check(None, "max_page_count", pages.max(1), |_| Ok(()))?;
    }
    Ok(mode)
}

fn create_tables(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = Transaction::new(connection, TransactionBehavior::Immediate)?;
    transaction.execute_batch(SCHEMA)?;
    transaction.pragma_update(None, "application_id", APPLICATION)?;
    transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    transaction.commit()
}

/// A store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The linked SQLite has a bug that may corrupt the file.
    #[error("SQLite {version} may corrupt its files: build with 3.51.3 or later")]
    OldSqlite {
        /// Its version.
        version: &'static str,
    },
    /// The file or its directory cannot be created.
    #[error("{} cannot be made", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The file is another application's database.
    #[error("{} is not a gantry store: choose another file", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The file was written by another version of gantry.
    #[error("{} has schema {found}, this gantry knows {known}: use the gantry that wrote it", path.display())]
    Schema {
        /// The file.
        path: PathBuf,
        /// The schema version of the file.
        found: i32,
        /// The schema version of this build.
        known: i32,
    },
    /// The file system does not support shared memory, which the write-ahead log needs.
    #[error("{} is on a file system without shared memory: use a local disk", path.display())]
    NoWriteAheadLog {
        /// The file.
        path: PathBuf,
    },
    /// The disk is full.
    #[error("the disk of {} is full: free some space there, then start again", path.display())]
    Full {
        /// The file.
        path: PathBuf,
        /// The error of the system or of SQLite.
        source: Box<dyn Error + Send + Sync>,
    },
    /// Another error of SQLite.
    #[error("{} cannot be opened", path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// The error.
        source: rusqlite::Error,
    },
    /// The writer's thread could not be started.
    #[error("the store's writer cannot be started")]
    Thread {
        /// The system's error.
        source: io::Error,
    },
}

impl OpenError {
    fn of_system(file: &Path, source: io::Error) -> Self {
        let path = file.to_owned();
        if source.kind() == io::ErrorKind::StorageFull {
            return Self::Full { path, source: source.into() };
        }
        Self::File { path, source }
    }

    pub(crate) fn of_sqlite(file: &Path, source: rusqlite::Error) -> Self {
        let path = file.to_owned();
        if is_full(&source) {
            return Self::Full { path, source: source.into() };
        }
        Self::Sqlite { path, source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_file_or_schema_is_refused_unchanged() {
        let directory = tempfile::tempdir().unwrap();
        let foreign = directory.path().join("foreign.db");
        Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE theirs (a)").unwrap();
        let error = open_writer(&foreign, Durability::None, None).unwrap_err();
        assert!(matches!(error, OpenError::Foreign { .. }), "{error}");

        let newer = directory.path().join("newer.db");
        let (connection, _) = open_writer(&newer, Durability::None, None).unwrap();
        connection.pragma_update(None, "user_version", SCHEMA_VERSION + 1).unwrap();
        drop(connection);
        let error = open_writer(&newer, Durability::None, None).unwrap_err();
        assert!(matches!(error, OpenError::Schema { found: 2, .. }), "{error}");
    }
}
