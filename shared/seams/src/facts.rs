//! Facts, advanced by compare-and-set.

use gantry_domain::fact::{Fact, FactKey};
use gantry_domain::id::RegistryName;
use gantry_domain::source::RepositoryKey;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec::{self, Versioned};
use crate::store::{Batch, Expect, From, Index, Key, Kind, Store, StoreError};

/// The value of a fact.
pub trait Value: Clone + PartialEq + Serialize + DeserializeOwned + Send + Sync {}

impl<V: Clone + PartialEq + Serialize + DeserializeOwned + Send + Sync> Value for V {}

fn key(fact: &FactKey) -> Key {
    Key::new(Kind::Fact, fact)
}

/// Reads a fact, to be handed to [`advance`].
///
/// # Errors
/// [`StoreError`].
pub async fn find<V: Value>(
    store: &dyn Store,
    fact: &FactKey,
) -> Result<Option<Versioned<Fact<V>>>, StoreError> {
    codec::load(store, &key(fact)).await
}

/// The facts of the branches of a repository, at most `limit`.
///
/// # Errors
/// [`StoreError`].
pub async fn of_repository(
    store: &dyn Store,
    registry: &RegistryName,
    repository: &RepositoryKey,
    limit: usize,
) -> Result<Vec<Fact>, StoreError> {
    let index = in_scope(&FactKey::repository_scope(registry, repository));
    codec::load_members(store, &index, From::Start, limit, |entry| {
        Some(Key::new(Kind::Fact, &entry.member))
    })
    .await
}

fn in_scope(scope: &str) -> Index {
    Index::new(format!("facts/{scope}"))
}

/// Adds to a batch that `after` is so, if what was `found` is still what we know. When nothing changed, it only adds
/// that nothing changed.
///
/// # Errors
/// [`StoreError`].
pub fn advance<V: Value>(
    batch: &mut Batch,
    found: Option<&Versioned<Fact<V>>>,
    after: &Fact<V>,
) -> Result<(), StoreError> {
    let key = key(&after.key);
    match found {
        None => {
            batch.create(key.clone(), codec::encode(&key, after)?);
            batch.index(in_scope(after.key.scope()), 0, &after.key);
        }
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
