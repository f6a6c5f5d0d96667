//! Operations on the secrets that gantry keeps for a registry.

use gantry_api::SecretSet;
use gantry_domain::id::RegistryName;
use gantry_domain::registry::Registry;
use gantry_domain::secret::{Secret, SecretName};
use gantry_ops::secret::SecretString;
use gantry_seams::secrets::{self, MOST, NewValue, SetError};

use super::paging::{Listed, Paging};
use super::recipe::refuse_secret;
use crate::access::{Allowed, Read, Write};
use crate::refusal::Refusal;
use crate::state::State;

/// Lists the secrets of a registry by name.
pub(crate) async fn list(
    state: &State,
    allowed: &Allowed<Read>,
    registry: &RegistryName,
    paging: &Paging,
) -> Result<Listed<Secret>, Refusal> {
    let store = state.store.as_ref();
    let registry = allowed.registry(store, registry).await?;
    let after: Option<SecretName> = paging.after_id()?;
    let limit = paging.limit();
    let found = secrets::list(store, registry.prefix, after.as_ref(), limit + 1).await?;
    Ok(Listed::of(found, limit, |secret| secret.name.to_string()))
}

/// Shows a secret, without its value.
pub(crate) async fn find(
    state: &State,
    allowed: &Allowed<Read>,
    registry: &RegistryName,
    name: &SecretName,
) -> Result<Secret, Refusal> {
    let store = state.store.as_ref();
    let registry = allowed.registry(store, registry).await?;
    let found = secrets::find(store, registry.prefix, name).await?;
    found.ok_or_else(|| absent(name))
}

/// Sets a secret: creates it, or adds a version.
pub(crate) async fn set(
    state: &State,
    allowed: &Allowed<Write>,
    registry: &RegistryName,
    name: SecretName,
    given: &SecretSet,
) -> Result<Secret, Refusal> {
    let store = state.store.as_ref();
    let Registry { name: registry, prefix, .. } = allowed.registry(store, registry).await?;
    if given.value.is_empty() {
        return Err(Refusal::invalid("value", "it is empty: a secret has at least one byte"));
    }
    if let Some(why) = refuse_secret(&given.value) {
        return Err(Refusal::invalid("value", why));
    }
    let value = SecretString::from(given.value.as_str());
    let value = state.keyring.seal(&Secret::seals_for(prefix, &name), &value)?;
    let new = NewValue { registry, prefix, name, value, by: allowed.by() };
    secrets::set(store, &new).await.map_err(|error| match error {
        SetError::NoRegistry { registry } => Refusal::no_registry(&registry),
        SetError::TooMany => Refusal::Conflict {
            code: "too_many_secrets",
            message: format!("registry {} has {MOST} secrets: delete some", new.registry),
        },
        SetError::Store(error) => error.into(),
    })
}

/// Deletes a secret with all its versions. Runs whose task still names it fail.
pub(crate) async fn delete(
    state: &State,
    allowed: &Allowed<Write>,
    registry: &RegistryName,
    name: &SecretName,
) -> Result<(), Refusal> {
    let store = state.store.as_ref();
    let registry = allowed.registry(store, registry).await?;
    if secrets::find(store, registry.prefix, name).await?.is_none() {
        return Err(absent(name));
    }
    Ok(secrets::delete(store, registry.prefix, name).await?)
}

fn absent(name: &SecretName) -> Refusal {
    Refusal::NotFound { what: "secret", name: name.to_string() }
}
