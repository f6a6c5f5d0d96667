//! The routes of workers.

use actix_web::web::{Data, Json, Path as At};
use actix_web::{get, post};
use gantry_api as types;
use gantry_domain::id::WorkerId;

use crate::access::{Admin, Allowed, Read};
use crate::error::{ApiError, Failures};
use crate::state::State;
use crate::usecase::workers;
use crate::view;

/// Lists workers.
#[utoipa::path(tag = "workers", security(("token" = ["read"])), responses((status = 200, body = types::Page<types::Worker>), Failures))]
#[get("/workers")]
pub(super) async fn list(
    state: Data<State>,
    allowed: Allowed<Read>,
) -> Result<Json<types::Page<types::Worker>>, ApiError> {
    let workforce = workers::visible(&state, &allowed).await?;
    Ok(Json(types::Page { items: view::workers(&workforce), next: None }))
}

/// Drains a worker: it finishes its runs and takes no more until it is resumed. A worker with a fixed name stays
/// drained across restarts; for any other the drain is forgotten when it leaves.
#[utoipa::path(tag = "workers", security(("token" = ["admin", "everywhere"])), params(("worker" = String, Path)), responses((status = 200, body = types::Worker), Failures))]
#[post("/workers/{worker}/drain")]
pub(super) async fn drain(
    state: Data<State>,
    allowed: Allowed<Admin>,
    at: At<WorkerId>,
) -> Result<Json<types::Worker>, ApiError> {
    let (worker, drained) = workers::drain(&state, &allowed, &at).await?;
    Ok(Json(view::worker(&worker, drained.as_ref())))
}

/// Lets a drained worker take runs again.
#[utoipa::path(tag = "workers", security(("token" = ["admin", "everywhere"])), params(("worker" = String, Path)), responses((status = 200, body = types::Worker), Failures))]
#[post("/workers/{worker}/resume")]
pub(super) async fn resume(
    state: Data<State>,
    allowed: Allowed<Admin>,
    at: At<WorkerId>,
) -> Result<Json<types::Worker>, ApiError> {
    let (worker, drained) = workers::resume(&state, &allowed, &at).await?;
    Ok(Json(view::worker(&worker, drained.as_ref())))
}
