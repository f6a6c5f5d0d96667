//! Operations on registries.

use std::num::NonZeroU32;

use gantry_api::{Credentials, RegistryCreate, RegistryUpdate};
use gantry_domain::id::{RegistryName, RunPrefix};
use gantry_domain::registry::{Registry, RegistryCredentials, SealedCredentials};
use gantry_ops::secret::{SecretError, SecretString};
use gantry_seams::CreateError;
use gantry_seams::registries::{self, Deleted, NewRegistry};

use super::paging::{Listed, Paging};
use crate::access::{Allowed, Read, Write};
use crate::refusal::{Mistakes, Refusal};
use crate::state::State;

/// Enough for a small team on one machine; the operator can raise it per registry.
const RUN_LIMIT: u32 = 10;

/// Lists the registries that the caller sees, by name.
pub(crate) async fn list(
    state: &State,
    allowed: &Allowed<Read>,
    paging: &Paging,
) -> Result<Listed<Registry>, Refusal> {
    let after: Option<RegistryName> = paging.after_id()?;
    let store = state.store.as_ref();
    let limit = paging.limit();
    let mut found = Vec::new();
    match allowed.bound_to() {
        None => found = registries::list(store, after.as_ref(), limit + 1).await?,
        Some(names) => {
            let names = names.iter().filter(|(name, _)| Some(*name) > after.as_ref());
            for (name, prefix) in names.take(limit + 1) {
                found.extend(registries::find_exactly(store, name, *prefix).await?);
            }
        }
    }
    Ok(Listed::of(found, limit, |registry| registry.name.to_string()))
}

pub(crate) async fn create(
    state: &State,
    allowed: &Allowed<Write>,
    asked: &RegistryCreate,
) -> Result<Registry, Refusal> {
    allowed.check_everywhere()?;
    let mut mistakes = Mistakes::default();
    let name = mistakes.parse::<RegistryName>("name", &asked.name);
    let host = mistakes.parse("host", &asked.host);
    let run_limit = run_limit(&mut mistakes, asked.run_limit.unwrap_or(RUN_LIMIT));
    if let Some(credentials) = &asked.credentials {
        check_credentials(&mut mistakes, credentials);
    }
    check_helper(&mut mistakes, asked.credential_helper, asked.credentials.is_some());
    let (Some(name), Some(host), Some(run_limit)) = (name, host, run_limit) else {
        return Err(Refusal::Invalid(mistakes));
    };
    mistakes.none()?;
    let exists = || Refusal::Conflict {
        code: "exists",
        message: format!(
            "registry `{}` is there already: choose another name, or update it",
            asked.name
        ),
    };
    let store = state.store.as_ref();
    if registries::find(store, &name).await?.is_some() {
        return Err(exists());
    }
    let prefix = registries::reserve_prefix(store).await?;
    let credentials = match &asked.credentials {
        Some(given) => Some(seal(state, prefix, given)?),
        None => asked.credential_helper.then_some(RegistryCredentials::Helper),
    };
    let new = NewRegistry { name, prefix, host, credentials, run_limit };
    match registries::create(store, new).await {
        Ok(registry) => Ok(registry),
        Err(CreateError::Exists { .. }) => Err(exists()),
        Err(CreateError::Store(error)) => Err(error.into()),
    }
}

fn run_limit(mistakes: &mut Mistakes, limit: u32) -> Option<NonZeroU32> {
    mistakes.check("run_limit", NonZeroU32::new(limit).ok_or("0 is no limit: at least 1"))
}

fn check_credentials(mistakes: &mut Mistakes, credentials: &Credentials) {
    let username = &credentials.username;
    if username.len() > 256 || username.contains(':') || username.chars().any(char::is_control) {
        let message = "at most 256 characters, no `:` and no control character";
        mistakes.add("credentials.username", message);
    }
    if credentials.password.is_empty() || credentials.password.len() > 64 * 1024 {
        mistakes.add("credentials.password", "1 to 65536 bytes");
    }
}

fn check_helper(mistakes: &mut Mistakes, has_helper: bool, has_credentials: bool) {
    if has_helper && has_credentials {
        let message = "give `credentials`, or have them given by the operator's helper, not both";
        mistakes.add("credential_helper", message);
    }
}

/// Seals credentials that were already checked.
fn seal(
    state: &State,
    registry: RunPrefix,
    credentials: &Credentials,
) -> Result<RegistryCredentials, SecretError> {
    let secret = SecretString::from(credentials.password.as_str());
    Ok(RegistryCredentials::Given(SealedCredentials {
        username: credentials.username.clone(),
        password: state.keyring.seal(&Registry::seals_for(registry), &secret)?,
    }))
}

/// Changes a registry's credentials and run limit.
pub(crate) async fn update(
    state: &State,
    allowed: &Allowed<Write>,
    name: &RegistryName,
    asked: &RegistryUpdate,
) -> Result<Registry, Refusal> {
    let registry = allowed.registry(state.store.as_ref(), name).await?;
    let mut mistakes = Mistakes::default();
    let limit = asked
        .run_limit
        .map(|limit| run_limit(&mut mistakes, limit))
        .unwrap_or(Some(registry.run_limit));
    if let Some(Some(new)) = &asked.credentials {
        check_credentials(&mut mistakes, new);
    }
    let has_helper = asked.credential_helper == Some(true);
    check_helper(&mut mistakes, has_helper, asked.credentials.is_some());
    mistakes.none()?;
    let credentials = match (&asked.credentials, asked.credential_helper) {
        (Some(Some(new)), _) => Some(Some(seal(state, registry.prefix, new)?)),
        (Some(None), _) => Some(None),
        (None, Some(true)) => Some(Some(RegistryCredentials::Helper)),
        // Credentials that were given stay.
        (None, Some(false)) => registry.given_credentials().is_none().then_some(None),
        (None, None) => None,
    };
    let store = state.store.as_ref();
    let changed = registries::update(store, name, registry.prefix, |registry| {
        registry.run_limit = limit.unwrap_or(registry.run_limit);
        if let Some(credentials) = &credentials {
            registry.credentials.clone_from(credentials);
        }
    });
    changed.await?.ok_or_else(|| Refusal::no_registry(name))
}

/// Removes a registry without tasks, hooks and secrets. Its runs are kept until they expire.
pub(crate) async fn delete(
    state: &State,
    allowed: &Allowed<Write>,
    name: &RegistryName,
) -> Result<(), Refusal> {
    let store = state.store.as_ref();
    let registry = allowed.registry(store, name).await?;
    match registries::delete(store, name, registry.prefix).await? {
        Deleted::Gone => Ok(()),
        Deleted::StillHasTasks => Err(still_has("tasks", name)),
        Deleted::StillHasHooks => Err(still_has("hooks", name)),
        Deleted::StillHasSecrets => Err(still_has("secrets", name)),
        Deleted::StillHasNotifications => Err(still_has("notifications", name)),
    }
}

fn still_has(what: &str, registry: &RegistryName) -> Refusal {
    Refusal::Conflict {
        code: "in_use",
        message: format!("{what} belong to registry `{registry}`: delete them first"),
    }
}
