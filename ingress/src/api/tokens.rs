//! API tokens.

use std::collections::BTreeSet;
use std::time::Duration;

use actix_web::web::{Data, Json, Path as At, Query};
use actix_web::{HttpResponse, delete, get, post};
use gantry_api as types;
use gantry_domain::id::{RegistryName, TokenId};
use gantry_domain::token::Scope;
use gantry_seams::tokens;

use super::paging::{PageQuery, page};
use crate::access::{Admin, Allowed, Grant, Read, issue};
use crate::error::{ApiError, Failures, Mistakes};
use crate::state::State;
use crate::usecase::paging::Listed;
use crate::view;

/// Ten years: longer is for ever.
const LONGEST_LIFE: u64 = 10 * 365 * 24 * 3600;

/// Lists tokens; revoked and expired ones too.
#[utoipa::path(tag = "tokens", security(("token" = ["admin", "everywhere"])), params(PageQuery), responses((status = 200, body = types::Page<types::Token>), Failures))]
#[get("/tokens")]
pub(super) async fn list(
    state: Data<State>,
    allowed: Allowed<Admin>,
    paging: Query<PageQuery>,
) -> Result<Json<types::Page<types::Token>>, ApiError> {
    allowed.check_everywhere()?;
    let store = state.store.as_ref();
    let paging = paging.paging();
    let after: Option<TokenId> = match &paging.after {
        Some(after) => Some(after.parse().map_err(|error: gantry_domain::InvalidText| {
            ApiError::invalid("after", error.to_string())
        })?),
        None => None,
    };
    let found = tokens::list(store, after.as_ref(), paging.limit() + 1).await?;
    let now = store.now().await?;
    let listed = Listed::of(found, paging.limit(), |token| token.id.to_string());
    Ok(page(&listed, |token| view::token(token, now)))
}

/// Makes a token. Its text is shown here and never again.
#[utoipa::path(tag = "tokens", security(("token" = ["admin", "everywhere"])), responses((status = 201, body = types::TokenCreated), Failures))]
#[post("/tokens")]
pub(super) async fn create(
    state: Data<State>,
    allowed: Allowed<Admin>,
    body: Json<types::TokenCreate>,
) -> Result<HttpResponse, ApiError> {
    allowed.check_everywhere()?;
    let now = state.store.now().await?;
    let mut mistakes = Mistakes::default();
    let scope = mistakes.parse::<Scope>("scope", &body.scope);
    if body.description.chars().count() > 200 || body.description.chars().any(char::is_control) {
        mistakes.add("description", "at most 200 characters, none of them control");
    }
    let registries = body.registries.as_ref().map(|names| {
        if names.is_empty() {
            mistakes.add("registries", "name at least one, or leave it out for all");
        }
        let names = names.iter();
        names
            .filter_map(|name| mistakes.parse::<RegistryName>("registries", name))
            .collect::<BTreeSet<_>>()
    });
    if body.expires_in.is_some_and(|seconds| !(1..=LONGEST_LIFE).contains(&seconds)) {
        mistakes.add("expires_in", "1 second to 10 years");
    }
    let Some(scope) = scope else {
        return Err(ApiError::Invalid(mistakes));
    };
    mistakes.none()?;
    let grant = Grant {
        description: body.description.clone(),
        scope,
        registries,
        expires: body.expires_in.map(|seconds| now.after(Duration::from_secs(seconds))),
    };
    let (token, text) = issue(state.store.as_ref(), grant).await?;
    Ok(HttpResponse::Created().json(types::TokenCreated {
        token: view::token(&token, now),
        text: text.as_str().to_owned(),
    }))
}

/// Shows the token that asks.
#[utoipa::path(tag = "tokens", security(("token" = ["read"])), responses((status = 200, body = types::Token), Failures))]
#[get("/tokens/current")]
pub(super) async fn current(
    state: Data<State>,
    allowed: Allowed<Read>,
) -> Result<Json<types::Token>, ApiError> {
    let now = state.store.now().await?;
    Ok(Json(view::token(allowed.token(), now)))
}

/// Revokes a token for good.
#[utoipa::path(tag = "tokens", security(("token" = ["admin", "everywhere"])), params(("token" = String, Path)), responses((status = 200, body = types::Token), Failures))]
#[delete("/tokens/{token}")]
pub(super) async fn revoke(
    state: Data<State>,
    allowed: Allowed<Admin>,
    at: At<TokenId>,
) -> Result<Json<types::Token>, ApiError> {
    allowed.check_everywhere()?;
    let store = state.store.as_ref();
    let now = store.now().await?;
    let revoked = tokens::revoke(store, &at, now).await?;
    let token =
        revoked.ok_or_else(|| ApiError::NotFound { what: "token", name: at.to_string() })?;
    Ok(Json(view::token(&token, now)))
}
