//! The routes of secrets.

use actix_web::web::{Data, Json, Path as At, Query};
use actix_web::{HttpResponse, delete, get, put};
use gantry_api as types;
use gantry_domain::id::RegistryName;
use gantry_domain::secret::SecretName;

use super::paging::{PageQuery, page};
use crate::access::{Allowed, Read, Write};
use crate::error::{ApiError, Failures};
use crate::state::State;
use crate::usecase::secrets;
use crate::view;

/// Lists the secrets of a registry by name. Their values are never shown.
#[utoipa::path(tag = "secrets", security(("token" = ["read"])), params(("registry" = String, Path), PageQuery), responses((status = 200, body = types::Page<types::Secret>), Failures))]
#[get("/registries/{registry}/secrets")]
pub(super) async fn list(
    state: Data<State>,
    allowed: Allowed<Read>,
    at: At<RegistryName>,
    paging: Query<PageQuery>,
) -> Result<Json<types::Page<types::Secret>>, ApiError> {
    let listed = secrets::list(&state, &allowed, &at, &paging.paging()).await?;
    Ok(page(&listed, view::secret))
}

/// Shows a secret, without its value.
#[utoipa::path(tag = "secrets", security(("token" = ["read"])), params(("registry" = String, Path), ("name" = String, Path)), responses((status = 200, body = types::Secret), Failures))]
#[get("/registries/{registry}/secrets/{name}")]
pub(super) async fn show(
    state: Data<State>,
    allowed: Allowed<Read>,
    at: At<(RegistryName, SecretName)>,
) -> Result<Json<types::Secret>, ApiError> {
    let (registry, name) = at.into_inner();
    let secret = secrets::find(&state, &allowed, &registry, &name).await?;
    Ok(Json(view::secret(&secret)))
}

/// Sets a secret: creates it, or adds a version. The last ten versions are kept.
#[utoipa::path(tag = "secrets", security(("token" = ["write"])), params(("registry" = String, Path), ("name" = String, Path)), responses((status = 200, body = types::Secret), Failures))]
#[put("/registries/{registry}/secrets/{name}")]
pub(super) async fn set(
    state: Data<State>,
    allowed: Allowed<Write>,
    at: At<(RegistryName, SecretName)>,
    body: Json<types::SecretSet>,
) -> Result<Json<types::Secret>, ApiError> {
    let (registry, name) = at.into_inner();
    let secret = secrets::set(&state, &allowed, &registry, name, &body).await?;
    Ok(Json(view::secret(&secret)))
}

/// Deletes a secret with all its versions. Runs of tasks that still name it fail.
#[utoipa::path(tag = "secrets", security(("token" = ["write"])), params(("registry" = String, Path), ("name" = String, Path)), responses((status = 204), Failures))]
#[delete("/registries/{registry}/secrets/{name}")]
pub(super) async fn delete(
    state: Data<State>,
    allowed: Allowed<Write>,
    at: At<(RegistryName, SecretName)>,
) -> Result<HttpResponse, ApiError> {
    let (registry, name) = at.into_inner();
    secrets::delete(&state, &allowed, &registry, &name).await?;
    Ok(HttpResponse::NoContent().finish())
}
