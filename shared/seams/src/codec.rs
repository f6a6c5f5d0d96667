//! Encodes records as one line of JSON with a version of their shape. Raw bytes may follow the line.
//!
//! Unknown fields are kept when a record is written again, so that an older build may run beside a newer one. A record
//! that does not decode is put into quarantine; it never causes a panic.

use std::str::FromStr;

use bytes::Bytes;
use gantry_domain::timestamp::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::store::{Batch, Entry, From, Index, Key, Kind, Record, Store, StoreError};

/// The version of the shape that this build writes.
const SHAPE: u64 = 1;

/// A decoded record, with what is needed to write it back.
#[derive(Debug, Clone, PartialEq)]
pub struct Versioned<T> {
    /// The decoded value.
    pub value: T,
    /// The record's version in the store.
    pub version: u64,
    unknown: Map<String, Value>,
}

impl<T: Serialize> Versioned<T> {
    /// Writes the value back, on condition that nobody changed the record since.
    pub(crate) fn replace_in(&self, batch: &mut Batch, key: Key) -> Result<(), StoreError> {
        let bytes = encode_with(&key, &self.value, &self.unknown)?;
        batch.replace(key, self.version, bytes);
        Ok(())
    }
}

/// Encodes a new record.
pub(crate) fn encode<T: Serialize>(key: &Key, value: &T) -> Result<Bytes, StoreError> {
    encode_with(key, value, &Map::new())
}

/// Like [`encode`], followed by `body`. [`Versioned::replace_in`] writes the record without the body.
pub(crate) fn encode_with_body<T: Serialize>(
    key: &Key,
    value: &T,
    body: &[u8],
) -> Result<Bytes, StoreError> {
    Ok([&encode(key, value)?, b"\n".as_slice(), body].concat().into())
}

/// The body of a record, if it has one.
pub(crate) fn body_of(record: &Record) -> Option<Bytes> {
    let end = end_of_line(&record.bytes)?;
    Some(record.bytes.slice(end + 1..))
}

/// The position of the first line feed. serde_json escapes line feeds in strings, so it ends the JSON.
fn end_of_line(bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|byte| *byte == b'\n')
}

fn encode_with<T: Serialize>(
    key: &Key,
    value: &T,
    unknown: &Map<String, Value>,
) -> Result<Bytes, StoreError> {
    #[derive(Serialize)]
    struct Shaped<'a, T> {
        v: u64,
        #[serde(flatten)]
        value: &'a T,
        #[serde(flatten)]
        unknown: &'a Map<String, Value>,
    }
    serde_json::to_vec(&Shaped { v: SHAPE, value, unknown })
        .map(Bytes::from)
        .map_err(|error| StoreError::Undecodable { key: key.clone(), message: error.to_string() })
}

/// Decodes a record that [`encode`] wrote, in this build or another.
pub(crate) fn decode<T: Serialize + DeserializeOwned>(
    key: &Key,
    record: &Record,
) -> Result<Versioned<T>, StoreError> {
    let undecodable = |message: String| StoreError::Undecodable { key: key.clone(), message };
    let line = record.bytes.get(..end_of_line(&record.bytes).unwrap_or(record.bytes.len()));
    let mut fields: Map<String, Value> = serde_json::from_slice(line.unwrap_or_default())
        .map_err(|error| undecodable(error.to_string()))?;
    match fields.remove("v").and_then(|v| v.as_u64()) {
        Some(1..=SHAPE) => {}
        Some(newer) => {
            return Err(undecodable(format!("it has shape {newer}; this build knows {SHAPE}")));
        }
        None => return Err(undecodable("it has no `v`".to_owned())),
    }
    let value: T = serde_json::from_value(Value::Object(fields.clone()))
        .map_err(|error| undecodable(error.to_string()))?;
    if let Ok(Value::Object(known)) = serde_json::to_value(&value) {
        fields.retain(|name, _| !known.contains_key(name));
    }
    Ok(Versioned { value, version: record.version, unknown: fields })
}

/// Reads one record. If it does not decode it is put into quarantine.
pub(crate) async fn load<T: Serialize + DeserializeOwned>(
    store: &dyn Store,
    key: &Key,
) -> Result<Option<Versioned<T>>, StoreError> {
    load_decoded(store, key).await?.map(|(_, decoded)| decoded).transpose()
}

/// Like [`load`], but a record that does not decode counts as `otherwise`, which can then replace it.
pub(crate) async fn load_or<T: Serialize + DeserializeOwned>(
    store: &dyn Store,
    key: &Key,
    otherwise: impl FnOnce() -> T,
) -> Result<Option<Versioned<T>>, StoreError> {
    let found = load_decoded(store, key).await?;
    Ok(found.map(|(version, decoded)| {
        decoded.unwrap_or_else(|_| Versioned { value: otherwise(), version, unknown: Map::new() })
    }))
}

/// A record's version, and what it decodes to. If it does not it is put into quarantine.
async fn load_decoded<T: Serialize + DeserializeOwned>(
    store: &dyn Store,
    key: &Key,
) -> Result<Option<(u64, Result<Versioned<T>, StoreError>)>, StoreError> {
    let mut found = store.load(std::slice::from_ref(key)).await?;
    let Some(record) = found.pop().flatten() else {
        return Ok(None);
    };
    let decoded = decode(key, &record);
    if let Err(error) = &decoded {
        quarantine(store, key, &record, error).await;
    }
    Ok(Some((record.version, decoded)))
}

/// Reads many records as one snapshot. Missing records are left out; so are those that do not decode, which are put
/// into quarantine.
pub(crate) async fn load_all<T: Serialize + DeserializeOwned>(
    store: &dyn Store,
    keys: &[Key],
) -> Result<Vec<Versioned<T>>, StoreError> {
    let mut values = Vec::with_capacity(keys.len());
    for (key, record) in keys.iter().zip(store.load(keys).await?) {
        let Some(record) = record else { continue };
        match decode(key, &record) {
            Ok(value) => values.push(value),
            Err(error) => quarantine(store, key, &record, &error).await,
        }
    }
    Ok(values)
}

/// Parses a record that is plain text instead of JSON. `what` names the type in errors. If it does not parse it is put
/// into quarantine.
pub(crate) async fn parse_text<T: FromStr>(
    store: &dyn Store,
    key: &Key,
    record: &Record,
    what: &str,
) -> Result<T, StoreError> {
    let text = std::str::from_utf8(&record.bytes).ok();
    if let Some(value) = text.and_then(|text| text.parse().ok()) {
        return Ok(value);
    }
    let error = StoreError::Undecodable { key: key.clone(), message: format!("it is no {what}") };
    quarantine(store, key, record, &error).await;
    Err(error)
}

/// Puts a record into quarantine. Logs it only the first time: loops read the same record every few seconds.
async fn quarantine(store: &dyn Store, key: &Key, record: &Record, error: &StoreError) {
    let kept = Key::new(Kind::Quarantine, key);
    let known =
        store.load(std::slice::from_ref(&kept)).await.ok().and_then(|mut found| found.pop());
    if known.flatten().is_some_and(|known| known.bytes == record.bytes) {
        return;
    }
    tracing::error!(record.key = %key, "{error}; it was put into quarantine");
    let mut batch = Batch::default();
    batch.put(kept, record.bytes.clone());
    let now = store.now().await.unwrap_or_default();
    batch.index(quarantined(), now.as_millis(), key);
    if let Err(error) = store.commit(batch).await {
        tracing::warn!(record.key = %key, "it could not be put into quarantine: {error}");
    }
}

/// How many records are in quarantine, counted up to `limit`.
///
/// # Errors
/// [`StoreError`].
pub(crate) async fn count_quarantined(
    store: &dyn Store,
    limit: usize,
) -> Result<usize, StoreError> {
    Ok(store.range(&quarantined(), From::Start, limit).await?.len())
}

/// Reads the records that an index names, starting at `from`, until `limit` of them decode: a record that does not
/// decode must not hide those after it. Fewer means that the index has no more.
pub(crate) async fn load_members<T: Serialize + DeserializeOwned>(
    store: &dyn Store,
    index: &Index,
    from: From,
    limit: usize,
    key: impl Fn(&Entry) -> Option<Key>,
) -> Result<Vec<T>, StoreError> {
    load_members_while(store, index, from, limit, |_| true, key).await
}

/// Like [`load_members`], up to the first entry that is not `within`.
pub(crate) async fn load_members_while<T: Serialize + DeserializeOwned>(
    store: &dyn Store,
    index: &Index,
    mut from: From,
    limit: usize,
    within: impl Fn(&Entry) -> bool,
    key: impl Fn(&Entry) -> Option<Key>,
) -> Result<Vec<T>, StoreError> {
    let mut values: Vec<T> = Vec::new();
    loop {
        let wanted = limit - values.len();
        let mut entries = store.range(index, from, wanted).await?;
        let end = entries.iter().position(|entry| !within(entry)).unwrap_or(entries.len());
        entries.truncate(end);
        let keys: Vec<Key> = entries.iter().filter_map(&key).collect();
        let loaded = load_all(store, &keys).await?;
        values.extend(loaded.into_iter().map(|found: Versioned<T>| found.value));
        match entries.into_iter().nth(wanted.saturating_sub(1)) {
            Some(last) if values.len() < limit => from = From::After(last),
            Some(_) | None => return Ok(values),
        }
    }
}

fn quarantined() -> Index {
    Index::new("quarantine")
}

/// The keys of records that did not decode, with the time of their quarantine, oldest first.
///
/// # Errors
/// [`StoreError`].
pub(crate) async fn list_quarantined(
    store: &dyn Store,
    limit: usize,
) -> Result<Vec<(String, Timestamp)>, StoreError> {
    let entries = store.range(&quarantined(), From::Start, limit).await?;
    Ok(entries
        .into_iter()
        .map(|entry| (entry.member, Timestamp::from_millis(entry.score)))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, serde::Deserialize)]
    struct Small {
        a: u8,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        b: Option<u8>,
    }

    fn read(text: &str) -> Result<Versioned<Small>, StoreError> {
        let record = Record { version: 7, bytes: Bytes::copy_from_slice(text.as_bytes()) };
        decode(&Key::new(Kind::Run, "ca1"), &record)
    }

    #[test]
    fn unknown_fields_are_kept() {
        let mut small = read(r#"{"v":1,"a":1,"b":2,"later":[3]}"#).unwrap();
        small.value.b = None;
        let mut batch = Batch::default();
        small.replace_in(&mut batch, Key::new(Kind::Run, "ca1")).unwrap();
        assert_eq!(batch.put[0].1, r#"{"v":1,"a":1,"later":[3]}"#);
    }

    #[test]
    fn an_undecodable_record_is_named_in_the_error() {
        for text in ["", "[]", "{}", r#"{"v":2,"a":1}"#, r#"{"v":1,"a":999}"#] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains("run/ca1"), "{error}");
        }
    }
}
