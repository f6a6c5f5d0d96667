//! Lists, shows and replays deliveries.

use bytes::Bytes;
use gantry_domain::delivery::Delivery;
use gantry_domain::event::Event;
use gantry_domain::id::{DeliveryId, EventId, HookId, RegistryName, RunPrefix, TokenId};
use gantry_domain::sealed::Sealed;
use gantry_ops::secret::{ExposeSecret as _, Keyring, SecretString};
use gantry_seams::decisions::{self, RecordedDecision};
use gantry_seams::deliveries::{self, Place};
use gantry_seams::store::{Store, StoreError};
use gantry_seams::{events, hooks};

use super::hooks as hook_usecase;
use super::paging::{Listed, Paging};
use crate::access::{Allowed, Needs, Read, Run};
use crate::hooks::{find_body, replay as replay_delivery};
use crate::refusal::Refusal;
use crate::state::State;

/// How many hooks are read at once to find the deliveries with one id.
const HOOKS_AT_ONCE: usize = 200;

/// The filter of a list of deliveries.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) registry: Option<RegistryName>,
    pub(crate) hook: Option<HookId>,
    /// Finds deliveries to existing hooks only.
    pub(crate) id: Option<DeliveryId>,
}

/// An event and its decision so far.
pub(crate) type Decided = (Event, Option<RecordedDecision>);

/// Lists deliveries, newest first.
pub(crate) async fn list(
    state: &State,
    allowed: &Allowed<Read>,
    wanted: &Wanted,
    paging: &Paging,
) -> Result<Listed<Delivery>, Refusal> {
    let store = state.store.as_ref();
    let registry = match &wanted.registry {
        None => None,
        Some(name) => Some(allowed.registry(store, name).await?.prefix),
    };
    let is_wanted = |delivery: &Delivery| {
        allowed.sees(delivery) && registry.is_none_or(|prefix| delivery.prefix == prefix)
    };
    if let Some(id) = &wanted.id {
        let mut items = with_id(state, allowed, wanted, id).await?;
        items.retain(is_wanted);
        return Ok(Listed { items, next: None });
    }
    let cursors = Cursors { keyring: &state.keyring, token: allowed.by() };
    let after = paging.after.as_deref().map(|after| cursors.open(after)).transpose()?;
    let registries = ledgers(store, allowed, wanted.hook.as_ref(), registry).await?;
    let hook = wanted.hook.as_ref();
    let page = deliveries::list(store, &registries, hook, after, paging.limit()).await?;
    let next = page.next.map(|place| cursors.seal(&place)).transpose()?;
    // Only ledgers of the token's registries are read. Checked again, since a page must never show other deliveries.
    let items = page.items.into_iter().filter(is_wanted).collect();
    Ok(Listed { items, next })
}

/// The registries whose ledgers are read: only those that the token is bound to, if it is bound.
async fn ledgers(
    store: &dyn Store,
    allowed: &Allowed<Read>,
    hook: Option<&HookId>,
    registry: Option<RunPrefix>,
) -> Result<Vec<RunPrefix>, StoreError> {
    let mut registries = match (registry, allowed.bound_to()) {
        (Some(registry), _) => vec![registry],
        (None, Some(registries)) => registries.values().copied().collect(),
        (None, None) => {
            let ledgers = deliveries::ledgers(store).await?;
            ledgers.into_iter().map(|ledger| ledger.registry).collect()
        }
    };
    // A hook belongs to one registry, and so do its deliveries. A deleted hook may have belonged to any.
    if let Some(hook) = hook
        && let Some(hook) = hooks::find(store, hook).await?
    {
        registries.retain(|registry| *registry == hook.prefix);
    }
    Ok(registries)
}

/// Seals places in a list of deliveries as `next` cursors. A cursor opens only for the token that received it, so that
/// others cannot use it to find out whether a delivery exists.
struct Cursors<'a> {
    keyring: &'a Keyring,
    token: TokenId,
}

impl Cursors<'_> {
    fn sealed_for(&self) -> String {
        format!("cursor/deliveries/{}", self.token)
    }

    fn seal(&self, place: &Place) -> Result<String, Refusal> {
        let place = SecretString::from(place.as_text().to_owned());
        let sealed = self.keyring.seal(&self.sealed_for(), &place)?;
        Ok(hex::encode(sealed.as_text()))
    }

    fn open(&self, text: &str) -> Result<Place, Refusal> {
        let open = || {
            let sealed = Sealed::from_text(String::from_utf8(hex::decode(text).ok()?).ok()?);
            let place = self.keyring.open(&self.sealed_for(), &sealed).ok()?;
            Place::from_text(place.expose_secret())
        };
        open().ok_or_else(|| {
            Refusal::invalid(
                "after",
                "it is no `next` of a list of deliveries that this token received: begin anew",
            )
        })
    }
}

/// The deliveries with this id, to one hook or to all existing hooks that the token sees.
async fn with_id(
    state: &State,
    allowed: &Allowed<Read>,
    wanted: &Wanted,
    id: &DeliveryId,
) -> Result<Vec<Delivery>, Refusal> {
    let store = state.store.as_ref();
    if let Some(hook) = &wanted.hook {
        let hook = hooks::find(store, hook).await?;
        return Ok(deliveries::with_id(store, hook.as_slice(), id).await?);
    }
    let registries: Vec<Option<&RegistryName>> = match (&wanted.registry, allowed.bound_to()) {
        (Some(registry), _) => vec![Some(registry)],
        (None, None) => vec![None],
        (None, Some(registries)) => registries.keys().map(Some).collect(),
    };
    let mut found = Vec::new();
    for registry in registries {
        let mut after: Option<HookId> = None;
        loop {
            let some = hooks::list(store, registry, after.as_ref(), HOOKS_AT_ONCE).await?;
            found.extend(deliveries::with_id(store, &some, id).await?);
            match some.into_iter().nth(HOOKS_AT_ONCE - 1) {
                Some(last) => after = Some(last.id),
                None => break,
            }
        }
    }
    Ok(found)
}

/// Loads a delivery that the caller may see. Its hook may have been deleted.
pub(crate) async fn find<S: Needs>(
    state: &State,
    allowed: &Allowed<S>,
    hook: &HookId,
    id: &DeliveryId,
) -> Result<Delivery, Refusal> {
    let store = state.store.as_ref();
    deliveries::find(store, hook, id)
        .await?
        .filter(|found| allowed.sees(found))
        .ok_or_else(|| Refusal::NotFound { what: "delivery", name: id.to_string() })
}

/// A delivery with its events and their decisions.
pub(crate) async fn show(
    state: &State,
    allowed: &Allowed<Read>,
    hook: &HookId,
    id: &DeliveryId,
) -> Result<(Delivery, Vec<Decided>), Refusal> {
    let store = state.store.as_ref();
    let delivery = find(state, allowed, hook, id).await?;
    let mut decided = Vec::with_capacity(delivery.meaning.len());
    for event in delivery.events() {
        let decision = decisions::find(store, &event.id).await?;
        decided.push((event, decision));
    }
    Ok((delivery, decided))
}

/// An event and its decision.
pub(crate) async fn show_event(
    state: &State,
    allowed: &Allowed<Read>,
    id: &EventId,
) -> Result<Decided, Refusal> {
    let store = state.store.as_ref();
    let absent = || Refusal::NotFound { what: "event", name: id.to_string() };
    let event = events::find(store, id).await?.ok_or_else(absent)?;
    allowed.check(&event, "event", id)?;
    Ok((event, decisions::find(store, id).await?))
}

/// A delivery's body, byte for byte.
pub(crate) async fn body(
    state: &State,
    allowed: &Allowed<Read>,
    hook: &HookId,
    id: &DeliveryId,
) -> Result<Bytes, Refusal> {
    let delivery = find(state, allowed, hook, id).await?;
    find_body(state, &delivery).await?.ok_or_else(|| Refusal::NotFound {
        what: "body of delivery",
        name: delivery.id.to_string(),
    })
}

/// Records a delivery's body as a new delivery, which gets decisions of its own.
pub(crate) async fn replay(
    state: &State,
    allowed: &Allowed<Run>,
    hook: &HookId,
    id: &DeliveryId,
) -> Result<Delivery, Refusal> {
    let delivery = find(state, allowed, hook, id).await?;
    let hook = hook_usecase::find(state, allowed, &delivery.hook).await?;
    replay_delivery(state, &hook, &delivery).await
}
