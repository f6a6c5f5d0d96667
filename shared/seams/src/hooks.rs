//! Hooks.

use gantry_domain::hook::Hook;
use gantry_domain::id::{HookId, RegistryName};

use crate::collection::{Collection, commit_unconditional};
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
        ALL.create_in(&mut batch, id, hook)?;
        batch.index(of_registry(&hook.registry), 0, &hook.id);
        Ok(Plan::Commit(batch, ()))
    })
    .await
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

/// Changes a hook's repositories and secrets; id, registry and provider stay. `None` when there is no such hook.
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
        hook.provider = before.provider;
    };
    ALL.update(store, id.as_str(), keep_identity, |_, _, _| Ok(())).await
}

/// Removes a hook; its deliveries stay for as long as they are kept.
///
/// # Errors
/// [`StoreError`].
pub async fn delete(store: &dyn Store, hook: &Hook) -> Result<(), StoreError> {
    let mut batch = Batch::default();
    ALL.delete_in(&mut batch, hook.id.as_str());
    batch.unindex(of_registry(&hook.registry), &hook.id);
    commit_unconditional(store, batch).await
}

fn of_registry(registry: &RegistryName) -> Index {
    Index::new(format!("hooks/registry/{registry}"))
}
