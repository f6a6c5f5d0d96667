//! Batches for tests.

use gantry_seams::store::{Batch, Key, Kind, Record, Store, StoreError};

pub(crate) fn key(id: &str) -> Key {
    Key::new(Kind::Fact, id)
}

/// A batch that puts one record.
pub(crate) fn put(id: &str, bytes: impl Into<Vec<u8>>) -> Batch {
    let mut batch = Batch::default();
    batch.put(key(id), bytes.into());
    batch
}

pub(crate) async fn load(store: &dyn Store, id: &str) -> Result<Option<Record>, StoreError> {
    store.load(&[key(id)]).await.map(|mut found| found.remove(0))
}
