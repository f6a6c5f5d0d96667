//! The order of deliveries: each registry has a ledger, from the newest.
//!
//! A ledger is two indexes, of the deliveries whose body is in the store and of those whose body is not. A delivery is in
//! one of them: a third, of all registries or of a hook, would be written with each accept. Lists of several registries
//! merge their ledgers; lists of a hook read past the other deliveries of its registry.

use futures_util::future::try_join_all;
use gantry_domain::delivery::Delivery;
use gantry_domain::id::{DeliveryId, HookId, RunPrefix};
use gantry_domain::timestamp::Timestamp;

use crate::codec;
use crate::collection::commit_unconditional;
use crate::store::{Batch, Entry, From, Index, Key, Store, StoreError};

/// How many entries [`list`] reads at most before it returns what it has found.
pub const MOST_READ: usize = 20_000;

/// How many entries are read at once when most may be of other hooks.
const SCAN: usize = 1_000;

/// How many deliveries are loaded at once: their bodies come with them.
const LOAD: usize = 64;

/// Where a delivery is in the lists.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Less for newer ones.
    score: i64,
    /// The time, the hook and the delivery. The time comes first so that new members are neighbours.
    member: String,
}

impl Place {
    fn of(delivery: &Delivery) -> Self {
        let (received, hook, id) = (delivery.received.as_millis(), &delivery.hook, &delivery.id);
        Self { score: -received, member: format!("{}/{hook}/{id}", sortable(received)) }
    }

    /// The place as a text, which [`Place::from_text`] reads.
    #[must_use]
    pub fn as_text(&self) -> &str {
        &self.member
    }

    /// Reads what [`Place::as_text`] gave; `None` if it is no place.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        let received: i64 = text.split_once('/')?.0.parse().ok()?;
        let place = Self { score: received.checked_neg()?, member: text.to_owned() };
        place.names().map(|_| place)
    }

    /// The hook and the delivery.
    fn names(&self) -> Option<(HookId, DeliveryId)> {
        let mut parts = self.member.splitn(3, '/').skip(1);
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    }

    fn of_entry(Entry { score, member }: Entry) -> Self {
        Self { score, member }
    }

    fn behind(&self) -> From {
        From::After(Entry { score: self.score, member: self.member.clone() })
    }

    fn is_of(&self, hook: &HookId) -> bool {
        self.member.split('/').nth(1) == Some(hook.as_str())
    }
}

/// A time whose order as a text is its order, until the year 2286.
pub(crate) fn sortable(millis: i64) -> String {
    format!("{millis:013}")
}

/// Part of a list, and where it goes on.
#[derive(Debug)]
pub struct Page {
    /// From the newest. May be fewer than asked for although the list goes on.
    pub items: Vec<Delivery>,
    /// `None` at the end.
    pub next: Option<Place>,
}

/// Deliveries of these registries from the newest, after `after`; of one hook only, if it is given.
///
/// # Errors
/// [`StoreError`].
pub async fn list(
    store: &dyn Store,
    registries: &[RunPrefix],
    hook: Option<&HookId>,
    after: Option<Place>,
    limit: usize,
) -> Result<Page, StoreError> {
    let of_registry = |registry: &RunPrefix| {
        [Part::WithBody, Part::WithoutBody].map(|part| part.index(*registry))
    };
    let indexes: Vec<Index> = registries.iter().flat_map(of_registry).collect();
    let (mut found, mut last, mut read) = (Vec::new(), after, 0);
    loop {
        let wanted = if hook.is_some() { SCAN } else { limit - found.len() };
        let mut places = merged(store, &indexes, last.as_ref(), wanted + 1).await?.into_iter();
        for place in places.by_ref().take(wanted) {
            read += 1;
            last = Some(place.clone());
            if hook.is_none_or(|hook| place.is_of(hook)) {
                found.push(place);
            }
            if found.len() == limit {
                break;
            }
        }
        let goes_on = places.next().is_some();
        if !goes_on || found.len() == limit || read >= MOST_READ {
            return Ok(Page { items: load(store, &found).await?, next: last.filter(|_| goes_on) });
        }
    }
}

/// The first places behind `after`, in the order that the indexes have together.
async fn merged(
    store: &dyn Store,
    indexes: &[Index],
    after: Option<&Place>,
    limit: usize,
) -> Result<Vec<Place>, StoreError> {
    let from = after.map_or(From::Start, Place::behind);
    let ranges = indexes.iter().map(|index| store.range(index, from.clone(), limit));
    let entries = try_join_all(ranges).await?.into_iter().flatten();
    let mut places: Vec<Place> = entries.map(Place::of_entry).collect();
    places.sort();
    places.truncate(limit);
    Ok(places)
}

async fn load(store: &dyn Store, places: &[Place]) -> Result<Vec<Delivery>, StoreError> {
    let mut deliveries = Vec::with_capacity(places.len());
    for some in places.chunks(LOAD) {
        let names = some.iter().filter_map(Place::names);
        let keys: Vec<Key> = names.map(|(hook, id)| super::key(&hook, &id)).collect();
        let loaded = codec::load_all(store, &keys).await?;
        deliveries.extend(loaded.into_iter().map(|found| found.value));
    }
    Ok(deliveries)
}

/// The two parts of a ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Deliveries whose body is in the store.
    WithBody,
    /// Deliveries whose body is in the object store, and conflicts, which have none.
    WithoutBody,
}

impl Part {
    fn index(self, registry: RunPrefix) -> Index {
        Index::new(match self {
            Self::WithBody => format!("deliveries/{registry}/with-body"),
            Self::WithoutBody => format!("deliveries/{registry}/without-body"),
        })
    }
}

/// Deliveries of one part of a ledger that came before `before`, from the newest of them, after `after`.
///
/// # Errors
/// [`StoreError`].
pub async fn older_than(
    store: &dyn Store,
    registry: RunPrefix,
    part: Part,
    before: Timestamp,
    after: Option<&Place>,
    limit: usize,
) -> Result<Page, StoreError> {
    let first = From::Score(1_i64.saturating_sub(before.as_millis()));
    let from = after.map_or(first, Place::behind);
    let entries = store.range(&part.index(registry), from, limit).await?;
    let places: Vec<Place> = entries.into_iter().map(Place::of_entry).collect();
    let next = places.last().filter(|_| places.len() == limit).cloned();
    Ok(Page { items: load(store, &places).await?, next })
}

/// A new delivery.
pub(super) fn enter(batch: &mut Batch, delivery: &Delivery, part: Part) {
    let Place { score, member } = Place::of(delivery);
    batch.index(part.index(delivery.prefix), score, member);
}

/// The body of a delivery leaves the store.
pub(super) fn lose_body(batch: &mut Batch, delivery: &Delivery) {
    batch.unindex(Part::WithBody.index(delivery.prefix), Place::of(delivery).member);
    enter(batch, delivery, Part::WithoutBody);
}

/// A delivery is deleted.
pub(super) fn leave(batch: &mut Batch, delivery: &Delivery) {
    for part in [Part::WithBody, Part::WithoutBody] {
        batch.unindex(part.index(delivery.prefix), Place::of(delivery).member);
    }
}

/// The deliveries of one registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ledger {
    /// Whose it is.
    pub registry: RunPrefix,
    /// When the registry was deleted, if it was.
    pub closed: Option<Timestamp>,
}

/// Every ledger; those of registries that exist come first.
///
/// # Errors
/// [`StoreError`].
pub async fn ledgers(store: &dyn Store) -> Result<Vec<Ledger>, StoreError> {
    let (mut ledgers, mut from) = (Vec::new(), From::Start);
    loop {
        let entries = store.range(&all(), from, SCAN).await?;
        ledgers.extend(entries.iter().filter_map(|entry| {
            let closed = (entry.score > 0).then(|| Timestamp::from_millis(entry.score));
            Some(Ledger { registry: entry.member.parse().ok()?, closed })
        }));
        match entries.into_iter().nth(SCAN - 1) {
            Some(last) => from = From::After(last),
            None => return Ok(ledgers),
        }
    }
}

/// A registry is created.
pub(crate) fn open_ledger(batch: &mut Batch, registry: RunPrefix) {
    batch.index(all(), 0, registry);
}

/// A registry is deleted. Its deliveries stay until they are old.
pub(crate) fn close_ledger(batch: &mut Batch, registry: RunPrefix, at: Timestamp) {
    batch.index(all(), at.as_millis(), registry);
}

/// Forgets the ledger of a deleted registry, if no delivery is in it.
///
/// # Errors
/// [`StoreError`].
pub async fn forget_ledger(store: &dyn Store, registry: RunPrefix) -> Result<(), StoreError> {
    for part in [Part::WithBody, Part::WithoutBody] {
        if !store.range(&part.index(registry), From::Start, 1).await?.is_empty() {
            return Ok(());
        }
    }
    let mut batch = Batch::default();
    batch.unindex(all(), registry);
    commit_unconditional(store, batch).await
}

/// The registries of the ledgers, each with the time at which it was deleted, or 0.
fn all() -> Index {
    Index::new("deliveries/ledgers")
}
