//! Enumerates the whole file, page by page.

use bytes::Bytes;
use gantry_seams::store::{Entry, Index, Key, Kind, Stored, WalkError};
use rusqlite::{Connection, params};
use tokio::sync::mpsc::Sender;

use crate::readers::Readers;

/// A record may be 1 MiB.
const RECORDS: i64 = 64;
const ENTRIES: i64 = 1024;

/// Sends all records, then all index entries.
pub(crate) async fn walk(readers: &Readers, into: &Sender<Vec<Stored>>) -> Result<(), WalkError> {
    let mut after_row = 0;
    loop {
        let (last, records) =
            readers.read(move |connection| records(connection, after_row)).await?;
        let Some(last) = last else { break };
        after_row = last;
        if into.send(known(records)?).await.is_err() {
            return Ok(());
        }
    }
    let mut after = (String::new(), String::new());
    loop {
        let from = after.clone();
        let entries = readers.read(move |connection| entries(connection, &from)).await?;
        let Some(Stored::Entry(index, entry)) = entries.last() else { return Ok(()) };
        after = (index.as_str().to_owned(), entry.member.clone());
        if into.send(entries).await.is_err() {
            return Ok(());
        }
    }
}

struct Row {
    kind: String,
    id: String,
    bytes: Vec<u8>,
}

fn records(connection: &Connection, after: i64) -> rusqlite::Result<(Option<i64>, Vec<Row>)> {
    let mut statement = connection.prepare_cached(
        "SELECT rowid, kind, id, bytes FROM record WHERE rowid > ?1 ORDER BY rowid LIMIT ?2",
    )?;
    let mut rows = statement.query(params![after, RECORDS])?;
    let (mut last, mut found) = (None, Vec::new());
    while let Some(row) = rows.next()? {
        last = Some(row.get(0)?);
        found.push(Row { kind: row.get(1)?, id: row.get(2)?, bytes: row.get(3)? });
    }
    Ok((last, found))
}

fn known(rows: Vec<Row>) -> Result<Vec<Stored>, WalkError> {
    let record = |row: Row| match Kind::of_word(&row.kind) {
        Some(kind) => Ok(Stored::Record(Key::new(kind, row.id), Bytes::from(row.bytes))),
        None => Err(WalkError::UnknownKind { word: row.kind }),
    };
    rows.into_iter().map(record).collect()
}

fn entries(connection: &Connection, after: &(String, String)) -> rusqlite::Result<Vec<Stored>> {
    let mut statement = connection.prepare_cached(
        "SELECT path, member, score FROM entry WHERE (path, member) > (?1, ?2) ORDER BY path, member LIMIT ?3",
    )?;
    let entries = statement.query_map(params![after.0, after.1, ENTRIES], |row| {
        let entry = Entry { member: row.get(1)?, score: row.get(2)? };
        Ok(Stored::Entry(Index::new(row.get::<_, String>(0)?), entry))
    })?;
    entries.collect()
}
