//! The installation itself: its id, and what is wrong with its store.

use gantry_domain::timestamp::Timestamp;
use serde::{Deserialize, Serialize};

use crate::codec;
use crate::store::{Batch, CommitError, Key, Kind, Store, StoreError};

/// The installation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Installation {
    /// Random, for labels in engines that several installations use.
    pub id: String,
    /// When it began.
    pub created: Timestamp,
}

/// Reads the installation, or begins it with `id`. Answers whether it began now.
///
/// # Errors
/// [`StoreError`].
pub async fn open(store: &dyn Store, id: &str) -> Result<(Installation, bool), StoreError> {
    let key = Key::new(Kind::Installation, "this");
    loop {
        if let Some(found) = codec::load(store, &key).await? {
            return Ok((found.value, false));
        }
        let new = Installation { id: id.to_owned(), created: store.now().await? };
        let mut batch = Batch::default();
        batch.create(key.clone(), codec::encode(&key, &new)?);
        match store.commit(batch).await {
            Ok(()) => return Ok((new, true)),
            Err(CommitError::Conflict { .. }) => {}
            Err(CommitError::Store(error)) => return Err(error),
        }
    }
}

/// The keys of records that did not decode, and since when.
///
/// # Errors
/// [`StoreError`].
pub async fn quarantined(
    store: &dyn Store,
    limit: usize,
) -> Result<Vec<(String, Timestamp)>, StoreError> {
    codec::list_quarantined(store, limit).await
}
