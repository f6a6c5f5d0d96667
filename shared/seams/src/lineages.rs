//! Where pushed digests come from. Kept under the digest; the last push of a digest wins.

use gantry_domain::image::Digest;
use gantry_domain::lineage::Lineage;
use gantry_domain::timestamp::Timestamp;

use crate::codec;
use crate::store::{Batch, From, Index, Key, Kind, Store, StoreError};

/// Adds a lineage to a batch.
pub(crate) fn record(batch: &mut Batch, lineage: &Lineage) -> Result<(), StoreError> {
    let key = Key::new(Kind::Lineage, &lineage.digest);
    batch.put(key.clone(), codec::encode(&key, lineage)?);
    batch.index(by_age(), lineage.pushed.as_millis(), &lineage.digest);
    Ok(())
}

/// Reads where a digest comes from.
///
/// # Errors
/// [`StoreError`].
pub async fn find(store: &dyn Store, digest: &Digest) -> Result<Option<Lineage>, StoreError> {
    Ok(codec::load::<Lineage>(store, &Key::new(Kind::Lineage, digest)).await?.map(|l| l.value))
}

/// Forgets lineages that were pushed before `before`, at most `limit`. Answers how many.
///
/// # Errors
/// [`StoreError`].
pub async fn forget(
    store: &dyn Store,
    before: Timestamp,
    limit: usize,
) -> Result<usize, StoreError> {
    let entries = store.range(&by_age(), From::Start, limit).await?;
    let mut batch = Batch::default();
    for entry in entries.iter().take_while(|entry| entry.score < before.as_millis()) {
        batch.delete.push(Key::new(Kind::Lineage, &entry.member));
        batch.unindex(by_age(), &entry.member);
    }
    let count = batch.delete.len();
    if count > 0 {
        crate::collection::commit_unconditional(store, batch).await?;
    }
    Ok(count)
}

fn by_age() -> Index {
    Index::new("lineages/age")
}
