//! Registries.

use std::num::NonZeroU32;

use gantry_domain::id::{RegistryName, RunPrefix};
use gantry_domain::image::RegistryHost;
use gantry_domain::registry::{Registry, RegistryCredentials};

use crate::codec;
use crate::collection::Collection;
pub use crate::collection::CreateError;
use crate::retry::{self, Plan};
use crate::store::{Batch, Expect, Index, Key, Kind, Store, StoreError};
use crate::{deliveries, hooks, notifications, runs, secrets, tasks};

const ALL: Collection<Registry> = Collection::new(Kind::Registry);

/// A registry to be created.
#[derive(Debug, Clone)]
pub struct NewRegistry {
    /// Its name in gantry.
    pub name: RegistryName,
    /// From [`reserve_prefix`].
    pub prefix: RunPrefix,
    /// The registry's login server.
    pub host: RegistryHost,
    /// The credentials to push with; `None` for anonymous access.
    pub credentials: Option<RegistryCredentials>,
    /// How many of its runs may be admitted and not ended at once.
    pub run_limit: NonZeroU32,
}

/// The index of all registries, by id.
pub(crate) fn listing() -> Index {
    ALL.listing()
}

/// Reserves a prefix that no registry has had. The prefix is needed before the registry is created, because its secrets
/// are sealed for it. An unused prefix is never assigned again.
///
/// # Errors
/// [`StoreError`].
pub async fn reserve_prefix(store: &dyn Store) -> Result<RunPrefix, StoreError> {
    let counter = Key::new(Kind::Counter, "registries");
    retry::commit(store, &counter, || async {
        let found = store.load(std::slice::from_ref(&counter)).await?.pop().flatten();
        let mut batch = Batch::default();
        let count: u32 = match &found {
            None => {
                batch.create(counter.clone(), "1");
                0
            }
            Some(record) => {
                let count: u32 = codec::parse_text(store, &counter, record, "number").await?;
                batch.replace(counter.clone(), record.version, (u64::from(count) + 1).to_string());
                count
            }
        };
        Ok(Plan::Commit(batch, RunPrefix::nth(count)))
    })
    .await
}

/// Creates a registry.
///
/// # Errors
/// [`CreateError::Exists`].
pub async fn create(store: &dyn Store, new: NewRegistry) -> Result<Registry, CreateError> {
    let registry = Registry {
        name: new.name,
        host: new.host,
        prefix: new.prefix,
        credentials: new.credentials,
        run_limit: new.run_limit,
        created: store.now().await?,
    };
    let mut batch = Batch::default();
    ALL.create_in(&mut batch, registry.name.as_str(), &registry)?;
    deliveries::open_ledger(&mut batch, registry.prefix);
    store.commit(batch).await?;
    Ok(registry)
}

/// Reads the registry that currently has this name.
///
/// # Errors
/// [`StoreError`].
pub async fn find(store: &dyn Store, name: &RegistryName) -> Result<Option<Registry>, StoreError> {
    ALL.find(store, name.as_str()).await
}

/// Reads the registry with this name and prefix; `None` also if another registry has the name now.
///
/// # Errors
/// [`StoreError`].
pub async fn find_exactly(
    store: &dyn Store,
    name: &RegistryName,
    prefix: RunPrefix,
) -> Result<Option<Registry>, StoreError> {
    Ok(find(store, name).await?.filter(|registry| registry.prefix == prefix))
}

/// Lists registries by name, after `after`.
///
/// # Errors
/// [`StoreError`].
pub async fn list(
    store: &dyn Store,
    after: Option<&RegistryName>,
    limit: usize,
) -> Result<Vec<Registry>, StoreError> {
    ALL.list(store, after.map(RegistryName::as_str), limit).await
}

/// Changes a registry; its name, prefix and time of creation stay. `None` if there is no registry of this name and
/// prefix.
///
/// # Errors
/// [`StoreError`].
pub async fn update(
    store: &dyn Store,
    name: &RegistryName,
    prefix: RunPrefix,
    change: impl Fn(&mut Registry) + Send + Sync,
) -> Result<Option<Registry>, StoreError> {
    let keep_identity = |registry: &mut Registry| {
        if registry.prefix != prefix {
            return;
        }
        let (name, created) = (registry.name.clone(), registry.created);
        change(registry);
        (registry.name, registry.prefix, registry.created) = (name, prefix, created);
    };
    let updated = ALL.update(store, name.as_str(), keep_identity, |_, _, _| Ok(())).await?;
    Ok(updated.filter(|registry| registry.prefix == prefix))
}

/// Removes a registry without tasks, hooks, secrets and notifications; one that has some stays. A second call changes nothing.
///
/// # Errors
/// [`StoreError`].
pub async fn delete(
    store: &dyn Store,
    name: &RegistryName,
    prefix: RunPrefix,
) -> Result<Deleted, StoreError> {
    retry::commit(store, &ALL.key(name.as_str()), || async {
        let found = ALL.find_versioned(store, name.as_str()).await?;
        let Some(found) = found.filter(|found| found.value.prefix == prefix) else {
            return Ok(Plan::Answer(Deleted::Gone));
        };
        if !tasks::list(store, Some(name), None, 1).await?.is_empty() {
            return Ok(Plan::Answer(Deleted::StillHasTasks));
        }
        if !hooks::list(store, Some(name), None, 1).await?.is_empty() {
            return Ok(Plan::Answer(Deleted::StillHasHooks));
        }
        if !secrets::list(store, prefix, None, 1).await?.is_empty() {
            return Ok(Plan::Answer(Deleted::StillHasSecrets));
        }
        if !notifications::list(store, prefix).await?.is_empty() {
            return Ok(Plan::Answer(Deleted::StillHasNotifications));
        }
        let mut batch = Batch::default();
        // Adding any of these replaces the registry's record, so this conflicts with one added since.
        batch.expect.push((ALL.key(name.as_str()), Expect::Version(found.version)));
        ALL.delete_in(&mut batch, name.as_str());
        batch.delete.push(runs::last_admitted_of_registry(prefix));
        batch.delete.push(runs::turns_of_registry(prefix));
        deliveries::close_ledger(&mut batch, prefix, store.now().await?);
        Ok(Plan::Commit(batch, Deleted::Gone))
    })
    .await
}

/// The result of [`delete`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deleted {
    /// The registry no longer exists.
    Gone,
    /// It still has tasks and was not removed.
    StillHasTasks,
    /// It still has hooks and was not removed.
    StillHasHooks,
    /// It still has secrets and was not removed.
    StillHasSecrets,
    /// It still has notifications and was not removed.
    StillHasNotifications,
}

/// A task, hook, secret or notification could not be added to a registry.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the fields without a comment explain themselves")]
pub enum AddError {
    /// The name is taken.
    #[error("{key} already exists")]
    Exists { key: Key },
    /// The registry was deleted; another one may have its name now.
    #[error("registry {registry} was deleted")]
    NoRegistry { registry: RegistryName },
    /// An error from the store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Makes the batch conflict with a concurrent deletion of this registry: only one of the two commits.
///
/// # Errors
/// [`AddError::NoRegistry`].
pub(crate) async fn add_in(
    store: &dyn Store,
    batch: &mut Batch,
    name: &RegistryName,
    prefix: RunPrefix,
) -> Result<(), AddError> {
    let key = ALL.key(name.as_str());
    let found = ALL.find_versioned(store, name.as_str()).await?;
    let found = found
        .filter(|found| found.value.prefix == prefix)
        .ok_or_else(|| AddError::NoRegistry { registry: name.clone() })?;
    Ok(found.replace_in(batch, key)?)
}
