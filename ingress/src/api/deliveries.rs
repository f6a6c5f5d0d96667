//! Deliveries: the ledger, what each meant, and the same once more.

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
use crate::view;

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
    let DeliveryQuery { registry, hook, id } = query.into_inner();
    let wanted = Wanted { registry, hook, id };
    let listed = deliveries::list(&state, &allowed, &wanted, &paging.paging()).await?;
    Ok(page(&listed, view::delivery))
}

/// Shows a delivery with its events and what was decided for each.
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

/// Shows an event and what was decided for it.
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
    let body = deliveries::body(&state, &allowed, &at.0, &at.1).await?;
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
    let replayed = deliveries::replay(&state, &allowed, &at.0, &at.1).await?;
    Ok(HttpResponse::Created().json(types::ReplayResult { delivery: view::delivery(&replayed) }))
}
