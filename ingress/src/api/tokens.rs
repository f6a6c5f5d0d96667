//! The routes of tokens.

use actix_web::web::{Data, Json, Path as At, Query};
use actix_web::{HttpResponse, delete, get, post};
use gantry_api as types;
use gantry_domain::id::TokenId;

use super::paging::{PageQuery, page};
use crate::access::{Admin, Allowed, Read};
use crate::error::{ApiError, Failures};
use crate::state::State;
use crate::usecase::tokens;
use crate::view;

/// Lists tokens, including revoked and expired ones.
#[utoipa::path(tag = "tokens", security(("token" = ["admin", "everywhere"])), params(PageQuery), responses((status = 200, body = types::Page<types::Token>), Failures))]
#[get("/tokens")]
pub(super) async fn list(
    state: Data<State>,
    allowed: Allowed<Admin>,
    paging: Query<PageQuery>,
) -> Result<Json<types::Page<types::Token>>, ApiError> {
    let listed = tokens::list(&state, &allowed, &paging.paging()).await?;
    let now = state.store.now().await?;
    Ok(page(&listed, |token| view::token(token, now)))
}

/// Creates a token. Its text is shown only in this answer.
#[utoipa::path(tag = "tokens", security(("token" = ["admin", "everywhere"])), responses((status = 201, body = types::TokenCreated), Failures))]
#[post("/tokens")]
pub(super) async fn create(
    state: Data<State>,
    allowed: Allowed<Admin>,
    body: Json<types::TokenCreate>,
) -> Result<HttpResponse, ApiError> {
    let now = state.store.now().await?;
    let (token, text) = tokens::create(&state, &allowed, &body, now).await?;
    Ok(HttpResponse::Created().json(types::TokenCreated {
        token: view::token(&token, now),
        text: text.as_str().to_owned(),
    }))
}

/// Shows the token of the request.
#[utoipa::path(tag = "tokens", security(("token" = ["read"])), responses((status = 200, body = types::Token), Failures))]
#[get("/tokens/current")]
pub(super) async fn current(
    state: Data<State>,
    allowed: Allowed<Read>,
) -> Result<Json<types::Token>, ApiError> {
    let now = state.store.now().await?;
    Ok(Json(view::token(allowed.token(), now)))
}

/// Revokes a token permanently.
#[utoipa::path(tag = "tokens", security(("token" = ["admin", "everywhere"])), params(("token" = String, Path)), responses((status = 200, body = types::Token), Failures))]
#[delete("/tokens/{token}")]
pub(super) async fn revoke(
    state: Data<State>,
    allowed: Allowed<Admin>,
    at: At<TokenId>,
) -> Result<Json<types::Token>, ApiError> {
    let now = state.store.now().await?;
    let token = tokens::revoke(&state, &allowed, &at, now).await?;
    Ok(Json(view::token(&token, now)))
}
