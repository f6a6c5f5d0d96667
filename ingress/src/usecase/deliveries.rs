//! Deliveries: the ledger, what each meant, and the same once more.

use bytes::Bytes;
use gantry_domain::delivery::Delivery;
use gantry_domain::event::Event;
use gantry_domain::hook::Provider;
use gantry_domain::id::{DeliveryId, EventId, HookId, RegistryName, RunPrefix, TokenId};
use gantry_domain::sealed::Sealed;
use gantry_ops::secret::{ExposeSecret as _, Keyring, SecretString};
use gantry_seams::decisions::{self, RecordedDecision};
use gantry_seams::deliveries::{self, List};
use gantry_seams::store::Store;
use gantry_seams::{events, hooks};

use super::hooks as hook_usecase;
use super::paging::{Listed, Paging};
use crate::access::{Allowed, Needs, Read, Run};
use crate::hooks::{find_body, replay as replay_delivery};
use crate::refusal::Refusal;
use crate::state::State;

/// How many hooks are read at once, to find the deliveries of an id.
const HOOKS_AT_ONCE: usize = 200;

/// Which deliveries.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) registry: Option<RegistryName>,
    pub(crate) hook: Option<HookId>,
    /// Of whichever hook that still exists.
    pub(crate) id: Option<DeliveryId>,
}

/// An event, and what was decided for it so far.
pub(crate) type Decided = (Event, Option<RecordedDecision>);

/// Lists deliveries from the newest.
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
    let lists = lists(allowed, wanted.hook.as_ref(), registry);
    let is_wanted = |delivery: &Delivery| {
        allowed.sees(delivery) && registry.is_none_or(|prefix| delivery.prefix == prefix)
    };
    if let Some(id) = &wanted.id {
        let mut items = with_id(state, allowed, wanted, id).await?;
        items.retain(is_wanted);
        return Ok(Listed { items, next: None });
    }
    let cursors = Cursors { keyring: &state.keyring, token: allowed.by() };
    let last = match &paging.after {
        Some(after) => Some(cursors.open(store, after).await?),
        None => None,
    };
    let limit = paging.limit();
    let mut found = deliveries::list(store, &lists, last.as_ref(), limit + 1).await?;
    // A hook is of one registry, and so are all of its deliveries.
    found.retain(is_wanted);
    let has_more = found.len() > limit;
    found.truncate(limit);
    let last = found.last().filter(|_| has_more);
    let next = last.map(|last| cursors.seal(last)).transpose()?;
    Ok(Listed { items: found, next })
}

/// The lists to read: none of them has a delivery of another registry.
fn lists<'a>(
    allowed: &Allowed<Read>,
    hook: Option<&'a HookId>,
    registry: Option<RunPrefix>,
) -> Vec<List<'a>> {
    match (hook, registry, allowed.bound_to()) {
        (Some(hook), _, _) => vec![List::Hook(hook)],
        (None, Some(registry), _) => vec![List::Registry(registry)],
        (None, None, None) => vec![List::All],
        (None, None, Some(registries)) => {
            registries.values().copied().map(List::Registry).collect()
        }
    }
}

/// Places in a list of deliveries. Each is sealed, and opens for the token alone that was shown it: no other learns from it
/// that a delivery exists.
struct Cursors<'a> {
    keyring: &'a Keyring,
    token: TokenId,
}

impl Cursors<'_> {
    fn sealed_for(&self) -> String {
        format!("cursor/deliveries/{}", self.token)
    }

    fn seal(&self, last: &Delivery) -> Result<String, Refusal> {
        let place = format!("{}/{}/{}", last.provider, last.hook, last.id);
        let sealed = self.keyring.seal(&self.sealed_for(), &SecretString::from(place))?;
        Ok(hex::encode(sealed.as_text()))
    }

    async fn open(&self, store: &dyn Store, text: &str) -> Result<Delivery, Refusal> {
        let refused = || {
            Refusal::invalid(
                "after",
                "it is no `next` of a list of deliveries that this token was shown, or too old: begin anew",
            )
        };
        let parse = || {
            let sealed = Sealed::from_text(String::from_utf8(hex::decode(text).ok()?).ok()?);
            let place = self.keyring.open(&self.sealed_for(), &sealed).ok()?;
            let mut parts = place.expose_secret().splitn(3, '/');
            let provider: Provider = parts.next()?.parse().ok()?;
            let hook: HookId = parts.next()?.parse().ok()?;
            let id: DeliveryId = parts.next()?.parse().ok()?;
            Some((provider, hook, id))
        };
        let (provider, hook, id) = parse().ok_or_else(refused)?;
        deliveries::find(store, provider, &hook, &id).await?.ok_or_else(refused)
    }
}

/// The deliveries of this id of all hooks that exist and the token sees, or of one.
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

/// Loads a delivery that the caller may see. Its hook may be gone.
pub(crate) async fn find<S: Needs>(
    state: &State,
    allowed: &Allowed<S>,
    hook: &HookId,
    id: &DeliveryId,
) -> Result<Delivery, Refusal> {
    let store = state.store.as_ref();
    for provider in Provider::ALL {
        if let Some(found) = deliveries::find(store, *provider, hook, id).await?
            && allowed.sees(&found)
        {
            return Ok(found);
        }
    }
    Err(Refusal::NotFound { what: "delivery", name: id.to_string() })
}

/// A delivery with its events and what was decided for each.
pub(crate) async fn show(
    state: &State,
    allowed: &Allowed<Read>,
    hook: &HookId,
    id: &DeliveryId,
) -> Result<(Delivery, Vec<Decided>), Refusal> {
    let store = state.store.as_ref();
    let delivery = find(state, allowed, hook, id).await?;
    let mut decided = Vec::with_capacity(delivery.events.len());
    for event in &delivery.events {
        if let Some(found) = events::find(store, event).await? {
            decided.push((found.value.event, decisions::find(store, event).await?));
        }
    }
    Ok((delivery, decided))
}

/// An event and what was decided for it.
pub(crate) async fn show_event(
    state: &State,
    allowed: &Allowed<Read>,
    id: &EventId,
) -> Result<Decided, Refusal> {
    let store = state.store.as_ref();
    let absent = || Refusal::NotFound { what: "event", name: id.to_string() };
    let found = events::find(store, id).await?.ok_or_else(absent)?;
    allowed.check(&found.value.event, "event", id)?;
    Ok((found.value.event, decisions::find(store, id).await?))
}

/// A delivery's body, as it came.
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

/// Takes a delivery's body as if it came now, as a new delivery that is decided anew.
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
