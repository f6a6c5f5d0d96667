//! Registries.

use std::num::NonZeroU32;

use actix_web::web::{Data, Json, Path as At, Query};
use actix_web::{HttpResponse, delete, get, patch, post};
use gantry_api as types;
use gantry_domain::id::RegistryName;
use gantry_domain::registry::{Registry, SealedCredentials};
use gantry_ops::secret::SecretString;
use gantry_seams::CreateError;
use gantry_seams::registries::{self, Deleted, NewRegistry};

use super::hooks;
use super::paging::{PageQuery, page};
use crate::access::{Allowed, Read, Write};
use crate::error::{ApiError, Failures, Mistakes};
use crate::state::State;
use crate::usecase::paging::Listed;
use crate::view;

/// Enough for a small team on one machine; an operator raises it per registry.
const RUN_LIMIT: u32 = 10;

/// Lists registries by name.
#[utoipa::path(tag = "registries", security(("token" = ["read"])), params(PageQuery), responses((status = 200, body = types::Page<types::Registry>), Failures))]
#[get("/registries")]
pub(super) async fn list(
    state: Data<State>,
    allowed: Allowed<Read>,
    paging: Query<PageQuery>,
) -> Result<Json<types::Page<types::Registry>>, ApiError> {
    let paging = paging.paging();
    let after = match &paging.after {
        Some(after) => Some(name(after)?),
        None => None,
    };
    let store = state.store.as_ref();
    let limit = paging.limit();
    let mut found = Vec::new();
    match allowed.bound_to() {
        None => found = registries::list(store, after.as_ref(), limit + 1).await?,
        Some(names) => {
            let names = names.iter().filter(|name| Some(*name) > after.as_ref());
            for name in names.take(limit + 1) {
                found.extend(registries::find(store, name).await?);
            }
        }
    }
    let listed = Listed::of(found, limit, |registry| registry.name.to_string());
    Ok(page(&listed, view::registry))
}

fn name(text: &str) -> Result<RegistryName, ApiError> {
    text.parse()
        .map_err(|error: gantry_domain::InvalidText| ApiError::invalid("after", error.to_string()))
}

/// Creates a registry. Its credentials are never shown again.
#[utoipa::path(tag = "registries", security(("token" = ["write", "everywhere"])), responses((status = 201, body = types::Registry), Failures))]
#[post("/registries")]
pub(super) async fn create(
    state: Data<State>,
    allowed: Allowed<Write>,
    body: Json<types::RegistryCreate>,
) -> Result<HttpResponse, ApiError> {
    allowed.check_everywhere()?;
    let mut mistakes = Mistakes::default();
    let name = mistakes.parse::<RegistryName>("name", &body.name);
    let host = mistakes.parse("host", &body.host);
    let run_limit = run_limit(&mut mistakes, body.run_limit.unwrap_or(RUN_LIMIT));
    let credentials = match (&name, &body.credentials) {
        (Some(name), Some(credentials)) => seal(&state, &mut mistakes, name, credentials)?,
        _ => None,
    };
    let (Some(name), Some(host), Some(run_limit)) = (name, host, run_limit) else {
        return Err(ApiError::Invalid(mistakes));
    };
    mistakes.none()?;
    let new = NewRegistry { name, host, credentials, run_limit };
    match registries::create(state.store.as_ref(), new).await {
        Ok(registry) => Ok(HttpResponse::Created().json(view::registry(&registry))),
        Err(CreateError::Exists { .. }) => Err(ApiError::Conflict {
            code: "exists",
            message: format!(
                "registry `{}` is there already: choose another name, or update it",
                body.name
            ),
        }),
        Err(CreateError::Store(error)) => Err(error.into()),
    }
}

fn run_limit(mistakes: &mut Mistakes, limit: u32) -> Option<NonZeroU32> {
    mistakes.check("run_limit", NonZeroU32::new(limit).ok_or("0 is no limit: at least 1"))
}

fn seal(
    state: &State,
    mistakes: &mut Mistakes,
    registry: &RegistryName,
    credentials: &types::Credentials,
) -> Result<Option<SealedCredentials>, ApiError> {
    let username = &credentials.username;
    if username.len() > 256 || username.contains(':') || username.chars().any(char::is_control) {
        let message = "at most 256 characters, no `:` and no control character";
        mistakes.add("credentials.username", message);
        return Ok(None);
    }
    if credentials.password.is_empty() || credentials.password.len() > 64 * 1024 {
        mistakes.add("credentials.password", "1 to 65536 bytes");
        return Ok(None);
    }
    let secret = SecretString::from(credentials.password.as_str());
    let bound_to = Registry::seals_for(registry);
    Ok(Some(SealedCredentials {
        username: username.clone(),
        password: state.keyring.seal(&bound_to, &secret)?,
    }))
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

/// Changes a registry's credentials and limit.
#[utoipa::path(tag = "registries", security(("token" = ["write"])), params(("registry" = String, Path)), responses((status = 200, body = types::Registry), Failures))]
#[patch("/registries/{registry}")]
pub(super) async fn update(
    state: Data<State>,
    allowed: Allowed<Write>,
    at: At<RegistryName>,
    body: Json<types::RegistryUpdate>,
) -> Result<Json<types::Registry>, ApiError> {
    let registry = allowed.registry(state.store.as_ref(), &at).await?;
    let mut mistakes = Mistakes::default();
    let limit = body
        .run_limit
        .map(|limit| run_limit(&mut mistakes, limit))
        .unwrap_or(Some(registry.run_limit));
    let credentials = match &body.credentials {
        None => registry.credentials.clone(),
        Some(None) => None,
        Some(Some(new)) => seal(&state, &mut mistakes, &at, new)?,
    };
    mistakes.none()?;
    let changed = registries::update(state.store.as_ref(), &at, |registry| {
        registry.run_limit = limit.unwrap_or(registry.run_limit);
        if body.credentials.is_some() {
            registry.credentials = credentials.clone();
        }
    });
    let changed = changed
        .await?
        .ok_or_else(|| ApiError::NotFound { what: "registry", name: at.to_string() })?;
    Ok(Json(view::registry(&changed)))
}

/// Removes a registry that has neither tasks nor hooks. Its runs stay for as long as they are kept.
#[utoipa::path(tag = "registries", security(("token" = ["write"])), params(("registry" = String, Path)), responses((status = 204), Failures))]
#[delete("/registries/{registry}")]
pub(super) async fn delete(
    state: Data<State>,
    allowed: Allowed<Write>,
    at: At<RegistryName>,
) -> Result<HttpResponse, ApiError> {
    allowed.registry(state.store.as_ref(), &at).await?;
    if hooks::any_of(&state, &at).await? {
        return Err(ApiError::Conflict {
            code: "in_use",
            message: format!("hooks belong to registry `{at}`: delete them first"),
        });
    }
    match registries::delete(state.store.as_ref(), &at).await? {
        Deleted::Gone => Ok(HttpResponse::NoContent().finish()),
        Deleted::StillHasTasks => Err(ApiError::Conflict {
            code: "in_use",
            message: format!("tasks belong to registry `{at}`: delete them first"),
        }),
    }
}
