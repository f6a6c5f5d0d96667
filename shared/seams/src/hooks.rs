//! Hooks.

use gantry_domain::hook::Hook;
use gantry_domain::id::{HookId, RegistryName};
use gantry_domain::timestamp::Timestamp;

use crate::collection::{Collection, commit_unconditional};
use crate::place::Place;
use crate::provisioning;
use crate::registries::{self, AddError};
use crate::retry::{self, Plan};
use crate::store::{Batch, Index, Kind, Store, StoreError};

const ALL: Collection<Hook> = Collection::new(Kind::Hook);

/// What a hook's secrets are sealed for.
#[must_use]
pub fn seal_for(id: &HookId) -> String {
    format!("hook/{id}")
}

/// Every hook by id.
pub(crate) fn listing() -> Index {
    ALL.listing()
}

/// Creates a hook.
///
/// # Errors
/// [`AddError`].
pub async fn create(store: &dyn Store, hook: &Hook) -> Result<(), AddError> {
    let id = hook.id.as_str();
    retry::commit(store, &ALL.key(id), || async {
        if ALL.find(store, id).await?.is_some() {
            return Err(AddError::Exists { key: ALL.key(id) });
        }
        let mut batch = Batch::default();
        registries::add_in(store, &mut batch, &hook.registry, hook.prefix).await?;
        create_in(&mut batch, hook)?;
        Ok(Plan::Commit(batch, ()))
    })
    .await
}

/// Adds a new hook to a batch, which adds it to its registry.
pub(crate) fn create_in(batch: &mut Batch, hook: &Hook) -> Result<(), StoreError> {
    ALL.create_in(batch, hook.id.as_str(), hook)?;
    batch.index(of_registry(&hook.registry), 0, &hook.id);
    Ok(())
}

/// Reads a hook.
///
/// # Errors
/// [`StoreError`].
pub async fn find(store: &dyn Store, id: &HookId) -> Result<Option<Hook>, StoreError> {
    ALL.find(store, id.as_str()).await
}

/// Lists hooks by id, of one registry or of all, after `after`.
///
/// # Errors
/// [`StoreError`].
pub async fn list(
    store: &dyn Store,
    registry: Option<&RegistryName>,
    after: Option<&HookId>,
    limit: usize,
) -> Result<Vec<Hook>, StoreError> {
    let after = after.map(HookId::as_str);
    match registry {
        Some(registry) => ALL.list_in(store, &of_registry(registry), after, limit).await,
        None => ALL.list(store, after, limit).await,
    }
}

/// Changes a hook's repositories and secrets; id, registry and sender stay, and the repository of a hook that gantry made. `None` when there is no such hook.
///
/// # Errors
/// [`StoreError`].
pub async fn update(
    store: &dyn Store,
    id: &HookId,
    change: impl Fn(&mut Hook) + Send + Sync,
) -> Result<Option<Hook>, StoreError> {
    let keep_identity = |hook: &mut Hook| {
        let before = hook.clone();
        change(hook);
        (hook.id, hook.registry, hook.prefix) = (before.id, before.registry, before.prefix);
        (hook.sender, hook.is_provisioned) = (before.sender, before.is_provisioned);
        if hook.is_provisioned {
            hook.repositories = before.repositories;
        }
    };
    let now = store.now().await?;
    // The provider is to use the newest secret.
    let look = |batch: &mut Batch, _: &Hook, after: &Hook| {
        look_at(batch, after, now);
        Ok(())
    };
    ALL.update(store, id.as_str(), keep_identity, look).await
}

/// Removes a hook; its deliveries stay for as long as they are kept.
///
/// # Errors
/// [`StoreError`].
pub async fn delete(store: &dyn Store, hook: &Hook) -> Result<(), StoreError> {
    let mut batch = Batch::default();
    delete_in(&mut batch, hook);
    look_at(&mut batch, hook, store.now().await?);
    commit_unconditional(store, batch).await
}

/// Removes a hook in a batch.
pub(crate) fn delete_in(batch: &mut Batch, hook: &Hook) {
    ALL.delete_in(batch, hook.id.as_str());
    batch.unindex(of_registry(&hook.registry), &hook.id);
}

/// Has the webhook that sends to a hook looked at, if gantry made it.
fn look_at(batch: &mut Batch, hook: &Hook, now: Timestamp) {
    if let Some(repository) = hook.repositories.first().filter(|_| hook.is_provisioned) {
        let place = Place { registry: hook.prefix, repository: repository.clone() };
        provisioning::ask(batch, &place, now);
    }
}

fn of_registry(registry: &RegistryName) -> Index {
    Index::new(format!("hooks/registry/{registry}"))
}
