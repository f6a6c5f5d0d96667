//! Hooks: created with all that their senders must be told, rotated, tried.

use actix_web::web::{Bytes, Data, Json, Path as At, Query};
use actix_web::{Error, HttpResponse, delete, get, patch, post};
use gantry_api as types;
use gantry_domain::hook::{Hook, HookSecret, Provider};
use gantry_domain::id::{HookId, RegistryName};
use gantry_domain::source::RepositoryKey;
use gantry_ops::secret::{ExposeSecret as _, SecretString, random_hex};
use gantry_seams::CreateError;
use gantry_seams::hooks;
use gantry_seams::store::StoreError;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use utoipa::IntoParams;

use super::body;
use super::paging::{PageQuery, page};
use crate::access::{Allowed, Needs, Read, Write};
use crate::error::{ApiError, Failures, Mistakes};
use crate::hooks::{MOST_SECRETS, descriptor, knock};
use crate::state::State;
use crate::usecase::paging::Listed;

const MOST_REPOSITORIES: usize = 200;
const SHORTEST_SECRET: usize = 16;
const LONGEST_SECRET: usize = 512;

/// Which hooks.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct HookQuery {
    /// Of this registry only.
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
    let store = state.store.as_ref();
    let paging = paging.paging();
    let limit = paging.limit();
    let after = paging.after.as_deref().map(parse_cursor).transpose()?;
    let mut found = Vec::new();
    match (&query.registry, allowed.bound_to()) {
        (Some(registry), _) => {
            allowed.registry(store, registry).await?;
            let after = after.as_ref().map(|(_, id)| id);
            found = hooks::list(store, Some(registry), after, limit + 1).await?;
        }
        (None, None) => {
            let after = after.as_ref().map(|(_, id)| id);
            found = hooks::list(store, None, after, limit + 1).await?;
        }
        (None, Some(registries)) => {
            for registry in registries {
                let after = match &after {
                    Some((last, _)) if last > registry => continue,
                    Some((last, id)) if last == registry => Some(id),
                    Some(_) | None => None,
                };
                let room = limit + 1 - found.len();
                found.extend(hooks::list(store, Some(registry), after, room).await?);
                if found.len() > limit {
                    break;
                }
            }
        }
    }
    Ok(page(&Listed::of(found, limit, cursor), |hook| view(&state, hook)))
}

/// The place after a hook in every list: in one by id, and in one by registry and id.
fn cursor(hook: &Hook) -> String {
    format!("{}/{}", hook.registry, hook.id)
}

fn parse_cursor(text: &str) -> Result<(RegistryName, HookId), ApiError> {
    let parse = || {
        let (registry, id) = text.split_once('/')?;
        Some((registry.parse().ok()?, id.parse().ok()?))
    };
    parse().ok_or_else(|| {
        ApiError::invalid("after", "it is no `next` of a list of hooks: begin anew without it")
    })
}

/// Whether a registry has hooks.
pub(super) async fn any_of(state: &State, registry: &RegistryName) -> Result<bool, StoreError> {
    Ok(!hooks::list(state.store.as_ref(), Some(registry), None, 1).await?.is_empty())
}

fn view(state: &State, hook: &Hook) -> types::Hook {
    types::Hook {
        id: hook.id.to_string(),
        registry: hook.registry.to_string(),
        provider: hook.provider.to_string(),
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
        created: hook.created.to_string(),
        since_start: state.tally.of(&hook.id),
    }
}

fn url(state: &State, hook: &Hook) -> String {
    format!("{}/hooks/{}/{}", state.public_url(), hook.provider, hook.id)
}

/// A name for a secret that tells nothing of it.
fn secret_id(secret: &HookSecret) -> String {
    let hash = hex::encode(Sha256::digest(secret.sealed.as_text()));
    hash.chars().take(12).collect()
}

/// Creates a hook. The answer has everything that its sender must be told; its secret is never shown again.
#[utoipa::path(tag = "hooks", security(("token" = ["write"])), params(("registry" = String, Path)), responses((status = 201, body = types::HookCreated), Failures))]
#[post("/registries/{registry}/hooks")]
pub(super) async fn create(
    state: Data<State>,
    allowed: Allowed<Write>,
    at: At<RegistryName>,
    body: Json<types::HookCreate>,
) -> Result<HttpResponse, ApiError> {
    let store = state.store.as_ref();
    let registry = allowed.registry(store, &at).await?;
    let mut mistakes = Mistakes::default();
    let provider = mistakes.parse::<Provider>("provider", &body.provider);
    let repositories = repositories(&mut mistakes, &body.repositories);
    let secret = secret(&mut mistakes, body.secret.as_deref())?;
    let (Some(provider), Some(repositories), Some(secret)) = (provider, repositories, secret)
    else {
        return Err(ApiError::Invalid(mistakes));
    };
    mistakes.none()?;
    let random = random_hex::<16>()?;
    let id: HookId = random
        .parse()
        .map_err(|error: gantry_domain::InvalidText| ApiError::invalid("id", error.to_string()))?;
    let now = store.now().await?;
    let sealed = state.keyring.seal(&hooks::seal_for(&id), &secret)?;
    let hook = Hook {
        id,
        registry: registry.name,
        provider,
        repositories,
        secrets: vec![HookSecret { sealed, created: now }],
        created: now,
    };
    match hooks::create(store, &hook).await {
        Ok(()) => {
            let secret = secret.expose_secret();
            Ok(HttpResponse::Created().json(created(&state, &hook, secret)))
        }
        Err(CreateError::Exists { .. }) => Err(ApiError::Internal),
        Err(CreateError::Store(error)) => Err(error.into()),
    }
}

fn created(state: &State, hook: &Hook, secret: &str) -> types::HookCreated {
    let url = url(state, hook);
    let setup = &descriptor(hook.provider).setup;
    types::HookCreated {
        hook: view(state, hook),
        content_type: setup.content_type.to_owned(),
        events: setup.events.iter().map(|event| (*event).to_owned()).collect(),
        instructions: (setup.instructions)(&url, secret),
        url,
        secret: secret.to_owned(),
    }
}

fn repositories(mistakes: &mut Mistakes, texts: &[String]) -> Option<Vec<RepositoryKey>> {
    if texts.len() > MOST_REPOSITORIES {
        let message = format!("at most {MOST_REPOSITORIES}: or name none, for all of its tasks");
        mistakes.add("repositories", message);
        return None;
    }
    Some(texts.iter().filter_map(|text| repository(mistakes, text)).collect())
}

fn repository(mistakes: &mut Mistakes, text: &str) -> Option<RepositoryKey> {
    mistakes.check("repositories", RepositoryKey::named(text))
}

/// The sender's secret, or a new one.
fn secret(mistakes: &mut Mistakes, given: Option<&str>) -> Result<Option<SecretString>, ApiError> {
    let Some(given) = given else {
        let random = random_hex::<32>()?;
        return Ok(Some(SecretString::from(random.as_str())));
    };
    let fits = (SHORTEST_SECRET..=LONGEST_SECRET).contains(&given.len());
    if !fits || !given.chars().all(|c| c.is_ascii_graphic()) {
        let message = format!(
            "{SHORTEST_SECRET} to {LONGEST_SECRET} printable characters without space; leave it out to have one made"
        );
        mistakes.add("secret", message);
        return Ok(None);
    }
    Ok(Some(SecretString::from(given)))
}

/// Loads a hook that the token may act on.
pub(super) async fn find<S: Needs>(
    state: &State,
    allowed: &Allowed<S>,
    id: &HookId,
) -> Result<Hook, ApiError> {
    hooks::find(state.store.as_ref(), id)
        .await?
        .filter(|hook| allowed.sees(&hook.registry))
        .ok_or_else(|| absent(id))
}

fn absent(id: &HookId) -> ApiError {
    ApiError::NotFound { what: "hook", name: id.to_string() }
}

/// Shows a hook.
#[utoipa::path(tag = "hooks", security(("token" = ["read"])), params(("hook" = String, Path)), responses((status = 200, body = types::Hook), Failures))]
#[get("/hooks/{hook}")]
pub(super) async fn show(
    state: Data<State>,
    allowed: Allowed<Read>,
    at: At<HookId>,
) -> Result<Json<types::Hook>, ApiError> {
    let hook = find(&state, &allowed, &at).await?;
    Ok(Json(view(&state, &hook)))
}

/// Changes the repositories that a hook speaks for.
#[utoipa::path(tag = "hooks", security(("token" = ["write"])), params(("hook" = String, Path)), responses((status = 200, body = types::Hook), Failures))]
#[patch("/hooks/{hook}")]
pub(super) async fn update(
    state: Data<State>,
    allowed: Allowed<Write>,
    at: At<HookId>,
    body: Json<types::HookUpdate>,
) -> Result<Json<types::Hook>, ApiError> {
    let hook = find(&state, &allowed, &at).await?;
    let mut mistakes = Mistakes::default();
    let new = body.repositories.as_ref().and_then(|texts| repositories(&mut mistakes, texts));
    mistakes.none()?;
    let hook = change(&state, &hook.id, |hook| {
        if let Some(new) = &new {
            hook.repositories = new.clone();
        }
    })
    .await?;
    Ok(Json(view(&state, &hook)))
}

async fn change(
    state: &State,
    id: &HookId,
    change: impl Fn(&mut Hook) + Send + Sync,
) -> Result<Hook, ApiError> {
    let changed = hooks::update(state.store.as_ref(), id, change).await?;
    state.hooks.forget(id);
    changed.ok_or_else(|| absent(id))
}

/// Removes a hook; its deliveries stay for as long as they are kept.
#[utoipa::path(tag = "hooks", security(("token" = ["write"])), params(("hook" = String, Path)), responses((status = 204), Failures))]
#[delete("/hooks/{hook}")]
pub(super) async fn delete(
    state: Data<State>,
    allowed: Allowed<Write>,
    at: At<HookId>,
) -> Result<HttpResponse, ApiError> {
    let hook = find(&state, &allowed, &at).await?;
    hooks::delete(state.store.as_ref(), &hook).await?;
    state.hooks.forget(&hook.id);
    Ok(HttpResponse::NoContent().finish())
}

/// Adds a secret; those before it stay active until they are removed.
#[utoipa::path(tag = "hooks", security(("token" = ["write"])), params(("hook" = String, Path)), request_body(content = types::HookSecretCreate, description = "May be left out"), responses((status = 201, body = types::HookSecretCreated), Failures))]
#[post("/hooks/{hook}/secrets")]
pub(super) async fn add_secret(
    state: Data<State>,
    allowed: Allowed<Write>,
    at: At<HookId>,
    body: Result<Bytes, Error>,
) -> Result<HttpResponse, ApiError> {
    let hook = find(&state, &allowed, &at).await?;
    if hook.secrets.len() >= MOST_SECRETS {
        return Err(ApiError::Conflict {
            code: "too_many_secrets",
            message: format!("a hook has at most {MOST_SECRETS} secrets: remove one first"),
        });
    }
    let mut mistakes = Mistakes::default();
    let body: types::HookSecretCreate = body::optional(body)?;
    let secret = secret(&mut mistakes, body.secret.as_deref())?;
    let Some(secret) = secret else {
        return Err(ApiError::Invalid(mistakes));
    };
    let new = HookSecret {
        sealed: state.keyring.seal(&hooks::seal_for(&hook.id), &secret)?,
        created: state.store.now().await?,
    };
    let hook = change(&state, &hook.id, |hook| {
        hook.secrets.insert(0, new.clone());
        hook.secrets.truncate(MOST_SECRETS);
    })
    .await?;
    Ok(HttpResponse::Created().json(types::HookSecretCreated {
        hook: view(&state, &hook),
        id: secret_id(&new),
        secret: secret.expose_secret().to_owned(),
    }))
}

/// Removes a secret. The last one stays: remove the hook instead.
#[utoipa::path(tag = "hooks", security(("token" = ["write"])), params(("hook" = String, Path), ("secret" = String, Path)), responses((status = 200, body = types::Hook), Failures))]
#[delete("/hooks/{hook}/secrets/{secret}")]
pub(super) async fn remove_secret(
    state: Data<State>,
    allowed: Allowed<Write>,
    at: At<(HookId, String)>,
) -> Result<Json<types::Hook>, ApiError> {
    let (id, secret) = at.into_inner();
    let hook = find(&state, &allowed, &id).await?;
    if !hook.secrets.iter().any(|known| secret_id(known) == secret) {
        return Err(ApiError::NotFound { what: "secret", name: secret });
    }
    if hook.secrets.len() == 1 {
        return Err(ApiError::Conflict {
            code: "last_secret",
            message: "it is the hook's only secret: add another one first".to_owned(),
        });
    }
    let hook = change(&state, &hook.id, |hook| {
        if hook.secrets.len() > 1 {
            hook.secrets.retain(|known| secret_id(known) != secret);
        }
    })
    .await?;
    Ok(Json(view(&state, &hook)))
}

/// Knocks at a hook as its sender would: a real, signed request through HTTP to the hook's URL.
#[utoipa::path(tag = "hooks", security(("token" = ["write"])), params(("hook" = String, Path)), responses((status = 200, body = types::HookTestResult), Failures))]
#[post("/hooks/{hook}/test")]
pub(super) async fn test(
    state: Data<State>,
    allowed: Allowed<Write>,
    at: At<HookId>,
) -> Result<Json<types::HookTestResult>, ApiError> {
    let hook = find(&state, &allowed, &at).await?;
    let secret = hook.secrets.first().ok_or(ApiError::Internal)?;
    let secret = state.keyring.open(&hooks::seal_for(&hook.id), &secret.sealed)?;
    Ok(Json(knock(&state, &hook, &secret).await?))
}
