//! Registries.

use std::num::NonZeroU32;

use gantry_domain::id::{RegistryName, RunPrefix};
use gantry_domain::image::RegistryHost;
use gantry_domain::registry::{Registry, SealedCredentials};

use crate::codec;
use crate::collection::Collection;
pub use crate::collection::CreateError;
use crate::retry::{self, Plan};
use crate::store::{Batch, Index, Key, Kind, Store, StoreError};
use crate::{runs, tasks};

const ALL: Collection<Registry> = Collection::new(Kind::Registry);

/// What a caller says of a new registry.
#[derive(Debug, Clone)]
pub struct NewRegistry {
    /// Its name in gantry.
    pub name: RegistryName,
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

/// Creates a registry, with run letters of its own.
///
/// # Errors
/// [`CreateError::Exists`].
pub async fn create(store: &dyn Store, new: NewRegistry) -> Result<Registry, CreateError> {
    let counter = Key::new(Kind::Counter, "registries");
    retry::commit(store, &counter, || async {
        if ALL.find(store, new.name.as_str()).await?.is_some() {
            return Err(CreateError::Exists { key: ALL.key(new.name.as_str()) });
        }
        let found = store.load(std::slice::from_ref(&counter)).await?.pop().flatten();
        let count: u64 = match &found {
            Some(record) => codec::parse_text(store, &counter, record, "number").await?,
            None => 0,
        };
        let registry = Registry {
            name: new.name.clone(),
            host: new.host.clone(),
            prefix: RunPrefix::nth(count),
            credentials: new.credentials.clone(),
            run_limit: new.run_limit,
            created: store.now().await?,
        };
        let mut batch = Batch::default();
        let next = (count + 1).to_string();
        match &found {
            Some(record) => batch.replace(counter.clone(), record.version, next),
            None => batch.create(counter.clone(), next),
        }
        ALL.create_in(&mut batch, new.name.as_str(), &registry)?;
        Ok(Plan::Commit(batch, registry))
    })
    .await
}

/// Reads a registry.
///
/// # Errors
/// [`StoreError`].
pub async fn find(store: &dyn Store, name: &RegistryName) -> Result<Option<Registry>, StoreError> {
    ALL.find(store, name.as_str()).await
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

/// Changes credentials and limit; name, host and letters stay. `None` when there is no such registry.
///
/// # Errors
/// [`StoreError`].
pub async fn update(
    store: &dyn Store,
    name: &RegistryName,
    change: impl Fn(&mut Registry) + Send + Sync,
) -> Result<Option<Registry>, StoreError> {
    let keep_identity = |registry: &mut Registry| {
        let (name, prefix, created) = (registry.name.clone(), registry.prefix, registry.created);
        change(registry);
        (registry.name, registry.prefix, registry.created) = (name, prefix, created);
    };
    ALL.update(store, name.as_str(), keep_identity, |_, _, _| Ok(())).await
}

/// Removes a registry that no task belongs to. Answers whether one does, and so it stays.
///
/// # Errors
/// [`StoreError`].
pub async fn delete(store: &dyn Store, name: &RegistryName) -> Result<Deleted, StoreError> {
    if !tasks::list(store, Some(name), None, 1).await?.is_empty() {
        return Ok(Deleted::StillHasTasks);
    }
    let mut batch = Batch::default();
    ALL.delete_in(&mut batch, name.as_str());
    batch.delete.push(runs::last_admitted_of_registry(name));
    crate::collection::commit_unconditional(store, batch).await?;
    Ok(Deleted::Gone)
}

/// What became of a registry that was to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deleted {
    /// It is not there any more.
    Gone,
    /// Tasks belong to it.
    StillHasTasks,
}
