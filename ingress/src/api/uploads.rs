//! The routes of uploads.

use std::io;

use actix_web::http::header;
use actix_web::web::{Data, Path as At, Payload, Query};
use actix_web::{HttpRequest, HttpResponse, delete, post};
use futures_util::TryStreamExt as _;
use gantry_api as types;
use gantry_domain::id::{RegistryName, UploadId};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::access::{Allowed, Run};
use crate::error::{ApiError, Failures};
use crate::state::State;
use crate::usecase::uploads::{self, Archive};
use crate::view;

/// Which earlier upload the body is a difference to.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct UploadQuery {
    /// An upload of the same token in the same registry. The body is then a delta,
    /// `application/vnd.gantry.delta`, and what is stored is the whole archive.
    #[param(value_type = Option<String>)]
    from: Option<UploadId>,
}

/// Uploads an archive, `.tar.gz` or `.tar`, as the request's body. Builds refer to it by its id. It is removed after
/// `retention.uploads`.
#[utoipa::path(
    tag = "runs",
    security(("token" = ["run"])),
    params(("registry" = String, Path), UploadQuery),
    request_body(content_type = "application/octet-stream", content = Vec<u8>),
    responses((status = 201, body = types::Upload), Failures)
)]
#[post("/registries/{registry}/uploads")]
pub(super) async fn create(
    state: Data<State>,
    allowed: Allowed<Run>,
    request: HttpRequest,
    at: At<RegistryName>,
    query: Query<UploadQuery>,
    payload: Payload,
) -> Result<HttpResponse, ApiError> {
    let pieces = payload.map_err(io::Error::other);
    let upload = match &query.from {
        Some(from) => uploads::create_from(&state, &allowed, &at, from, pieces).await?,
        None => {
            let archive = Archive { pieces, declared: declared_length(&request) };
            uploads::create(&state, &allowed, &at, archive).await?
        }
    };
    Ok(HttpResponse::Created().json(view::upload(&upload)))
}

/// Removes an upload. Waiting runs that build from it will fail.
#[utoipa::path(tag = "runs", security(("token" = ["run"])), params(("registry" = String, Path), ("upload" = String, Path)), responses((status = 204), Failures))]
#[delete("/registries/{registry}/uploads/{upload}")]
pub(super) async fn delete(
    state: Data<State>,
    allowed: Allowed<Run>,
    at: At<(RegistryName, UploadId)>,
) -> Result<HttpResponse, ApiError> {
    let (registry, id) = at.into_inner();
    uploads::delete(&state, &allowed, &registry, id).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Whether a request to this path is an upload, which may take as long as its pieces arrive in time.
pub(crate) fn is_upload(path: &str) -> bool {
    path.ends_with("/uploads")
}

fn declared_length(request: &HttpRequest) -> Option<u64> {
    let value = request.headers().get(header::CONTENT_LENGTH)?;
    value.to_str().ok()?.parse().ok()
}
