//! The route of the status.

use actix_web::get;
use actix_web::web::{Data, Json};
use gantry_api as types;

use crate::access::{Allowed, Read};
use crate::error::{ApiError, Failures};
use crate::state::State;
use crate::usecase::status::status;

/// Shows the status of the installation, and what needs attention.
#[utoipa::path(tag = "status", security(("token" = ["read"])), responses((status = 200, body = types::Status), Failures))]
#[get("/status")]
pub(super) async fn show_status(
    state: Data<State>,
    allowed: Allowed<Read>,
) -> Result<Json<types::Status>, ApiError> {
    Ok(Json(status(&state, &allowed).await?))
}
