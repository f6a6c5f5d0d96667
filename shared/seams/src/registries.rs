//! Registries.

use std::num::NonZeroU32;

use gantry_domain::id::{RegistryName, RunPrefix};
use gantry_domain::image::RegistryHost;
use gantry_domain::registry::{Registry, SealedCredentials};

use crate::codec;
use crate::collection::Collection;
pub use crate::collection::CreateError;
use crate::retry::{self, Plan};
use crate::store::{Batch, Expect, Index, Key, Kind, Store, StoreError};
use crate::{deliveries, hooks, runs, tasks};

const ALL: Collection<Registry> = Collection::new(Kind::Registry);

/// What a caller says of a new registry.
#[derive(Debug, Clone)]
pub struct NewRegistry {
    /// Its name in gantry.
    pub name: RegistryName,
    /// From [`reserve_prefix`].
    pub prefix: RunPrefix,
    /// Its login server.
    pub host: RegistryHost,
    /// Who pushes.
    pub credentials: Option<SealedCredentials>,
    /// How many of its runs may be ready or leased at once.
    pub run_limit: NonZeroU32,
}

/// Every registry by id.
pub(crate) fn listing() -> Index {
    ALL.listing()
}

/// Takes a prefix that no registry has had, for one that is to be created. Its secrets are sealed for it, so it is known
/// first. One that is not used is never given again.
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

/// Reads the registry that has this name now.
///
/// # Errors
/// [`StoreError`].
pub async fn find(store: &dyn Store, name: &RegistryName) -> Result<Option<Registry>, StoreError> {
    ALL.find(store, name.as_str()).await
}

/// Reads the registry of this name and prefix; `None` too where another has the name now.
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

/// Changes credentials and limit; name, host and prefix stay. `None` when there is no such registry, or another by this
/// name.
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

/// Removes a registry that neither tasks nor hooks belong to. Says whether some do, and so it stays. A second call
/// changes nothing.
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
        let mut batch = Batch::default();
        // Whatever was added to it since has replaced its record.
        batch.expect.push((ALL.key(name.as_str()), Expect::Version(found.version)));
        ALL.delete_in(&mut batch, name.as_str());
        batch.delete.push(runs::last_admitted_of_registry(prefix));
        deliveries::close_ledger(&mut batch, prefix, store.now().await?);
        Ok(Plan::Commit(batch, Deleted::Gone))
    })
    .await
}

/// What became of a registry that was to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deleted {
    /// It is not there any more.
    Gone,
    /// Tasks belong to it.
    StillHasTasks,
    /// Hooks belong to it.
    StillHasHooks,
}

/// Something could not be added to a registry.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the fields without a comment explain themselves")]
pub enum AddError {
    /// There is one of that name already.
    #[error("{key} exists already")]
    Exists { key: Key },
    /// The registry was deleted, and may have been made again.
    #[error("registry {registry} was deleted")]
    NoRegistry { registry: RegistryName },
    /// The store's own.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Adds to a batch that something is added to this registry: of it and a deletion at the same time only one is committed.
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
