//! Secrets that gantry keeps for the tasks of a registry.

use gantry_domain::id::{RegistryName, RunPrefix, TokenId};
use gantry_domain::sealed::Sealed;
use gantry_domain::secret::{Secret, SecretName};

use crate::collection::{Collection, commit_unconditional};
use crate::registries::{self, AddError};
use crate::retry::{self, Plan};
use crate::store::{Batch, Index, Kind, Store, StoreError};

/// How many secrets a registry has at most.
pub const MOST: usize = 1000;

const ALL: Collection<Secret> = Collection::new(Kind::Secret);

/// A value for a secret.
#[derive(Debug, Clone)]
pub struct NewValue {
    /// The registry.
    pub registry: RegistryName,
    /// Its prefix.
    pub prefix: RunPrefix,
    /// The secret's name.
    pub name: SecretName,
    /// The value, sealed for [`Secret::seals_for`].
    pub value: Sealed,
    /// The token that sets it.
    pub by: TokenId,
}

/// A secret could not be set.
#[derive(Debug, thiserror::Error)]
pub enum SetError {
    /// The registry was deleted; another one may have its name now.
    #[error("registry {registry} was deleted")]
    NoRegistry {
        /// The registry.
        registry: RegistryName,
    },
    /// The registry has [`MOST`] secrets.
    #[error("the registry has {MOST} secrets")]
    TooMany,
    /// An error from the store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Every secret by id.
pub(crate) fn listing() -> Index {
    ALL.listing()
}

/// Sets a secret: creates it, or adds a version.
///
/// # Errors
/// [`SetError`].
pub async fn set(store: &dyn Store, new: &NewValue) -> Result<Secret, SetError> {
    let id = id(new.prefix, &new.name);
    retry::commit(store, &ALL.key(&id), || async {
        let now = store.now().await?;
        let (value, by) = (new.value.clone(), new.by.clone());
        let mut batch = Batch::default();
        if let Some(mut found) = ALL.find_versioned(store, &id).await? {
            found.value.add(value, by, now);
            found.replace_in(&mut batch, ALL.key(&id))?;
            return Ok(Plan::Commit(batch, found.value));
        }
        if list(store, new.prefix, None, MOST).await?.len() >= MOST {
            return Err(SetError::TooMany);
        }
        match registries::add_in(store, &mut batch, &new.registry, new.prefix).await {
            Ok(()) => {}
            Err(AddError::NoRegistry { registry }) => {
                return Err(SetError::NoRegistry { registry });
            }
            Err(AddError::Exists { key }) => return Err(retry::too_busy(&key).into()),
            Err(AddError::Store(error)) => return Err(error.into()),
        }
        let mut secret = Secret {
            registry: new.registry.clone(),
            prefix: new.prefix,
            name: new.name.clone(),
            versions: Vec::new(),
            created: now,
        };
        secret.add(value, by, now);
        ALL.create_in(&mut batch, &id, &secret)?;
        batch.index(of_registry(new.prefix), 0, &id);
        Ok(Plan::Commit(batch, secret))
    })
    .await
}

/// Reads a secret.
///
/// # Errors
/// [`StoreError`].
pub async fn find(
    store: &dyn Store,
    registry: RunPrefix,
    name: &SecretName,
) -> Result<Option<Secret>, StoreError> {
    ALL.find(store, &id(registry, name)).await
}

/// Lists the secrets of a registry by name, after `after`.
///
/// # Errors
/// [`StoreError`].
pub async fn list(
    store: &dyn Store,
    registry: RunPrefix,
    after: Option<&SecretName>,
    limit: usize,
) -> Result<Vec<Secret>, StoreError> {
    let after = after.map(|name| id(registry, name));
    ALL.list_in(store, &of_registry(registry), after.as_deref(), limit).await
}

/// Deletes a secret with all its versions. A second call changes nothing.
///
/// # Errors
/// [`StoreError`].
pub async fn delete(
    store: &dyn Store,
    registry: RunPrefix,
    name: &SecretName,
) -> Result<(), StoreError> {
    let id = id(registry, name);
    let mut batch = Batch::default();
    ALL.delete_in(&mut batch, &id);
    batch.unindex(of_registry(registry), &id);
    commit_unconditional(store, batch).await
}

fn id(registry: RunPrefix, name: &SecretName) -> String {
    format!("{registry}/{name}")
}

fn of_registry(registry: RunPrefix) -> Index {
    Index::new(format!("secrets/registry/{registry}"))
}
