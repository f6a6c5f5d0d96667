//! Facts, advanced by compare-and-set.

use gantry_domain::fact::{Fact, FactKey};

use crate::codec::{self, Versioned};
use crate::store::{Batch, Expect, Key, Kind, Store, StoreError};

fn key(fact: &FactKey) -> Key {
    Key::new(Kind::Fact, fact)
}

/// Reads a fact, to be handed to [`advance`].
///
/// # Errors
/// [`StoreError`].
pub async fn find(
    store: &dyn Store,
    fact: &FactKey,
) -> Result<Option<Versioned<Fact>>, StoreError> {
    codec::load(store, &key(fact)).await
}

/// Adds to a batch that `after` is so, if what was `found` is still what we know. When nothing changed, it only adds
/// that nothing changed.
///
/// # Errors
/// [`StoreError`].
pub fn advance(
    batch: &mut Batch,
    found: Option<&Versioned<Fact>>,
    after: &Fact,
) -> Result<(), StoreError> {
    let key = key(&after.key);
    match found {
        None => batch.create(key.clone(), codec::encode(&key, after)?),
        Some(found) if found.value == *after => {
            batch.expect.push((key, Expect::Version(found.version)));
        }
        Some(found) => {
            let mut next = found.clone();
            next.value = after.clone();
            next.replace_in(batch, key)?;
        }
    }
    Ok(())
}
