//! Operations on hooks and their secrets.

use gantry_api::{HookCreate, HookSecretCreate, HookTestResult, HookUpdate};
use gantry_domain::hook::{Hook, HookSecret};
use gantry_domain::id::{HookId, RegistryName};
use gantry_domain::source::RepositoryKey;
use gantry_ops::secret::{SecretString, random_hex};
use gantry_seams::AddError;
use gantry_seams::hooks;
use sha2::{Digest as _, Sha256};

use super::paging::{Listed, Paging};
use super::senders::parse_sender;
use crate::access::{Allowed, Needs, Read, Write};
use crate::hooks::{MOST_SECRETS, descriptor, send_test_delivery};
use crate::refusal::{Mistakes, Refusal};
use crate::state::State;

const MOST_REPOSITORIES: usize = 200;
const SHORTEST_SECRET: usize = 16;
const LONGEST_SECRET: usize = 512;

/// Lists the hooks of one registry, or of all that the caller sees.
pub(crate) async fn list(
    state: &State,
    allowed: &Allowed<Read>,
    registry: Option<&RegistryName>,
    paging: &Paging,
) -> Result<Listed<Hook>, Refusal> {
    let store = state.store.as_ref();
    let limit = paging.limit();
    let after = paging.after.as_deref().map(parse_cursor).transpose()?;
    let mut found = Vec::new();
    match (registry, allowed.bound_to()) {
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
            for registry in registries.keys() {
                let after = match &after {
                    Some((last, _)) if last > registry => continue,
                    Some((last, id)) if last == registry => Some(id),
                    Some(_) | None => None,
                };
                let room = limit + 1 - found.len();
                let of_registry = hooks::list(store, Some(registry), after, room).await?;
                found.extend(of_registry.into_iter().filter(|hook| allowed.sees(hook)));
                if found.len() > limit {
                    break;
                }
            }
        }
    }
    Ok(Listed::of(found, limit, cursor))
}

/// The cursor after a hook; it works both for a list by id and for one by registry and id.
fn cursor(hook: &Hook) -> String {
    format!("{}/{}", hook.registry, hook.id)
}

fn parse_cursor(text: &str) -> Result<(RegistryName, HookId), Refusal> {
    let parse = || {
        let (registry, id) = text.split_once('/')?;
        Some((registry.parse().ok()?, id.parse().ok()?))
    };
    parse().ok_or_else(|| {
        Refusal::invalid("after", "it is no `next` of a list of hooks: begin anew without it")
    })
}

/// Creates a hook, and returns its secret, which cannot be retrieved again; `None` if its sender can be told none.
pub(crate) async fn create(
    state: &State,
    allowed: &Allowed<Write>,
    registry: &RegistryName,
    new: &HookCreate,
) -> Result<(Hook, Option<SecretString>), Refusal> {
    let store = state.store.as_ref();
    let registry = allowed.registry(store, registry).await?;
    let mut mistakes = Mistakes::default();
    let sender = parse_sender(&mut mistakes, &new.provider, new.mapping.as_ref());
    let repositories = repositories(&mut mistakes, &new.repositories);
    let has_secret =
        sender.as_ref().is_none_or(|sender| descriptor(sender.provider()).has_secret());
    let secret = match (has_secret, &new.secret) {
        (true, given) => secret(&mut mistakes, given.as_deref())?,
        (false, None) => None,
        (false, Some(_)) => {
            mistakes.add("secret", no_secret(&new.provider));
            None
        }
    };
    mistakes.none()?;
    let (Some(sender), Some(repositories)) = (sender, repositories) else {
        return Err(Refusal::Internal);
    };
    let random = random_hex::<16>()?;
    let id: HookId = random
        .parse()
        .map_err(|error: gantry_domain::InvalidText| Refusal::invalid("id", error.to_string()))?;
    let now = store.now().await?;
    let seal = |secret| state.keyring.seal(&hooks::seal_for(&id), secret);
    let sealed = secret.as_ref().map(seal).transpose()?;
    let hook = Hook {
        id,
        registry: registry.name,
        prefix: registry.prefix,
        sender,
        repositories,
        secrets: sealed.into_iter().map(|sealed| HookSecret { sealed, created: now }).collect(),
        is_provisioned: false,
        created: now,
    };
    match hooks::create(store, &hook).await {
        Ok(()) => Ok((hook, secret)),
        Err(AddError::Exists { .. }) => Err(Refusal::Internal),
        Err(AddError::NoRegistry { registry }) => Err(Refusal::no_registry(&registry)),
        Err(AddError::Store(error)) => Err(error.into()),
    }
}

/// Why there is no secret.
fn no_secret(provider: &str) -> String {
    format!("a `{provider}` hook has none: its sender can only be told the address")
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

/// The given secret, or a new one.
fn secret(mistakes: &mut Mistakes, given: Option<&str>) -> Result<Option<SecretString>, Refusal> {
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

pub(crate) async fn find<S: Needs>(
    state: &State,
    allowed: &Allowed<S>,
    id: &HookId,
) -> Result<Hook, Refusal> {
    hooks::find(state.store.as_ref(), id)
        .await?
        .filter(|hook| allowed.sees(hook))
        .ok_or_else(|| absent(id))
}

fn absent(id: &HookId) -> Refusal {
    Refusal::NotFound { what: "hook", name: id.to_string() }
}

/// Changes the repositories that a hook is limited to.
pub(crate) async fn update(
    state: &State,
    allowed: &Allowed<Write>,
    id: &HookId,
    asked: &HookUpdate,
) -> Result<Hook, Refusal> {
    let hook = find(state, allowed, id).await?;
    let mut mistakes = Mistakes::default();
    let new = asked.repositories.as_ref().and_then(|texts| repositories(&mut mistakes, texts));
    mistakes.none()?;
    change(state, &hook.id, |hook| {
        if let Some(new) = &new {
            hook.repositories = new.clone();
        }
    })
    .await
}

async fn change(
    state: &State,
    id: &HookId,
    change: impl Fn(&mut Hook) + Send + Sync,
) -> Result<Hook, Refusal> {
    let changed = hooks::update(state.store.as_ref(), id, change).await?;
    state.hooks.forget(id);
    changed.ok_or_else(|| absent(id))
}

/// Removes a hook; its deliveries are kept until they expire.
pub(crate) async fn delete(
    state: &State,
    allowed: &Allowed<Write>,
    id: &HookId,
) -> Result<(), Refusal> {
    let hook = find(state, allowed, id).await?;
    hooks::delete(state.store.as_ref(), &hook).await?;
    state.hooks.forget(&hook.id);
    Ok(())
}

/// Adds a secret to a hook, and returns it. Earlier secrets stay active until they are removed.
pub(crate) async fn add_secret(
    state: &State,
    allowed: &Allowed<Write>,
    hook: &Hook,
    given: &HookSecretCreate,
) -> Result<(Hook, HookSecret, SecretString), Refusal> {
    allowed.check(hook, "hook", &hook.id)?;
    if !descriptor(hook.provider()).has_secret() {
        return Err(Refusal::Conflict {
            code: "no_secret",
            message: no_secret(hook.provider().as_str()),
        });
    }
    if hook.secrets.len() >= MOST_SECRETS {
        return Err(Refusal::Conflict {
            code: "too_many_secrets",
            message: format!("a hook has at most {MOST_SECRETS} secrets: remove one first"),
        });
    }
    let mut mistakes = Mistakes::default();
    let secret = secret(&mut mistakes, given.secret.as_deref())?;
    let Some(secret) = secret else {
        return Err(Refusal::Invalid(mistakes));
    };
    let new = HookSecret {
        sealed: state.keyring.seal(&hooks::seal_for(&hook.id), &secret)?,
        created: state.store.now().await?,
    };
    let hook = change(state, &hook.id, |hook| {
        hook.secrets.insert(0, new.clone());
        hook.secrets.truncate(MOST_SECRETS);
    })
    .await?;
    Ok((hook, new, secret))
}

/// Removes a secret. The last one cannot be removed: remove the hook instead.
pub(crate) async fn remove_secret(
    state: &State,
    allowed: &Allowed<Write>,
    id: &HookId,
    secret: &str,
) -> Result<Hook, Refusal> {
    let hook = find(state, allowed, id).await?;
    if !hook.secrets.iter().any(|known| secret_id(known) == secret) {
        return Err(Refusal::NotFound { what: "secret", name: secret.to_owned() });
    }
    if hook.secrets.len() == 1 {
        return Err(Refusal::Conflict {
            code: "last_secret",
            message: "it is the hook's only secret: add another one first".to_owned(),
        });
    }
    change(state, &hook.id, |hook| {
        if hook.secrets.len() > 1 {
            hook.secrets.retain(|known| secret_id(known) != secret);
        }
    })
    .await
}

/// Sends a test delivery to a hook: a real, signed HTTP request to the hook's public URL.
pub(crate) async fn test(
    state: &State,
    allowed: &Allowed<Write>,
    id: &HookId,
) -> Result<HookTestResult, Refusal> {
    let hook = find(state, allowed, id).await?;
    let open = |secret: &HookSecret| state.keyring.open(&hooks::seal_for(&hook.id), &secret.sealed);
    let secret = hook.secrets.first().map(open).transpose()?;
    send_test_delivery(state, &hook, secret.as_ref()).await
}

/// The URL that a hook's sender posts to.
pub(crate) fn url(state: &State, hook: &Hook) -> String {
    format!("{}/hooks/{}/{}", state.public_url(), hook.provider(), hook.id)
}

/// An id for a secret that reveals nothing about it.
pub(crate) fn secret_id(secret: &HookSecret) -> String {
    let hash = hex::encode(Sha256::digest(secret.sealed.as_text()));
    hash.chars().take(12).collect()
}
