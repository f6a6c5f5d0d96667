//! The routes of hooks.

use actix_web::web::{Bytes, Data, Json, Path as At, Query};
use actix_web::{Error, HttpResponse, delete, get, patch, post};
use gantry_api as types;
use gantry_domain::hook::Hook;
use gantry_domain::id::{HookId, RegistryName};
use gantry_ops::secret::ExposeSecret as _;
use serde::Deserialize;
use utoipa::IntoParams;

use super::body;
use super::paging::{PageQuery, page};
use crate::access::{Allowed, Read, Write};
use crate::error::{ApiError, Failures};
use crate::hooks::descriptor;
use crate::state::State;
use crate::usecase::hooks::{self, secret_id, url};
use crate::usecase::webhooks;
use crate::view;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct HookQuery {
    /// Only hooks of this registry.
    #[param(value_type = Option<String>)]
    registry: Option<RegistryName>,
}

/// Lists hooks.
#[utoipa::path(tag = "hooks", security(("token" = ["read"])), params(HookQuery, PageQuery), responses((status = 200, body = types::Page<types::Hook>), Failures))]
#[get("/hooks")]
pub(super) async fn list(
    state: Data<State>,
    allowed: Allowed<Read>,
    query: Query<HookQuery>,
    paging: Query<PageQuery>,
) -> Result<Json<types::Page<types::Hook>>, ApiError> {
    let listed = hooks::list(&state, &allowed, query.registry.as_ref(), &paging.paging()).await?;
    Ok(page(&listed, |hook| shown(&state, hook)))
}

/// Creates a hook. The answer has everything that must be configured at the sender; a secret is never shown again.
#[utoipa::path(tag = "hooks", security(("token" = ["write"])), params(("registry" = String, Path)), responses((status = 201, body = types::HookCreated), Failures))]
#[post("/registries/{registry}/hooks")]
pub(super) async fn create(
    state: Data<State>,
    allowed: Allowed<Write>,
    at: At<RegistryName>,
    body: Json<types::HookCreate>,
) -> Result<HttpResponse, ApiError> {
    let (hook, secret) = hooks::create(&state, &allowed, &at, &body).await?;
    let secret = secret.as_ref().map(|secret| secret.expose_secret());
    Ok(HttpResponse::Created().json(created(&state, &hook, secret)))
}

/// Shows a hook.
#[utoipa::path(tag = "hooks", security(("token" = ["read"])), params(("hook" = String, Path)), responses((status = 200, body = types::Hook), Failures))]
#[get("/hooks/{hook}")]
pub(super) async fn show(
    state: Data<State>,
    allowed: Allowed<Read>,
    at: At<HookId>,
) -> Result<Json<types::Hook>, ApiError> {
    let hook = hooks::find(&state, &allowed, &at).await?;
    Ok(Json(shown(&state, &hook)))
}

/// Changes the repositories that a hook is limited to.
#[utoipa::path(tag = "hooks", security(("token" = ["write"])), params(("hook" = String, Path)), responses((status = 200, body = types::Hook), Failures))]
#[patch("/hooks/{hook}")]
pub(super) async fn update(
    state: Data<State>,
    allowed: Allowed<Write>,
    at: At<HookId>,
    body: Json<types::HookUpdate>,
) -> Result<Json<types::Hook>, ApiError> {
    let hook = hooks::update(&state, &allowed, &at, &body).await?;
    Ok(Json(shown(&state, &hook)))
}

/// Removes a hook; its deliveries are kept until they expire.
#[utoipa::path(tag = "hooks", security(("token" = ["write"])), params(("hook" = String, Path)), responses((status = 204), Failures))]
#[delete("/hooks/{hook}")]
pub(super) async fn delete(
    state: Data<State>,
    allowed: Allowed<Write>,
    at: At<HookId>,
) -> Result<HttpResponse, ApiError> {
    hooks::delete(&state, &allowed, &at).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Adds a secret; earlier ones stay active until they are removed.
#[utoipa::path(tag = "hooks", security(("token" = ["write"])), params(("hook" = String, Path)), request_body(content = types::HookSecretCreate, description = "May be left out"), responses((status = 201, body = types::HookSecretCreated), Failures))]
#[post("/hooks/{hook}/secrets")]
pub(super) async fn add_secret(
    state: Data<State>,
    allowed: Allowed<Write>,
    at: At<HookId>,
    body: Result<Bytes, Error>,
) -> Result<HttpResponse, ApiError> {
    let hook = hooks::find(&state, &allowed, &at).await?;
    let body: types::HookSecretCreate = body::optional(body)?;
    let (hook, new, secret) = hooks::add_secret(&state, &allowed, &hook, &body).await?;
    Ok(HttpResponse::Created().json(types::HookSecretCreated {
        hook: shown(&state, &hook),
        id: secret_id(&new),
        secret: secret.expose_secret().to_owned(),
    }))
}

/// Removes a secret. The last one cannot be removed: remove the hook instead.
#[utoipa::path(tag = "hooks", security(("token" = ["write"])), params(("hook" = String, Path), ("secret" = String, Path)), responses((status = 200, body = types::Hook), Failures))]
#[delete("/hooks/{hook}/secrets/{secret}")]
pub(super) async fn remove_secret(
    state: Data<State>,
    allowed: Allowed<Write>,
    at: At<(HookId, String)>,
) -> Result<Json<types::Hook>, ApiError> {
    let (id, secret) = at.into_inner();
    let hook = hooks::remove_secret(&state, &allowed, &id, &secret).await?;
    Ok(Json(shown(&state, &hook)))
}

/// Sends a test delivery to a hook: a real, signed HTTP request to the hook's public URL.
#[utoipa::path(tag = "hooks", security(("token" = ["write"])), params(("hook" = String, Path)), responses((status = 200, body = types::HookTestResult), Failures))]
#[post("/hooks/{hook}/test")]
pub(super) async fn test(
    state: Data<State>,
    allowed: Allowed<Write>,
    at: At<HookId>,
) -> Result<Json<types::HookTestResult>, ApiError> {
    Ok(Json(hooks::test(&state, &allowed, &at).await?))
}

/// Compares a hook with what its code host has, and names what is wrong. Asks the code host with the token of a task.
#[utoipa::path(tag = "hooks", security(("token" = ["write"])), params(("hook" = String, Path)), responses((status = 200, body = types::WebhookReport), Failures))]
#[get("/hooks/{hook}/webhook")]
pub(super) async fn webhook(
    state: Data<State>,
    allowed: Allowed<Write>,
    at: At<HookId>,
) -> Result<Json<types::WebhookReport>, ApiError> {
    let examined = webhooks::examine(&state, &allowed, &at).await?;
    Ok(Json(view::webhook_report(&examined, url(&state, &examined.hook))))
}

/// Has the code host of a hook send again what did not arrive.
#[utoipa::path(tag = "hooks", security(("token" = ["write"])), params(("hook" = String, Path)), responses((status = 200, body = types::Redelivered), Failures))]
#[post("/hooks/{hook}/redeliveries")]
pub(super) async fn redeliver(
    state: Data<State>,
    allowed: Allowed<Write>,
    at: At<HookId>,
) -> Result<Json<types::Redelivered>, ApiError> {
    let deliveries = webhooks::redeliver(&state, &allowed, &at).await?;
    Ok(Json(types::Redelivered { deliveries }))
}

fn shown(state: &State, hook: &Hook) -> types::Hook {
    types::Hook {
        id: hook.id.to_string(),
        registry: hook.registry.to_string(),
        provider: hook.provider().to_string(),
        mapping: hook.sender.mapping().map(view::mapping),
        repositories: hook.repositories.iter().map(ToString::to_string).collect(),
        url: url(state, hook),
        secrets: hook
            .secrets
            .iter()
            .map(|secret| types::HookSecret {
                id: secret_id(secret),
                created: secret.created.to_string(),
            })
            .collect(),
        provisioned: hook.is_provisioned,
        created: hook.created.to_string(),
        since_start: state.tally.of(&hook.id),
    }
}

fn created(state: &State, hook: &Hook, secret: Option<&str>) -> types::HookCreated {
    let url = url(state, hook);
    let setup = &descriptor(hook.provider()).setup;
    types::HookCreated {
        hook: shown(state, hook),
        content_type: setup.content_type.to_owned(),
        events: setup.events.iter().map(|event| (*event).to_owned()).collect(),
        instructions: (setup.instructions)(&url, secret.unwrap_or_default(), hook.sender.mapping()),
        url,
        secret: secret.map(str::to_owned),
    }
}
