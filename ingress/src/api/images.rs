//! The routes of images. Names of images contain slashes and colons, so they are in the query.

use actix_web::get;
use actix_web::web::{Data, Json, Query};
use gantry_api as types;
use serde::Deserialize;
use utoipa::IntoParams;

use super::paging::{PageQuery, page};
use crate::access::{Allowed, Read};
use crate::error::{ApiError, Failures};
use crate::state::State;
use crate::usecase::images;
use crate::view::images as view;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ImageQuery {
    /// The image, like `node:22`. A name without a host is looked for at Docker Hub, then in the registries.
    image: String,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct BaseQuery {
    /// The image, like `node:22`. A name without a host is looked for at Docker Hub, then in the registries.
    base: String,
}

/// Lists the tags that gantry asks registries for, because tasks need them.
#[utoipa::path(tag = "images", security(("token" = ["read"])), params(PageQuery), responses((status = 200, body = types::Page<types::WatchedImage>), Failures))]
#[get("/images")]
pub(super) async fn list(
    state: Data<State>,
    allowed: Allowed<Read>,
    paging: Query<PageQuery>,
) -> Result<Json<types::Page<types::WatchedImage>>, ApiError> {
    let listed = images::list(&state, &allowed, &paging.paging()).await?;
    Ok(page(&listed, view::listed))
}

/// Shows an image that a task needs or makes: what was seen of it, its users and its makers.
#[utoipa::path(tag = "images", security(("token" = ["read"])), params(ImageQuery), responses((status = 200, body = types::ImageDetails), Failures))]
#[get("/images/show")]
pub(super) async fn show(
    state: Data<State>,
    allowed: Allowed<Read>,
    query: Query<ImageQuery>,
) -> Result<Json<types::ImageDetails>, ApiError> {
    let details = images::show(&state, &allowed, &query.image).await?;
    Ok(Json(view::details(&details)))
}

/// Tells where an image comes from, and what was built on it. A digest alone is understood too; a tag means what it has now.
#[utoipa::path(tag = "images", security(("token" = ["read"])), params(ImageQuery), responses((status = 200, body = types::Why), Failures))]
#[get("/images/why")]
pub(super) async fn why(
    state: Data<State>,
    allowed: Allowed<Read>,
    query: Query<ImageQuery>,
) -> Result<Json<types::Why>, ApiError> {
    let why = images::why(&state, &allowed, &query.image).await?;
    Ok(Json(view::why(&why)))
}

/// Tells what a change of an image would rebuild, in which order, and how long that took before.
#[utoipa::path(tag = "images", security(("token" = ["read"])), params(BaseQuery), responses((status = 200, body = types::Impact), Failures))]
#[get("/images/impact")]
pub(super) async fn impact(
    state: Data<State>,
    allowed: Allowed<Read>,
    query: Query<BaseQuery>,
) -> Result<Json<types::Impact>, ApiError> {
    let affected = images::impact(&state, &allowed, &query.base).await?;
    Ok(Json(view::impact(&affected)))
}
