//! Enumerates everything under the prefix.
//!
//! `SCAN` returns names in no order and some of them twice, but certainly all that exist during the whole scan.

use async_trait::async_trait;
use bytes::Bytes;
use deadpool_redis::redis::cmd;
use gantry_seams::store::{
    From, Index, Key, Kind, Store as _, StoreError, Stored, Walk, WalkError,
};
use tokio::sync::mpsc::Sender;

use crate::store::{RedisStore, foreign};

/// How many names one call asks for.
const NAMES: usize = 256;
/// A record may be 1 MiB.
const RECORDS: usize = 64;
const ENTRIES: usize = 1024;

#[async_trait]
impl Walk for RedisStore {
    async fn walk(&self, into: Sender<Vec<Stored>>) -> Result<(), WalkError> {
        self.walk_all(&into).await
    }
}

impl RedisStore {
    async fn walk_all(&self, into: &Sender<Vec<Stored>>) -> Result<(), WalkError> {
        let mut cursor = 0;
        loop {
            let (next, ids) = self.scan(&self.names.records(), cursor).await?;
            let keys = ids.iter().map(|rest| key(rest)).collect::<Result<Vec<_>, _>>()?;
            for keys in keys.chunks(RECORDS) {
                let found = keys.iter().zip(self.load(keys).await?);
                let some = found
                    .filter_map(|(key, record)| Some(Stored::Record(key.clone(), record?.bytes)));
                if into.send(some.collect()).await.is_err() {
                    return Ok(());
                }
            }
            if next == 0 {
                break;
            }
            cursor = next;
        }
        let mut cursor = 0;
        loop {
            let (next, paths) = self.scan(&self.names.orders(), cursor).await?;
            for path in paths {
                if !self.walk_index(&Index::new(path), into).await? {
                    return Ok(());
                }
            }
            if next == 0 {
                return Ok(());
            }
            cursor = next;
        }
    }

    /// Returns whether the receiver still exists.
    async fn walk_index(
        &self,
        index: &Index,
        into: &Sender<Vec<Stored>>,
    ) -> Result<bool, StoreError> {
        let mut from = From::Start;
        loop {
            let entries = self.range(index, from, ENTRIES).await?;
            let Some(last) = entries.last() else { return Ok(true) };
            from = From::After(last.clone());
            let some = entries.into_iter().map(|entry| Stored::Entry(index.clone(), entry));
            if into.send(some.collect()).await.is_err() {
                return Ok(false);
            }
        }
    }

    /// The next names that begin with `beginning`, without it, and the next cursor: 0 at the end.
    async fn scan(&self, beginning: &str, cursor: u64) -> Result<(u64, Vec<String>), StoreError> {
        let mut question = cmd("SCAN");
        question.arg(cursor).arg("MATCH").arg(format!("{}*", literal(beginning)));
        question.arg("COUNT").arg(NAMES);
        let (next, names): (u64, Vec<Bytes>) = self.ask(&question).await?;
        let rest = |name: &Bytes| {
            let text = std::str::from_utf8(name).ok()?;
            text.strip_prefix(beginning).map(str::to_owned)
        };
        let rests = names.iter().map(|name| rest(name).ok_or_else(|| foreign(beginning)));
        Ok((next, rests.collect::<Result<_, _>>()?))
    }
}

fn key(kind_and_id: &str) -> Result<Key, WalkError> {
    let (word, id) = kind_and_id.split_once('/').ok_or_else(|| foreign(kind_and_id))?;
    let kind = Kind::of_word(word);
    let kind = kind.ok_or_else(|| WalkError::UnknownKind { word: word.to_owned() })?;
    Ok(Key::new(kind, id))
}

/// A glob pattern that matches exactly this text.
fn literal(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len());
    for character in text.chars() {
        if matches!(character, '*' | '?' | '[' | ']' | '\\' | '^') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern
}
