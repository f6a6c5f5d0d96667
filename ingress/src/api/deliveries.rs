//! The routes of deliveries and events.

use actix_web::http::header;
use actix_web::web::{Data, Json, Path as At, Query};
use actix_web::{HttpResponse, get, post};
use gantry_api as types;
use gantry_domain::id::{DeliveryId, EventId, HookId, RegistryName};
use serde::Deserialize;
use utoipa::IntoParams;

use super::paging::{PageQuery, page};
use crate::access::{Allowed, Read, Run};
use crate::error::{ApiError, Failures};
use crate::state::State;
use crate::usecase::deliveries::{self, Wanted};
use crate::usecase::simulation;
use crate::view;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct DeliveryQuery {
    /// Only deliveries to hooks of this registry.
    #[param(value_type = Option<String>)]
    registry: Option<RegistryName>,
    /// Only deliveries to this hook.
    #[param(value_type = Option<String>)]
    hook: Option<HookId>,
    /// Only deliveries with this id, to any hook that still exists.
    #[param(value_type = Option<String>)]
    id: Option<DeliveryId>,
}

/// Lists deliveries from newest to oldest.
#[utoipa::path(tag = "deliveries", security(("token" = ["read"])), params(DeliveryQuery, PageQuery), responses((status = 200, body = types::Page<types::Delivery>), Failures))]
#[get("/deliveries")]
pub(super) async fn list(
    state: Data<State>,
    allowed: Allowed<Read>,
    query: Query<DeliveryQuery>,
    paging: Query<PageQuery>,
) -> Result<Json<types::Page<types::Delivery>>, ApiError> {
    let DeliveryQuery { registry, hook, id } = query.into_inner();
    let wanted = Wanted { registry, hook, id };
    let listed = deliveries::list(&state, &allowed, &wanted, &paging.paging()).await?;
    Ok(page(&listed, view::delivery))
}

/// Shows a delivery with its events and their decisions.
#[utoipa::path(tag = "deliveries", security(("token" = ["read"])), params(("hook" = String, Path), ("delivery" = String, Path)), responses((status = 200, body = types::DeliveryDetails), Failures))]
#[get("/hooks/{hook}/deliveries/{delivery}")]
pub(super) async fn show(
    state: Data<State>,
    allowed: Allowed<Read>,
    at: At<(HookId, DeliveryId)>,
) -> Result<Json<types::DeliveryDetails>, ApiError> {
    let (delivery, events) = deliveries::show(&state, &allowed, &at.0, &at.1).await?;
    Ok(Json(types::DeliveryDetails {
        delivery: view::delivery(&delivery),
        events: events
            .iter()
            .map(|(event, decision)| view::event(event, decision.as_ref()))
            .collect(),
    }))
}

/// Shows an event and its decision.
#[utoipa::path(path = "/events/{event}", tag = "deliveries", security(("token" = ["read"])), params(("event" = String, Path)), responses((status = 200, body = types::Event), Failures))]
#[get("/events/{event:.*}")]
pub(super) async fn show_event(
    state: Data<State>,
    allowed: Allowed<Read>,
    at: At<EventId>,
) -> Result<Json<types::Event>, ApiError> {
    let (event, decision) = deliveries::show_event(&state, &allowed, &at).await?;
    Ok(Json(view::event(&event, decision.as_ref())))
}

/// Returns a delivery's body as it was received.
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
    let body = deliveries::body(&state, &allowed, &at.0, &at.1).await?;
    // As bytes: the sender's content must not be taken for a page by a browser.
    Ok(HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, "application/octet-stream"))
        .body(body))
}

/// Replays a delivery: its body is accepted as a new delivery, and decided anew.
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
    let replayed = deliveries::replay(&state, &allowed, &at.0, &at.1).await?;
    Ok(HttpResponse::Created().json(types::ReplayResult { delivery: view::delivery(&replayed) }))
}

/// Decides a body or a delivery like a received one, without any effect: for each task the run that would be started, or
/// the first rule that said no. The code hosts are asked as for a received one.
#[utoipa::path(tag = "deliveries", security(("token" = ["run"])), params(("registry" = String, Path)), request_body = types::SimulationCreate, responses((status = 200, body = types::Simulation), Failures))]
#[post("/registries/{registry}/simulations")]
pub(super) async fn simulate(
    state: Data<State>,
    allowed: Allowed<Run>,
    at: At<RegistryName>,
    body: Json<types::SimulationCreate>,
) -> Result<Json<types::Simulation>, ApiError> {
    let registry = allowed.registry(state.store.as_ref(), &at).await?;
    let simulated = simulation::simulate(&state, &allowed, &registry, &body).await?;
    Ok(Json(view::simulation(&simulated)))
}
