//! Deliveries: the ledger, what each meant, and the same once more.

use actix_web::http::header;
use actix_web::web::{Data, Json, Path as At, Query};
use actix_web::{HttpResponse, get, post};
use gantry_api as types;
use gantry_domain::delivery::Delivery;
use gantry_domain::hook::Provider;
use gantry_domain::id::{DeliveryId, EventId, HookId, RegistryName, TokenId};
use gantry_domain::sealed::Sealed;
use gantry_ops::secret::{ExposeSecret as _, Keyring, SecretString};
use gantry_seams::deliveries::{self, List};
use gantry_seams::store::{Store, StoreError};
use gantry_seams::{decisions, events, hooks};
use serde::Deserialize;
use utoipa::IntoParams;

use super::hooks as hook_routes;
use super::paging::PageQuery;
use crate::access::{Allowed, Needs, Read, Run};
use crate::error::{ApiError, Failures};
use crate::hooks::{find_body, replay as replay_delivery};
use crate::state::State;
use crate::view;

/// How many hooks are read at once, to find the deliveries of an id.
const HOOKS_AT_ONCE: usize = 200;

/// Which deliveries.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct DeliveryQuery {
    /// Of this registry only.
    #[param(value_type = Option<String>)]
    registry: Option<RegistryName>,
    /// Of this hook only.
    #[param(value_type = Option<String>)]
    hook: Option<HookId>,
    /// With this id only, of whichever hook that still exists.
    #[param(value_type = Option<String>)]
    id: Option<DeliveryId>,
}

/// Lists deliveries from the newest.
#[utoipa::path(tag = "deliveries", security(("token" = ["read"])), params(DeliveryQuery, PageQuery), responses((status = 200, body = types::Page<types::Delivery>), Failures))]
#[get("/deliveries")]
pub(super) async fn list(
    state: Data<State>,
    allowed: Allowed<Read>,
    query: Query<DeliveryQuery>,
    paging: Query<PageQuery>,
) -> Result<Json<types::Page<types::Delivery>>, ApiError> {
    let store = state.store.as_ref();
    let Some(lists) = lists(&allowed, &query) else {
        return Ok(Json(types::Page { items: Vec::new(), next: None }));
    };
    let wanted = |delivery: &Delivery| {
        allowed.sees(&delivery.registry)
            && query.registry.as_ref().is_none_or(|registry| delivery.registry == *registry)
    };
    if let Some(id) = &query.id {
        let found = with_id(&state, &allowed, &query, id).await?;
        let items = found.iter().filter(|delivery| wanted(delivery)).map(view::delivery).collect();
        return Ok(Json(types::Page { items, next: None }));
    }
    let cursors = Cursors { keyring: &state.keyring, token: allowed.by() };
    let paging = paging.paging();
    let last = match &paging.after {
        Some(after) => Some(cursors.open(store, after).await?),
        None => None,
    };
    let limit = paging.limit();
    let mut found = deliveries::list(store, &lists, last.as_ref(), limit + 1).await?;
    // A hook is of one registry, and so are all of its deliveries.
    found.retain(wanted);
    let has_more = found.len() > limit;
    found.truncate(limit);
    let last = found.last().filter(|_| has_more);
    let next = last.map(|last| cursors.seal(last)).transpose()?;
    Ok(Json(types::Page { items: found.iter().map(view::delivery).collect(), next }))
}

/// The lists to read: none of them has a delivery of another registry. `None` if the token sees nothing of what is asked for.
fn lists<'a>(allowed: &'a Allowed<Read>, query: &'a DeliveryQuery) -> Option<Vec<List<'a>>> {
    match (&query.hook, &query.registry, allowed.bound_to()) {
        (_, Some(registry), _) if !allowed.sees(registry) => None,
        (Some(hook), _, _) => Some(vec![List::Hook(hook)]),
        (None, Some(registry), _) => Some(vec![List::Registry(registry)]),
        (None, None, None) => Some(vec![List::All]),
        (None, None, Some(registries)) => Some(registries.iter().map(List::Registry).collect()),
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

    fn seal(&self, last: &Delivery) -> Result<String, ApiError> {
        let place = format!("{}/{}/{}", last.provider, last.hook, last.id);
        let sealed = self.keyring.seal(&self.sealed_for(), &SecretString::from(place))?;
        Ok(hex::encode(sealed.as_text()))
    }

    async fn open(&self, store: &dyn Store, text: &str) -> Result<Delivery, ApiError> {
        let refused = || {
            ApiError::invalid(
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
    query: &DeliveryQuery,
    id: &DeliveryId,
) -> Result<Vec<Delivery>, ApiError> {
    let store = state.store.as_ref();
    if let Some(hook) = &query.hook {
        let hook = hooks::find(store, hook).await?;
        return Ok(deliveries::with_id(store, hook.as_slice(), id).await?);
    }
    let registries: Vec<Option<&RegistryName>> = match (&query.registry, allowed.bound_to()) {
        (Some(registry), _) => vec![Some(registry)],
        (None, None) => vec![None],
        (None, Some(registries)) => registries.iter().map(Some).collect(),
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

/// Loads a delivery that the token may see. Its hook may be gone.
async fn find<S: Needs>(
    state: &State,
    allowed: &Allowed<S>,
    (hook, id): &(HookId, DeliveryId),
) -> Result<Delivery, ApiError> {
    let store = state.store.as_ref();
    for provider in Provider::ALL {
        if let Some(found) = deliveries::find(store, *provider, hook, id).await?
            && allowed.sees(&found.registry)
        {
            return Ok(found);
        }
    }
    Err(ApiError::NotFound { what: "delivery", name: id.to_string() })
}

/// Shows a delivery with its events and what was decided for each.
#[utoipa::path(tag = "deliveries", security(("token" = ["read"])), params(("hook" = String, Path), ("delivery" = String, Path)), responses((status = 200, body = types::DeliveryDetails), Failures))]
#[get("/hooks/{hook}/deliveries/{delivery}")]
pub(super) async fn show(
    state: Data<State>,
    allowed: Allowed<Read>,
    at: At<(HookId, DeliveryId)>,
) -> Result<Json<types::DeliveryDetails>, ApiError> {
    let delivery = find(&state, &allowed, &at).await?;
    let mut events = Vec::with_capacity(delivery.events.len());
    for event in &delivery.events {
        events.extend(load_event(state.store.as_ref(), event).await?);
    }
    Ok(Json(types::DeliveryDetails { delivery: view::delivery(&delivery), events }))
}

async fn load_event(
    store: &dyn Store,
    event: &EventId,
) -> Result<Option<types::Event>, StoreError> {
    let Some(found) = events::find(store, event).await? else {
        return Ok(None);
    };
    let decision = decisions::find(store, event).await?;
    Ok(Some(view::event(&found.value.event, decision.as_ref())))
}

/// Shows an event and what was decided for it.
#[utoipa::path(path = "/events/{event}", tag = "deliveries", security(("token" = ["read"])), params(("event" = String, Path)), responses((status = 200, body = types::Event), Failures))]
#[get("/events/{event:.*}")]
pub(super) async fn show_event(
    state: Data<State>,
    allowed: Allowed<Read>,
    at: At<EventId>,
) -> Result<Json<types::Event>, ApiError> {
    let store = state.store.as_ref();
    let absent = || ApiError::NotFound { what: "event", name: at.to_string() };
    let found = events::find(store, &at).await?.ok_or_else(absent)?;
    allowed.check(&found.value.event.registry, "event", &*at)?;
    let decision = decisions::find(store, &at).await?;
    Ok(Json(view::event(&found.value.event, decision.as_ref())))
}

/// Reads a delivery's body, as it came.
#[utoipa::path(
    tag = "deliveries",
    security(("token" = ["read"])),
    params(("hook" = String, Path), ("delivery" = String, Path)),
    responses((status = 200, content_type = "application/octet-stream", body = Vec<u8>), Failures)
)]
#[get("/hooks/{hook}/deliveries/{delivery}/body")]
pub(super) async fn read_body(
    state: Data<State>,
    allowed: Allowed<Read>,
    at: At<(HookId, DeliveryId)>,
) -> Result<HttpResponse, ApiError> {
    let delivery = find(&state, &allowed, &at).await?;
    let body = find_body(&state, &delivery).await?.ok_or_else(|| ApiError::NotFound {
        what: "body of delivery",
        name: delivery.id.to_string(),
    })?;
    // As bytes: whatever a sender put into it, no browser is to take it for a page.
    Ok(HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, "application/octet-stream"))
        .body(body))
}

/// Takes a delivery's body as if it came now, as a new delivery that is decided anew.
#[utoipa::path(
    tag = "deliveries",
    security(("token" = ["run"])),
    params(("hook" = String, Path), ("delivery" = String, Path)),
    responses((status = 201, body = types::ReplayResult), Failures)
)]
#[post("/hooks/{hook}/deliveries/{delivery}/replays")]
pub(super) async fn replay(
    state: Data<State>,
    allowed: Allowed<Run>,
    at: At<(HookId, DeliveryId)>,
) -> Result<HttpResponse, ApiError> {
    let delivery = find(&state, &allowed, &at).await?;
    let hook = hook_routes::find(&state, &allowed, &delivery.hook).await?;
    let replayed = replay_delivery(&state, &hook, &delivery).await?;
    Ok(HttpResponse::Created().json(types::ReplayResult { delivery: view::delivery(&replayed) }))
}
