//! The file: how it is opened, and what tables it has.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gantry_domain::timestamp::Timestamp;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

use crate::error::is_full;
use crate::private;

/// Earlier ones may corrupt a file when the write-ahead log is reset while another connection moves it into the file.
const LEAST_SQLITE: i32 = 3_051_003;

/// What SQLite's header calls our files: `gntr`.
const APPLICATION: i32 = 0x676e_7472;
const SCHEMA_VERSION: i32 = 1;

// Records are found by a small tree of keys and lie in a table in the order of writing, so a large one spreads nobody's
// pages. Entries are small and live in their two trees alone.
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

/// How long a connection waits for someone else's, like an operator's shell.
const BUSY: Duration = Duration::from_secs(5);

/// What no later commit may fall behind.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HighWater {
    /// The number of the last change.
    pub(crate) change: i64,
    /// The store's clock at the last commit.
    pub(crate) clock: Timestamp,
}

/// Whether a commit waits for the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// It survives a power cut.
    Disk,
    /// It survives the process, which is more than a test asks.
    None,
}

/// Opens the connection that writes, and makes the file and its tables if they are not there.
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

/// Opens a connection that only reads.
pub(crate) fn open_reader(file: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(file, flags(OpenFlags::SQLITE_OPEN_READ_ONLY))?;
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "cache_size", -4_096)?; // KiB
    Ok(connection)
}

/// No connection is used by two threads at once, so SQLite need not guard them; and no name is a URI.
fn flags(access: OpenFlags) -> OpenFlags {
    access | OpenFlags::SQLITE_OPEN_NO_MUTEX
}

fn make_file(file: &Path) -> io::Result<()> {
    if let Some(parent) = file.parent() {
        private::create_directory(parent)?;
    }
    // SQLite gives its two side files the mode of this one.
    private::open_file(file)?;
    private::sync_directory_of(file)
}

fn identity(connection: &Connection) -> rusqlite::Result<(i32, i32)> {
    let application = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let version = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if (application, version) != (0, 0) {
        return Ok((application, version));
    }
    // An empty file is ours to fill; one with somebody's tables is not.
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
    // macOS answers an ordinary fsync from the drive's cache.
    connection.pragma_update(None, "fullfsync", durability == Durability::Disk)?;
    connection.pragma_update(None, "checkpoint_fullfsync", durability == Durability::Disk)?;
    connection.pragma_update(None, "cache_size", -16_384)?; // KiB
    // Moving the log into the file costs two fsyncs: do it each 16 MiB instead of each 4.
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

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The SQLite that is linked in is not to be trusted with a write-ahead log.
    #[error("SQLite {version} may corrupt its files: build with 3.51.3 or later")]
    OldSqlite {
        /// Its version.
        version: &'static str,
    },
    /// The file or its directory cannot be made.
    #[error("{} cannot be made", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is somebody else's database.
    #[error("{} is not a gantry store: choose another file", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// Another version of gantry wrote it.
    #[error("{} has schema {found}, this gantry knows {known}: use the gantry that wrote it", path.display())]
    Schema {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: i32,
        /// Ours.
        known: i32,
    },
    /// Its file system cannot share memory between connections.
    #[error("{} is on a file system without shared memory: use a local disk", path.display())]
    NoWriteAheadLog {
        /// The file.
        path: PathBuf,
    },
    /// Its disk is full.
    #[error("the disk of {} is full: free some space there, then start again", path.display())]
    Full {
        /// The file.
        path: PathBuf,
        /// What the system or SQLite said.
        source: Box<dyn Error + Send + Sync>,
    },
    /// SQLite refused.
    #[error("{} cannot be opened", path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// What it said.
        source: rusqlite::Error,
    },
    /// The system gave no thread.
    #[error("the store's writer cannot be started")]
    Thread {
        /// What the system said.
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
    fn a_file_of_another_program_or_of_another_schema_is_left_alone() {
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
