//! The routes of waves.

use actix_web::web::{Data, Json, Path as At, Query};
use actix_web::{get, post};
use gantry_api as types;
use gantry_domain::id::{RegistryName, WaveId};

use super::paging::{PageQuery, page};
use crate::access::{Allowed, Read, Run};
use crate::error::{ApiError, Failures};
use crate::state::State;
use crate::usecase::waves;
use crate::view::images as view;

/// Lists the waves of a registry from newest to oldest.
#[utoipa::path(tag = "waves", security(("token" = ["read"])), params(("registry" = String, Path), PageQuery), responses((status = 200, body = types::Page<types::Wave>), Failures))]
#[get("/registries/{registry}/waves")]
pub(super) async fn list(
    state: Data<State>,
    allowed: Allowed<Read>,
    at: At<RegistryName>,
    paging: Query<PageQuery>,
) -> Result<Json<types::Page<types::Wave>>, ApiError> {
    let listed = waves::list(&state, &allowed, &at, &paging.paging()).await?;
    Ok(page(&listed, view::wave))
}

/// Shows a wave with its tasks.
#[utoipa::path(tag = "waves", security(("token" = ["read"])), params(("wave" = String, Path)), responses((status = 200, body = types::WaveDetails), Failures))]
#[get("/waves/{wave}")]
pub(super) async fn show(
    state: Data<State>,
    allowed: Allowed<Read>,
    at: At<WaveId>,
) -> Result<Json<types::WaveDetails>, ApiError> {
    let details = waves::show(&state, &allowed, *at).await?;
    Ok(Json(view::wave_details(&details)))
}

/// Lets a wave go on that is frozen because a canary failed. Changes nothing if it is not frozen.
#[utoipa::path(tag = "waves", security(("token" = ["run"])), params(("wave" = String, Path)), responses((status = 200, body = types::Wave), Failures))]
#[post("/waves/{wave}/resume")]
pub(super) async fn resume(
    state: Data<State>,
    allowed: Allowed<Run>,
    at: At<WaveId>,
) -> Result<Json<types::Wave>, ApiError> {
    let wave = waves::resume(&state, &allowed, *at).await?;
    Ok(Json(view::wave(&wave)))
}

/// Drops a wave: its tasks that have not begun are not built for it. Changes nothing if it is over.
#[utoipa::path(tag = "waves", security(("token" = ["run"])), params(("wave" = String, Path)), responses((status = 200, body = types::Wave), Failures))]
#[post("/waves/{wave}/drop")]
pub(super) async fn drop_wave(
    state: Data<State>,
    allowed: Allowed<Run>,
    at: At<WaveId>,
) -> Result<Json<types::Wave>, ApiError> {
    let wave = waves::drop_wave(&state, &allowed, *at).await?;
    Ok(Json(view::wave(&wave)))
}
