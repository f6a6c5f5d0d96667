//! Where pushed digests come from. Kept under the digest; the last push of a digest wins.

use gantry_domain::image::Digest;
use gantry_domain::lineage::Lineage;

use crate::codec;
use crate::store::{Batch, Index, Key, Kind, Store, StoreError};

/// Adds a lineage to a batch.
pub(crate) fn record(batch: &mut Batch, lineage: &Lineage) -> Result<(), StoreError> {
    let key = Key::new(Kind::Lineage, &lineage.digest);
    batch.put(key.clone(), codec::encode(&key, lineage)?);
    batch.index(
        Index::new("lineages"),
        lineage.pushed.as_millis(),
        &lineage.digest,
    );
    Ok(())
}

/// Reads where a digest comes from.
///
/// # Errors
/// [`StoreError`].
pub async fn find(store: &dyn Store, digest: &Digest) -> Result<Option<Lineage>, StoreError> {
    Ok(
        codec::load::<Lineage>(store, &Key::new(Kind::Lineage, digest))
            .await?
            .map(|l| l.value),
    )
}
