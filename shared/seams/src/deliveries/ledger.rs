//! Lists of deliveries: each registry has a ledger, newest first.
//!
//! A ledger has two indexes: deliveries whose body is in the store, and the others. Each delivery is in exactly one of
//! them. There is no index of all registries or of one hook, because each accept would have to write it. Instead, lists
//! of several registries merge their ledgers, and lists of one hook skip the other deliveries of its registry.

use futures_util::future::try_join_all;
use gantry_domain::delivery::Delivery;
use gantry_domain::id::{DeliveryId, HookId, RunPrefix};
use gantry_domain::timestamp::Timestamp;

use crate::codec;
use crate::collection::commit_unconditional;
use crate::due::sortable;
use crate::store::{Batch, Entry, From, Index, Key, Store, StoreError};

/// After this many entries [`list`] returns what it has found. It ends with the round over the ledgers that reaches it.
pub const MOST_READ: usize = 20_000;

/// How many entries are read at once if most of them may belong to other hooks.
const SCAN: usize = 1_000;

/// How many ledgers are read at once, so that a list of many registries takes bounded memory.
const LEDGERS: usize = 32;

/// How many deliveries are loaded at once. Their bodies are loaded with them.
const LOAD: usize = 64;

/// The position of a delivery in lists.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Smaller for newer deliveries.
    score: i64,
    /// The time, the hook and the delivery. The time comes first, so that new members are next to each other in the
    /// store.
    member: String,
}

impl Place {
    fn of(delivery: &Delivery) -> Self {
        let (received, hook, id) = (delivery.received.as_millis(), &delivery.hook, &delivery.id);
        Self { score: -received, member: format!("{}/{hook}/{id}", sortable(received)) }
    }

    /// The place as text; [`Place::from_text`] parses it.
    #[must_use]
    pub fn as_text(&self) -> &str {
        &self.member
    }

    /// Parses the text of [`Place::as_text`]; `None` if it is malformed.
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

/// A part of a list, and where the next part begins.
#[derive(Debug)]
pub struct Page {
    /// The newest first. May be fewer than requested although more follow.
    pub items: Vec<Delivery>,
    /// `None` at the end.
    pub next: Option<Place>,
}

/// Deliveries of these registries, newest first, after `after`; only those of `hook` if it is given.
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
    let (mut found, mut last, mut read) = (Vec::new(), after, 0);
    loop {
        let of_one_hook = hook.is_some() && registries.len() == 1;
        let wanted = if of_one_hook { SCAN } else { limit - found.len() };
        let (places, entries) = merged(store, registries, last.as_ref(), wanted + 1).await?;
        read += entries;
        let mut places = places.into_iter();
        for place in places.by_ref().take(wanted) {
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

/// The first `limit` places after `after`, merged from all ledgers in order, and how many entries were read for them.
async fn merged(
    store: &dyn Store,
    registries: &[RunPrefix],
    after: Option<&Place>,
    limit: usize,
) -> Result<(Vec<Place>, usize), StoreError> {
    let from = after.map_or(From::Start, Place::behind);
    let (mut places, mut read) = (Vec::new(), 0);
    // In this order, a delivery whose body is being moved is found at least once.
    for part in [Part::WithBody, Part::WithoutBody] {
        for some in registries.chunks(LEDGERS) {
            let ranges = some.iter().map(async |registry| {
                store.range(&part.index(*registry), from.clone(), limit).await
            });
            for entries in try_join_all(ranges).await? {
                read += entries.len();
                places.extend(entries.into_iter().map(Place::of_entry));
            }
            places.sort();
            places.dedup();
            places.truncate(limit);
        }
    }
    Ok((places, read))
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

/// Deliveries of one part of a ledger that were received before `before`, newest first, after `after`.
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

/// Adds a delivery to its ledger.
pub(super) fn enter(batch: &mut Batch, delivery: &Delivery, part: Part) {
    let Place { score, member } = Place::of(delivery);
    batch.index(part.index(delivery.prefix), score, member);
}

/// Moves a delivery to the part without bodies.
pub(super) fn lose_body(batch: &mut Batch, delivery: &Delivery) {
    batch.unindex(Part::WithBody.index(delivery.prefix), Place::of(delivery).member);
    enter(batch, delivery, Part::WithoutBody);
}

/// Removes a delivery from its ledger.
pub(super) fn leave(batch: &mut Batch, delivery: &Delivery) {
    for part in [Part::WithBody, Part::WithoutBody] {
        batch.unindex(part.index(delivery.prefix), Place::of(delivery).member);
    }
}

/// The deliveries of one registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ledger {
    /// The registry.
    pub registry: RunPrefix,
    /// When the registry was deleted, if it was.
    pub closed: Option<Timestamp>,
}

/// All ledgers; those of existing registries come first.
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

/// Opens the ledger of a new registry.
pub(crate) fn open_ledger(batch: &mut Batch, registry: RunPrefix) {
    batch.index(all(), 0, registry);
}

/// Closes the ledger of a registry that is deleted. Its deliveries are kept until retention removes them.
pub(crate) fn close_ledger(batch: &mut Batch, registry: RunPrefix, at: Timestamp) {
    batch.index(all(), at.as_millis(), registry);
}

/// Removes the ledger of a deleted registry, if it is empty.
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

/// The registries that have a ledger, each with the time of its deletion, or 0.
fn all() -> Index {
    Index::new("deliveries/ledgers")
}
