//! The record of the installation: its id, and the keys that its secrets are sealed with. Also the health of its store.

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
    /// Random. Labels engine objects where several installations share an engine.
    pub id: String,
    /// When the installation was created.
    pub created: Timestamp,
    /// The keys that stored secrets may be sealed with. The first one seals.
    pub keys: Vec<KeyFingerprint>,
}

/// Reads the installation; `None` if it was not created yet.
///
/// # Errors
/// [`StoreError`].
pub async fn find(store: &dyn Store) -> Result<Option<Installation>, StoreError> {
    Ok(find_versioned(store).await?.map(|found| found.value))
}

/// Reads the installation, or creates it with `id`. Returns whether it was created now. From now on the first key of
/// `ring` seals.
///
/// # Errors
/// [`OpenError::KeyMissing`] if secrets may be sealed with a key that is not in the ring; nothing was changed.
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

/// The installation's keys once the first key of `ring` seals: that key first, then the others of `known`.
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

/// Removes all keys but `sealing` from the installation, once everything is sealed with it.
///
/// # Errors
/// [`OpenError::AnotherSeals`] if a process that seals with another key was started meanwhile; nothing was changed.
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

/// The installation could not be opened with these keys.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Secrets may be sealed with a key that is not in the ring.
    #[error(
        "it lacks key {missing}, with which stored secrets are sealed; it has {}: put the line of that key back, or take \
         the file that the other ingresses and schedulers use", listed(.ring)
    )]
    KeyMissing {
        /// The missing key.
        missing: KeyFingerprint,
        /// The keys in the ring.
        ring: Vec<KeyFingerprint>,
    },
    /// Another process seals with another key.
    #[error(
        "an ingress or scheduler was started that seals with key {other}: give all of them the same key file, start \
         them again, and then repeat this"
    )]
    AnotherSeals {
        /// The other key.
        other: KeyFingerprint,
    },
    /// An import into the store is unfinished.
    #[error(
        "an import into it was not completed: repeat `gantry store import` with the same folder"
    )]
    ImportUnfinished,
    /// An error from the store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Installation {
    /// Checks that a pool's key, derived from these keys of the service, opens what is sealed now.
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

/// A pool's key would not open the secrets of the pool's runs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PoolKeyRefused {
    /// It is not derived from the key that seals.
    #[error(
        "it is derived from key {}, and this installation seals with key {sealing}: make it anew with \
         `gantry secret pool-key`, with the key file of its ingresses and schedulers", listed(.derived_from)
    )]
    OtherKey {
        /// The key that seals.
        sealing: KeyFingerprint,
        /// The keys that the pool's key is derived from.
        derived_from: Vec<KeyFingerprint>,
    },
    /// No ingress or scheduler was started yet. Try again later.
    #[error("no ingress or scheduler has recorded its sealing key yet: start one")]
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

/// The keys of records that did not decode, with the time of their quarantine.
///
/// # Errors
/// [`StoreError`].
pub async fn quarantined(
    store: &dyn Store,
    limit: usize,
) -> Result<Vec<(String, Timestamp)>, StoreError> {
    codec::list_quarantined(store, limit).await
}

/// Checks that the store answers and accepts writes: with a full disk it may only serve reads. Changes nothing.
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

/// How many records are in quarantine, counted up to `limit`.
///
/// # Errors
/// [`StoreError`].
pub async fn count_quarantined(store: &dyn Store, limit: usize) -> Result<usize, StoreError> {
    codec::count_quarantined(store, limit).await
}
