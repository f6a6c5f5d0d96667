//! The installation itself: its id, the keys that its secrets are sealed with, and what is wrong with its store.

use gantry_domain::sealed::KeyFingerprint;
use gantry_domain::timestamp::Timestamp;
use serde::{Deserialize, Serialize};

use crate::archive;
use crate::codec::{self, Versioned};
use crate::retry::{self, Plan};
use crate::store::{Batch, Key, Kind, Store, StoreError};

/// The installation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Installation {
    /// Random, for labels in engines that several installations use.
    pub id: String,
    /// When it began.
    pub created: Timestamp,
    /// The keys of the service that stored secrets may be sealed with; the first is the one that seals.
    pub keys: Vec<KeyFingerprint>,
}

/// Reads the installation; `None` if nobody has begun it.
///
/// # Errors
/// [`StoreError`].
pub async fn find(store: &dyn Store) -> Result<Option<Installation>, StoreError> {
    Ok(find_versioned(store).await?.map(|found| found.value))
}

/// Reads the installation, or begins it with `id`. Answers whether it began now. The first key of `ring` is from now on
/// the one that seals.
///
/// # Errors
/// [`OpenError::KeyMissing`] when something may be sealed with a key that is not in the ring: nothing was done.
pub async fn open(
    store: &dyn Store,
    id: &str,
    ring: &[KeyFingerprint],
) -> Result<(Installation, bool), OpenError> {
    retry::commit(store, &key(), || async {
        let mut batch = Batch::default();
        let (installation, begins) = match find_versioned(store).await? {
            Some(mut found) => {
                let keys = keys_with(&found.value.keys, ring)?;
                if keys == found.value.keys {
                    return Ok(Plan::Answer((found.value, false)));
                }
                found.value.keys = keys;
                found.replace_in(&mut batch, key())?;
                (found.value, false)
            }
            None => {
                if archive::is_unfinished(store).await? {
                    return Err(OpenError::ImportUnfinished);
                }
                let keys = ring.iter().take(1).cloned().collect();
                let created = store.now().await?;
                let id = id.to_owned();
                let new = Installation { id, created, keys };
                batch.create(key(), codec::encode(&key(), &new)?);
                (new, true)
            }
        };
        Ok(Plan::Commit(batch, (installation, begins)))
    })
    .await
}

/// The keys in use once `ring` seals, with its first key, beside those who seal with `known`.
fn keys_with(
    known: &[KeyFingerprint],
    ring: &[KeyFingerprint],
) -> Result<Vec<KeyFingerprint>, OpenError> {
    if let Some(missing) = known.iter().find(|key| !ring.contains(key)) {
        return Err(OpenError::KeyMissing { missing: missing.clone(), ring: ring.to_vec() });
    }
    let first = ring.iter().take(1);
    Ok(first.chain(known.iter().filter(|key| ring.first() != Some(key))).cloned().collect())
}

/// Everything is sealed with `sealing`: from now on a ring needs no other key.
///
/// # Errors
/// [`OpenError::AnotherSeals`] when a process began meanwhile that seals with another key: nothing was done.
pub async fn keep_only_key(store: &dyn Store, sealing: &KeyFingerprint) -> Result<(), OpenError> {
    retry::commit(store, &key(), || async {
        let Some(mut found) = find_versioned(store).await? else { return Ok(Plan::Answer(())) };
        if let Some(other) = found.value.keys.first().filter(|key| *key != sealing) {
            return Err(OpenError::AnotherSeals { other: other.clone() });
        }
        found.value.keys = vec![sealing.clone()];
        let mut batch = Batch::default();
        found.replace_in(&mut batch, key())?;
        Ok(Plan::Commit(batch, ()))
    })
    .await
}

/// The installation is not opened with these keys.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Something may be sealed with a key that is not there.
    #[error(
        "it lacks key {missing}, with which stored secrets are sealed; it has {}: put the line of that key back, or take \
         the file that the other ingresses and schedulers use", listed(.ring)
    )]
    KeyMissing {
        /// Which key.
        missing: KeyFingerprint,
        /// Which are there.
        ring: Vec<KeyFingerprint>,
    },
    /// Another process seals with another key.
    #[error(
        "an ingress or scheduler was started that seals with key {other}: give all of them the same key file, start \
         them again, and then repeat this"
    )]
    AnotherSeals {
        /// Which key.
        other: KeyFingerprint,
    },
    /// An archive was read into the store and not to its end.
    #[error(
        "an import into it did not come to its end: repeat `gantry store import` with the same folder"
    )]
    ImportUnfinished,
    /// The store's own.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Installation {
    /// Whether a pool's key that is derived from these keys of the service opens what is sealed now.
    ///
    /// # Errors
    /// [`PoolKeyRefused`].
    pub fn check_pool_key(&self, derived_from: &[KeyFingerprint]) -> Result<(), PoolKeyRefused> {
        let sealing = self.keys.first().ok_or(PoolKeyRefused::NobodySeals)?;
        if derived_from.contains(sealing) {
            return Ok(());
        }
        let (sealing, derived_from) = (sealing.clone(), derived_from.to_vec());
        Err(PoolKeyRefused::OtherKey { sealing, derived_from })
    }
}

/// A pool's key would not open the secrets of its runs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PoolKeyRefused {
    /// It is derived from other keys than the one that seals.
    #[error(
        "it is derived from key {}, and this installation seals with key {sealing}: make it anew with \
         `gantry secret pool-key`, with the key file of its ingresses and schedulers", listed(.derived_from)
    )]
    OtherKey {
        /// The key that seals.
        sealing: KeyFingerprint,
        /// Those that the pool's key is derived from.
        derived_from: Vec<KeyFingerprint>,
    },
    /// No ingress and no scheduler was started yet. Trying again later is right.
    #[error("no ingress and no scheduler has said yet with which key it seals: start one")]
    NobodySeals,
}

async fn find_versioned(store: &dyn Store) -> Result<Option<Versioned<Installation>>, StoreError> {
    codec::load(store, &key()).await
}

pub(crate) fn key() -> Key {
    Key::new(Kind::Installation, "this")
}

fn listed(keys: &[KeyFingerprint]) -> String {
    keys.iter().map(KeyFingerprint::as_str).collect::<Vec<_>>().join(", ")
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

/// Makes sure that the store answers, and takes what is written: one with a full disk only reads. Changes nothing.
///
/// # Errors
/// [`StoreError`].
pub async fn probe(store: &dyn Store) -> Result<(), StoreError> {
    let nothing = Key::new(Kind::Quarantine, "probe");
    store.load(std::slice::from_ref(&nothing)).await?;
    let mut batch = Batch::default();
    batch.delete.push(nothing);
    crate::collection::commit_unconditional(store, batch).await
}

/// How many records do not decode, counted up to `limit`.
///
/// # Errors
/// [`StoreError`].
pub async fn count_quarantined(store: &dyn Store, limit: usize) -> Result<usize, StoreError> {
    codec::count_quarantined(store, limit).await
}
