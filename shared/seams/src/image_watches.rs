//! The tags that gantry watches, and when each is asked for next.
//!
//! Each tag that tasks use has one watch, however many tasks use it; one that the credentials of a registry or of its tasks show
//! has a watch for that registry of gantry. Any number of schedulers may look: only the one that claims a watch asks.

use std::collections::BTreeSet;
use std::time::Duration;

use gantry_domain::id::{RegistryName, RunPrefix};
use gantry_domain::image::{ImageReference, RegistryHost};
use gantry_domain::image_watch::{ImageWatch, Watched};
use gantry_domain::timestamp::Timestamp;
use gantry_domain::tracked_image::{TagPolicies, TagPolicy, TrackedImage};
use serde::{Deserialize, Serialize};

use crate::codec::{self, Versioned};
use crate::store::{Batch, Entry, Expect, From, Index, Key, Kind, Store, StoreError};
use crate::{registries, retry};

/// How many watches of one repository are searched for policies. What is pushed there is found by the next look of others.
const MOST_OF_REPOSITORY: usize = 512;

/// The least time between two looks at one tag.
const APART: Duration = Duration::from_secs(1);

/// A registry that is not asked before some time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistryPause {
    /// The time.
    pub until: Timestamp,
    /// Why.
    pub why: String,
}

/// Begins to watch a tag, due at `now`. Does nothing if it is watched already.
///
/// # Errors
/// [`StoreError`].
pub async fn begin(store: &dyn Store, watched: &Watched, now: Timestamp) -> Result<(), StoreError> {
    let watch = ImageWatch::new(watched.clone(), now);
    let (key, mut batch) = (key(watched), Batch::default());
    batch.create(key.clone(), codec::encode(&key, &watch)?);
    batch.index(by_due(), now.as_millis(), watched.to_string());
    batch.index(all(), 0, watched.to_string());
    retry::once(store, batch).await.map(drop)
}

/// The watches that are due, the longest first, at most `limit`.
///
/// # Errors
/// [`StoreError`].
pub async fn due(
    store: &dyn Store,
    now: Timestamp,
    limit: usize,
) -> Result<Vec<Versioned<ImageWatch>>, StoreError> {
    let mut entries = store.range(&by_due(), From::Start, limit).await?;
    entries.retain(|entry| entry.score <= now.as_millis());
    let keys: Vec<Key> =
        entries.iter().map(|entry| Key::new(Kind::ImageWatch, &entry.member)).collect();
    let mut found: Vec<Versioned<ImageWatch>> = codec::load_all(store, &keys).await?;
    // Another scheduler may have claimed it since its entry was read.
    found.retain(|found| found.value.due <= now);
    Ok(found)
}

/// When the first watch is due.
///
/// # Errors
/// [`StoreError`].
pub async fn next_due(store: &dyn Store) -> Result<Option<Timestamp>, StoreError> {
    let first = store.range(&by_due(), From::Start, 1).await?.pop();
    Ok(first.map(|entry| Timestamp::from_millis(entry.score)))
}

/// Writes a watch as it was changed; its identity stays. Returns `None` if another scheduler has written it since it was
/// read, and else the watch to be written next.
///
/// # Errors
/// [`StoreError`].
pub async fn write(
    store: &dyn Store,
    found: Versioned<ImageWatch>,
) -> Result<Option<Versioned<ImageWatch>>, StoreError> {
    let mut batch = Batch::default();
    let watched = found.value.watched.clone();
    found.replace_in(&mut batch, key(&watched))?;
    batch.index(by_due(), found.value.due.as_millis(), watched.to_string());
    if !retry::once(store, batch).await? {
        return Ok(None);
    }
    let written = codec::load::<ImageWatch>(store, &key(&watched)).await?;
    Ok(written.filter(|written| written.value == found.value))
}

/// Makes a watch due after `pause`, if it is not due earlier, and no sooner than a second after it was asked for last: who
/// reports many pushes cannot use up what a registry allows. Returns whether there is such a watch.
///
/// # Errors
/// [`StoreError`].
pub async fn hasten(
    store: &dyn Store,
    watched: &Watched,
    pause: Duration,
) -> Result<bool, StoreError> {
    loop {
        let Some(mut found) = find(store, watched).await? else { return Ok(false) };
        let soonest = found.value.asked.map_or_else(Default::default, |at| at.after(APART));
        let due = store.now().await?.after(pause).max(soonest);
        if found.value.due <= due {
            return Ok(true);
        }
        found.value.due = due;
        if write(store, found).await?.is_some() {
            return Ok(true);
        }
    }
}

/// Reads a watch.
///
/// # Errors
/// [`StoreError`].
pub async fn find(
    store: &dyn Store,
    watched: &Watched,
) -> Result<Option<Versioned<ImageWatch>>, StoreError> {
    codec::load(store, &key(watched)).await
}

/// Reads watches, where they exist.
///
/// # Errors
/// [`StoreError`].
pub async fn find_all(
    store: &dyn Store,
    watched: &[Watched],
) -> Result<Vec<ImageWatch>, StoreError> {
    let keys: Vec<Key> = watched.iter().map(key).collect();
    let found: Vec<Versioned<ImageWatch>> = codec::load_all(store, &keys).await?;
    Ok(found.into_iter().map(|found| found.value).collect())
}

/// What may track an image: its tag, and the watched policies that it matches, of these registries of gantry and of those that
/// ask anonymously.
///
/// # Errors
/// [`StoreError`].
pub async fn tracking(
    store: &dyn Store,
    registries: &[RunPrefix],
    image: &ImageReference,
) -> Result<BTreeSet<TrackedImage>, StoreError> {
    let mut tracked: BTreeSet<TrackedImage> = TrackedImage::tag_of(image).into_iter().collect();
    let own = registries.iter().map(ToString::to_string);
    for by in own.chain(["-".to_owned()]) {
        let member = format!("{by}/{}/{}:", image.host(), image.repository());
        let from = From::After(Entry { score: 0, member: member.clone() });
        let entries = store.range(&all(), from, MOST_OF_REPOSITORY).await?;
        let own = entries.iter().filter(|entry| entry.member.starts_with(&member));
        let names = own.filter_map(|entry| entry.member.split_once('/'));
        let images = names.filter_map(|(_, image)| image.parse::<TrackedImage>().ok());
        tracked.extend(images.filter(|it| it.pattern().is_some() && it.may_be(image)));
    }
    Ok(tracked)
}

/// The policies that have chosen a tag for a registry of gantry, among these. Of an image with another policy, what its source
/// names is used: nobody has asked for its tags yet, none matches, or its changes count for no task.
///
/// # Errors
/// [`StoreError`].
pub async fn choosing(
    store: &dyn Store,
    registry: (&RegistryName, RunPrefix),
    policies: &TagPolicies,
) -> Result<BTreeSet<TrackedImage>, StoreError> {
    let (name, prefix) = registry;
    if policies.is_empty() {
        return Ok(BTreeSet::new());
    }
    let Some(registry) = registries::find_exactly(store, name, prefix).await? else {
        return Ok(BTreeSet::new());
    };
    let images = policies.as_slice().iter().map(TagPolicy::image);
    // Whether a task logs in there is not asked: then only one of the two has chosen a tag.
    let both = |image| [true, false].map(|logs_in| registry.watch_of(image, logs_in));
    let watched: BTreeSet<Watched> = images.flat_map(both).collect();
    let watched: Vec<Watched> = watched.into_iter().collect();
    let watches = find_all(store, &watched).await?;
    let chosen = watches.into_iter().filter(|watch| watch.chosen.is_some());
    Ok(chosen.map(|watch| watch.watched.image).collect())
}

/// Watches in the order of their names, after `after`, at most `limit`.
///
/// # Errors
/// [`StoreError`].
pub async fn list(
    store: &dyn Store,
    after: Option<&Watched>,
    limit: usize,
) -> Result<Vec<ImageWatch>, StoreError> {
    let from = after.map_or(From::Start, |watched| {
        From::After(Entry { score: 0, member: watched.to_string() })
    });
    codec::load_members(store, &all(), from, limit, |entry| {
        Some(Key::new(Kind::ImageWatch, &entry.member))
    })
    .await
}

/// Ends a watch that nothing uses any more. Does nothing if it has changed since it was read.
///
/// # Errors
/// [`StoreError`].
pub async fn forget(store: &dyn Store, found: &Versioned<ImageWatch>) -> Result<(), StoreError> {
    let watched = &found.value.watched;
    let mut batch = Batch::default();
    batch.expect.push((key(watched), Expect::Version(found.version)));
    batch.delete.push(key(watched));
    batch.unindex(by_due(), watched.to_string());
    batch.unindex(all(), watched.to_string());
    retry::once(store, batch).await.map(drop)
}

/// Until when a registry is not to be asked; `None` if it may be.
///
/// # Errors
/// [`StoreError`].
pub async fn pause_of(
    store: &dyn Store,
    host: &RegistryHost,
) -> Result<Option<RegistryPause>, StoreError> {
    let key = Key::new(Kind::RegistryPause, host);
    let found = codec::load::<RegistryPause>(store, &key).await?.map(|found| found.value);
    let now = store.now().await?;
    Ok(found.filter(|pause| pause.until > now))
}

/// Records that a registry is not to be asked for some time.
///
/// # Errors
/// [`StoreError`].
pub async fn pause(
    store: &dyn Store,
    host: &RegistryHost,
    pause: &RegistryPause,
) -> Result<(), StoreError> {
    let (key, mut batch) = (Key::new(Kind::RegistryPause, host), Batch::default());
    batch.put(key.clone(), codec::encode(&key, pause)?);
    retry::once(store, batch).await.map(drop)
}

fn key(watched: &Watched) -> Key {
    Key::new(Kind::ImageWatch, watched)
}

fn by_due() -> Index {
    Index::new("image-watches/due")
}

fn all() -> Index {
    Index::new("image-watches/all")
}
