//! Reads: a few connections, off the async threads.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use gantry_seams::store::{Entry, From, Index, Key, Record, StoreError};
use rusqlite::{Connection, OptionalExtension, Row, params};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use crate::database;
use crate::error::{no_answer, store_error};

const LOAD: &str = "SELECT version, bytes FROM record WHERE kind = ?1 AND id = ?2";
const RANGE_FROM: &str = "SELECT score, member FROM entry WHERE path = ?1 AND score >= ?2
    ORDER BY score, member LIMIT ?3";
const RANGE_AFTER: &str = "SELECT score, member FROM entry
    WHERE path = ?1 AND (score, member) > (?2, ?3) ORDER BY score, member LIMIT ?4";

/// The connections for reads.
#[derive(Debug)]
pub(crate) struct Readers {
    /// One permit for each connection, so that a permit's holder finds an idle one.
    permits: Arc<Semaphore>,
    idle: Arc<Mutex<Vec<Connection>>>,
    patience: Duration,
}

impl Readers {
    pub(crate) fn open(file: &Path, count: usize, patience: Duration) -> rusqlite::Result<Self> {
        let connections = (0..count.max(1))
            .map(|_| database::open_reader(file))
            .collect::<rusqlite::Result<Vec<_>>>()?;
        Ok(Self {
            permits: Arc::new(Semaphore::new(connections.len())),
            idle: Arc::new(Mutex::new(connections)),
            patience,
        })
    }

    /// Reads all keys as one snapshot.
    pub(crate) async fn load(&self, keys: &[Key]) -> Result<Vec<Option<Record>>, StoreError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let keys = keys.to_vec();
        self.read(move |connection| load(connection, &keys)).await
    }

    pub(crate) async fn range(
        &self,
        index: &Index,
        from: From,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        let index = index.clone();
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.read(move |connection| range(connection, index.as_str(), from, limit)).await
    }

    /// The bytes of the file in use, without free pages.
    pub(crate) async fn used_bytes(&self) -> Result<u64, StoreError> {
        self.read(|connection| {
            let pragma = |name| connection.pragma_query_value(None, name, |row| row.get(0));
            let (pages, free, page): (i64, i64, i64) =
                (pragma("page_count")?, pragma("freelist_count")?, pragma("page_size")?);
            Ok(u64::try_from((pages - free) * page).unwrap_or(0))
        })
        .await
    }

    /// Waits for a connection and for the result, together no longer than `patience`. A read that timed out finishes in
    /// the background and then returns its connection.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let answer = async {
            let permit = self.permits.clone().acquire_owned().await.map_err(no_answer)?;
            let idle = Arc::clone(&self.idle);
            spawn_blocking(move || {
                let taken = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
                let Some(connection) = taken else {
                    return Err(no_answer("no connection is left to read with"));
                };
                let result = read(&connection).map_err(|error| store_error(&error));
                idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
                drop(permit);
                result
            })
            .await
            .map_err(no_answer)?
        };
        tokio::time::timeout(self.patience, answer).await.map_err(no_answer)?
    }
}

fn load(connection: &Connection, keys: &[Key]) -> rusqlite::Result<Vec<Option<Record>>> {
    // A single statement sees one snapshot; several need a transaction for that.
    let _snapshot = if keys.len() > 1 { Some(connection.unchecked_transaction()?) } else { None };
    let mut statement = connection.prepare_cached(LOAD)?;
    keys.iter()
        .map(|key| statement.query_row(params![key.kind.as_str(), key.id], record).optional())
        .collect()
}

fn record(row: &Row<'_>) -> rusqlite::Result<Record> {
    Ok(Record {
        version: row.get::<_, i64>(0)?.cast_unsigned(),
        bytes: Bytes::copy_from_slice(row.get_ref(1)?.as_blob()?),
    })
}

fn range(
    connection: &Connection,
    path: &str,
    from: From,
    limit: i64,
) -> rusqlite::Result<Vec<Entry>> {
    match from {
        From::Start => {
            let mut statement = connection.prepare_cached(RANGE_FROM)?;
            statement.query_map(params![path, i64::MIN, limit], entry)?.collect()
        }
        From::Score(score) => {
            let mut statement = connection.prepare_cached(RANGE_FROM)?;
            statement.query_map(params![path, score, limit], entry)?.collect()
        }
        From::After(after) => {
            let mut statement = connection.prepare_cached(RANGE_AFTER)?;
            statement.query_map(params![path, after.score, after.member, limit], entry)?.collect()
        }
    }
}

fn entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    Ok(Entry { score: row.get(0)?, member: row.get(1)? })
}
