//! The routes of notifications.

use actix_web::web::{Data, Json, Path as At, Query};
use actix_web::{HttpResponse, delete, get, patch, post};
use gantry_api as types;
use gantry_domain::id::RegistryName;
use gantry_domain::notification::{
    Message, MessageId, Notification, NotificationName, Sending, SigningSecret,
};
use gantry_domain::pattern::Patterns;
use gantry_ops::secret::ExposeSecret as _;

use super::paging::{PageQuery, page};
use crate::access::{Allowed, Read, Run, Write};
use crate::error::{ApiError, Failures};
use crate::state::State;
use crate::usecase::notifications::{self, secret_id};

/// Lists the notifications of a registry by name. Their addresses are never shown.
#[utoipa::path(tag = "notifications", security(("token" = ["read"])), params(("registry" = String, Path)), responses((status = 200, body = types::Page<types::Notification>), Failures))]
#[get("/registries/{registry}/notifications")]
pub(super) async fn list(
    state: Data<State>,
    allowed: Allowed<Read>,
    at: At<RegistryName>,
) -> Result<Json<types::Page<types::Notification>>, ApiError> {
    let listed = notifications::list(&state, &allowed, &at).await?;
    Ok(Json(types::Page { items: listed.iter().map(shown).collect(), next: None }))
}

/// Creates a notification. Its signing secret is never shown again.
#[utoipa::path(tag = "notifications", security(("token" = ["write"])), params(("registry" = String, Path)), responses((status = 201, body = types::NotificationCreated), Failures))]
#[post("/registries/{registry}/notifications")]
pub(super) async fn create(
    state: Data<State>,
    allowed: Allowed<Write>,
    at: At<RegistryName>,
    body: Json<types::NotificationCreate>,
) -> Result<HttpResponse, ApiError> {
    let (notification, secret) = notifications::create(&state, &allowed, &at, &body).await?;
    Ok(HttpResponse::Created().json(types::NotificationCreated {
        notification: shown(&notification),
        secret: secret.map(|secret| secret.expose_secret().to_owned()),
    }))
}

/// Shows a notification, without its address.
#[utoipa::path(tag = "notifications", security(("token" = ["read"])), params(("registry" = String, Path), ("notification" = String, Path)), responses((status = 200, body = types::Notification), Failures))]
#[get("/registries/{registry}/notifications/{notification}")]
pub(super) async fn show(
    state: Data<State>,
    allowed: Allowed<Read>,
    at: At<(RegistryName, NotificationName)>,
) -> Result<Json<types::Notification>, ApiError> {
    let (registry, name) = at.into_inner();
    let found = notifications::find(&state, &allowed, &registry, &name).await?;
    Ok(Json(shown(&found)))
}

/// Changes a notification. What waits to be sent goes to the new address.
#[utoipa::path(tag = "notifications", security(("token" = ["write"])), params(("registry" = String, Path), ("notification" = String, Path)), responses((status = 200, body = types::Notification), Failures))]
#[patch("/registries/{registry}/notifications/{notification}")]
pub(super) async fn update(
    state: Data<State>,
    allowed: Allowed<Write>,
    at: At<(RegistryName, NotificationName)>,
    body: Json<types::NotificationUpdate>,
) -> Result<Json<types::Notification>, ApiError> {
    let (registry, name) = at.into_inner();
    let changed = notifications::update(&state, &allowed, &registry, &name, &body).await?;
    Ok(Json(shown(&changed)))
}

/// Deletes a notification. What it has not sent is not sent any more.
#[utoipa::path(tag = "notifications", security(("token" = ["write"])), params(("registry" = String, Path), ("notification" = String, Path)), responses((status = 204), Failures))]
#[delete("/registries/{registry}/notifications/{notification}")]
pub(super) async fn delete(
    state: Data<State>,
    allowed: Allowed<Write>,
    at: At<(RegistryName, NotificationName)>,
) -> Result<HttpResponse, ApiError> {
    let (registry, name) = at.into_inner();
    notifications::delete(&state, &allowed, &registry, &name).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Adds a signing secret. Messages are signed with the former one too, until that is removed.
#[utoipa::path(tag = "notifications", security(("token" = ["write"])), params(("registry" = String, Path), ("notification" = String, Path)), responses((status = 201, body = types::SigningSecretCreated), Failures))]
#[post("/registries/{registry}/notifications/{notification}/secrets")]
pub(super) async fn add_secret(
    state: Data<State>,
    allowed: Allowed<Write>,
    at: At<(RegistryName, NotificationName)>,
) -> Result<HttpResponse, ApiError> {
    let (registry, name) = at.into_inner();
    let (changed, new, secret) =
        notifications::add_secret(&state, &allowed, &registry, &name).await?;
    Ok(HttpResponse::Created().json(types::SigningSecretCreated {
        notification: shown(&changed),
        id: secret_id(&new),
        secret: secret.expose_secret().to_owned(),
    }))
}

/// Removes a signing secret. The last one cannot be removed.
#[utoipa::path(tag = "notifications", security(("token" = ["write"])), params(("registry" = String, Path), ("notification" = String, Path), ("signing_secret" = String, Path)), responses((status = 200, body = types::Notification), Failures))]
#[delete("/registries/{registry}/notifications/{notification}/secrets/{signing_secret}")]
pub(super) async fn remove_secret(
    state: Data<State>,
    allowed: Allowed<Write>,
    at: At<(RegistryName, NotificationName, String)>,
) -> Result<Json<types::Notification>, ApiError> {
    let (registry, name, secret) = at.into_inner();
    let changed = notifications::remove_secret(&state, &allowed, &registry, &name, &secret).await?;
    Ok(Json(shown(&changed)))
}

/// Sends a message that tells of no run, and returns what came of it.
#[utoipa::path(tag = "notifications", security(("token" = ["write"])), params(("registry" = String, Path), ("notification" = String, Path)), responses((status = 200, body = types::NotificationTestResult), Failures))]
#[post("/registries/{registry}/notifications/{notification}/test")]
pub(super) async fn test(
    state: Data<State>,
    allowed: Allowed<Write>,
    at: At<(RegistryName, NotificationName)>,
) -> Result<Json<types::NotificationTestResult>, ApiError> {
    let (registry, name) = at.into_inner();
    Ok(Json(notifications::test(&state, &allowed, &registry, &name).await?))
}

/// Lists the messages of a notification from the newest.
#[utoipa::path(tag = "notifications", security(("token" = ["read"])), params(("registry" = String, Path), ("notification" = String, Path), PageQuery), responses((status = 200, body = types::Page<types::Message>), Failures))]
#[get("/registries/{registry}/notifications/{notification}/messages")]
pub(super) async fn list_messages(
    state: Data<State>,
    allowed: Allowed<Read>,
    at: At<(RegistryName, NotificationName)>,
    paging: Query<PageQuery>,
) -> Result<Json<types::Page<types::Message>>, ApiError> {
    let (registry, name) = at.into_inner();
    let paging = paging.paging();
    let listed = notifications::list_messages(&state, &allowed, &registry, &name, &paging).await?;
    Ok(page(&listed, shown_message))
}

/// Shows a message of a notification, with its body.
#[utoipa::path(tag = "notifications", security(("token" = ["read"])), params(("registry" = String, Path), ("notification" = String, Path), ("message" = String, Path)), responses((status = 200, body = types::Message), Failures))]
#[get("/registries/{registry}/notifications/{notification}/messages/{message}")]
pub(super) async fn show_message(
    state: Data<State>,
    allowed: Allowed<Read>,
    at: At<(RegistryName, NotificationName, MessageId)>,
) -> Result<Json<types::Message>, ApiError> {
    let (registry, name, id) = at.into_inner();
    let (notification, message) =
        notifications::find_message(&state, &allowed, &registry, &name, &id).await?;
    let body = message.news.body(notification.format, &message.id);
    Ok(Json(types::Message { body: Some(body.text), ..shown_message(&message) }))
}

/// Has a message sent again, under the same id.
#[utoipa::path(tag = "notifications", security(("token" = ["run"])), params(("registry" = String, Path), ("notification" = String, Path), ("message" = String, Path)), responses((status = 200, body = types::Message), Failures))]
#[post("/registries/{registry}/notifications/{notification}/messages/{message}/replays")]
pub(super) async fn replay(
    state: Data<State>,
    allowed: Allowed<Run>,
    at: At<(RegistryName, NotificationName, MessageId)>,
) -> Result<Json<types::Message>, ApiError> {
    let (registry, name, id) = at.into_inner();
    let message = notifications::replay(&state, &allowed, &registry, &name, &id).await?;
    Ok(Json(shown_message(&message)))
}

/// Has the messages of the last time sent again, each under its own id. Those that are still being sent are left alone.
#[utoipa::path(tag = "notifications", security(("token" = ["run"])), params(("registry" = String, Path), ("notification" = String, Path)), responses((status = 200, body = types::Replayed), Failures))]
#[post("/registries/{registry}/notifications/{notification}/replays")]
pub(super) async fn replay_many(
    state: Data<State>,
    allowed: Allowed<Run>,
    at: At<(RegistryName, NotificationName)>,
    body: Json<types::Replays>,
) -> Result<Json<types::Replayed>, ApiError> {
    let (registry, name) = at.into_inner();
    let replayed = notifications::replay_many(&state, &allowed, &registry, &name, &body).await?;
    Ok(Json(types::Replayed { messages: replayed.iter().map(ToString::to_string).collect() }))
}

fn shown(notification: &Notification) -> types::Notification {
    let filter = &notification.filter;
    let texts = |patterns: &Patterns| {
        patterns.as_slice().iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let secret = |secret: &SigningSecret| types::SigningSecret {
        id: secret_id(secret),
        created: secret.created.to_string(),
    };
    types::Notification {
        registry: notification.registry.to_string(),
        name: notification.name.to_string(),
        format: notification.format.to_string(),
        origin: notification.origin.clone(),
        on: filter.on.iter().map(ToString::to_string).collect(),
        tasks: texts(&filter.tasks),
        branches: texts(&filter.branches),
        only_changes: filter.only_changes,
        enabled: notification.disabled.is_none(),
        disabled_because: notification.disabled.as_ref().map(ToString::to_string),
        secrets: notification.secrets.iter().map(secret).collect(),
        created: notification.created.to_string(),
    }
}

/// A message without its body.
fn shown_message(message: &Message) -> types::Message {
    let (state, next) = match message.sending {
        Sending::Due { at, .. } => ("due", Some(at)),
        Sending::Sent { .. } => ("sent", None),
        Sending::GivenUp { .. } => ("given_up", None),
    };
    types::Message {
        id: message.id.to_string(),
        run: message.news.run.to_string(),
        event: message.news.event.to_string(),
        created: message.created.to_string(),
        state: state.to_owned(),
        attempts: message.attempts,
        next_attempt: next.map(|at| at.to_string()),
        answer: message.answer.as_ref().map(|answer| types::Answer {
            at: answer.at.to_string(),
            status: answer.status,
            message: answer.text.clone(),
            duration_ms: answer.took_ms,
        }),
        body: None,
    }
}
