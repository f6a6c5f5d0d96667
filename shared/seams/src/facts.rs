//! Facts, advanced by compare-and-set.

use std::collections::{BTreeMap, HashMap};

use gantry_domain::decide::bases;
use gantry_domain::fact::{Fact, FactKey};
use gantry_domain::id::{RegistryName, RunPrefix};
use gantry_domain::image_version::ImageVersion;
use gantry_domain::lineage::BaseImage;
use gantry_domain::platform::Platform;
use gantry_domain::pull_request::PullRequestVersion;
use gantry_domain::recipe::Recipe;
use gantry_domain::source::RepositoryKey;
use gantry_domain::tracked_image::TrackedImage;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec::{self, Versioned};
use crate::image_watches;
use crate::place::Place;
use crate::store::{Batch, Expect, From, Index, Key, Kind, Store, StoreError};

/// How many facts one request to the store reads.
const READ_AT_ONCE: usize = 256;

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

/// Reads facts, each to be handed to [`advance`]. Those that do not exist are left out.
///
/// # Errors
/// [`StoreError`].
pub async fn find_all<V: Value>(
    store: &dyn Store,
    facts: &[FactKey],
) -> Result<HashMap<FactKey, Versioned<Fact<V>>>, StoreError> {
    let keys: Vec<Key> = facts.iter().map(key).collect();
    let mut found = HashMap::with_capacity(keys.len());
    for keys in keys.chunks(READ_AT_ONCE) {
        let facts: Vec<Versioned<Fact<V>>> = codec::load_all(store, keys).await?;
        found.extend(facts.into_iter().map(|fact| (fact.value.key.clone(), fact)));
    }
    Ok(found)
}

/// The images that the policies of a recipe have chosen for its platforms, in place of the tags in its source.
///
/// # Errors
/// [`StoreError`].
pub async fn followed(
    store: &dyn Store,
    registry: (&RegistryName, RunPrefix),
    recipe: &Recipe,
) -> Result<Vec<BaseImage>, StoreError> {
    let choosing = image_watches::choosing(store, registry, &recipe.follows).await?;
    let keyed = choosing.into_iter().flat_map(|image| {
        let of_platform = |platform: &Platform| {
            (FactKey::image(registry.0, platform, &image), (image.clone(), platform.clone()))
        };
        recipe.platforms.iter().map(of_platform).collect::<Vec<_>>()
    });
    let keyed: Vec<(FactKey, (TrackedImage, Platform))> = keyed.collect();
    let keys: Vec<FactKey> = keyed.iter().map(|(key, _)| key.clone()).collect();
    let mut found = find_all::<ImageVersion>(store, &keys).await?;
    let known = keyed.into_iter().filter_map(|(key, of)| Some((of, found.remove(&key)?.value)));
    Ok(bases::followed(&recipe.follows, &known.collect()))
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

/// The facts of the open pull requests of a place, by number, at most `limit`.
///
/// # Errors
/// [`StoreError`].
pub async fn open_pull_requests(
    store: &dyn Store,
    place: &Place,
    limit: usize,
) -> Result<BTreeMap<u64, Versioned<Fact<PullRequestVersion>>>, StoreError> {
    let entries = store.range(&open_at(place), From::Start, limit).await?;
    let facts: Vec<FactKey> =
        entries.iter().filter_map(|entry| entry.member.parse().ok()).collect();
    let found = find_all(store, &facts).await?;
    let numbered = |(key, fact): (FactKey, _)| Some((key.pull_request_number()?, fact));
    Ok(found.into_iter().filter_map(numbered).collect())
}

/// Adds to a batch with a fact whether it is one of an open pull request of the place. Does nothing for other facts.
pub fn list_if_open<V: Value>(batch: &mut Batch, place: &Place, fact: &Fact<V>) {
    match (fact.key.pull_request_number(), &fact.value) {
        (Some(_), Some(_)) => batch.index(open_at(place), 0, &fact.key),
        (Some(_), None) => batch.unindex(open_at(place), &fact.key),
        (None, _) => {}
    }
}

fn open_at(place: &Place) -> Index {
    Index::new(format!("facts/open-pulls/{}", place.member()))
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
