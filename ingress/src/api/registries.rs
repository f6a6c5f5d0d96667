//! The routes of registries.

use actix_web::web::{Data, Json, Path as At, Query};
use actix_web::{HttpResponse, delete, get, patch, post};
use gantry_api as types;
use gantry_domain::id::RegistryName;

use super::paging::{PageQuery, page};
use crate::access::{Allowed, Read, Write};
use crate::error::{ApiError, Failures};
use crate::state::State;
use crate::usecase::registries;
use crate::view;

/// Lists registries by name.
#[utoipa::path(tag = "registries", security(("token" = ["read"])), params(PageQuery), responses((status = 200, body = types::Page<types::Registry>), Failures))]
#[get("/registries")]
pub(super) async fn list(
    state: Data<State>,
    allowed: Allowed<Read>,
    paging: Query<PageQuery>,
) -> Result<Json<types::Page<types::Registry>>, ApiError> {
    let listed = registries::list(&state, &allowed, &paging.paging()).await?;
    Ok(page(&listed, view::registry))
}

/// Creates a registry. Its credentials are never shown again.
#[utoipa::path(tag = "registries", security(("token" = ["write", "everywhere"])), responses((status = 201, body = types::Registry), Failures))]
#[post("/registries")]
pub(super) async fn create(
    state: Data<State>,
    allowed: Allowed<Write>,
    body: Json<types::RegistryCreate>,
) -> Result<HttpResponse, ApiError> {
    let registry = registries::create(&state, &allowed, &body).await?;
    Ok(HttpResponse::Created().json(view::registry(&registry)))
}

/// Shows a registry.
#[utoipa::path(tag = "registries", security(("token" = ["read"])), params(("registry" = String, Path)), responses((status = 200, body = types::Registry), Failures))]
#[get("/registries/{registry}")]
pub(super) async fn show(
    state: Data<State>,
    allowed: Allowed<Read>,
    at: At<RegistryName>,
) -> Result<Json<types::Registry>, ApiError> {
    let registry = allowed.registry(state.store.as_ref(), &at).await?;
    Ok(Json(view::registry(&registry)))
}

/// Changes a registry's credentials and run limit.
#[utoipa::path(tag = "registries", security(("token" = ["write"])), params(("registry" = String, Path)), responses((status = 200, body = types::Registry), Failures))]
#[patch("/registries/{registry}")]
pub(super) async fn update(
    state: Data<State>,
    allowed: Allowed<Write>,
    at: At<RegistryName>,
    body: Json<types::RegistryUpdate>,
) -> Result<Json<types::Registry>, ApiError> {
    let registry = registries::update(&state, &allowed, &at, &body).await?;
    Ok(Json(view::registry(&registry)))
}

/// Removes a registry without tasks, hooks and secrets. Its runs are kept until they expire.
#[utoipa::path(tag = "registries", security(("token" = ["write"])), params(("registry" = String, Path)), responses((status = 204), Failures))]
#[delete("/registries/{registry}")]
pub(super) async fn delete(
    state: Data<State>,
    allowed: Allowed<Write>,
    at: At<RegistryName>,
) -> Result<HttpResponse, ApiError> {
    registries::delete(&state, &allowed, &at).await?;
    Ok(HttpResponse::NoContent().finish())
}
