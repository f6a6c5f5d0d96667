//! Notifications of registries.

use gantry_domain::id::RunPrefix;
use gantry_domain::notification::{MOST, Notification, NotificationName};

use crate::collection::{Collection, commit_unconditional};
use crate::registries::{self, AddError};
use crate::retry::{self, Plan};
use crate::store::{Batch, Index, Kind, Store, StoreError};

const ALL: Collection<Notification> = Collection::new(Kind::Notification);

/// Every notification by id.
pub(crate) fn listing() -> Index {
    ALL.listing()
}

/// A notification could not be created.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The registry has [`MOST`] notifications.
    #[error("the registry has {MOST} notifications")]
    TooMany,
    /// Its name is taken, its registry was deleted, or the store failed.
    #[error(transparent)]
    Add(#[from] AddError),
}

impl From<StoreError> for CreateError {
    fn from(error: StoreError) -> Self {
        Self::Add(error.into())
    }
}

/// Creates a notification.
///
/// # Errors
/// [`CreateError`].
pub async fn create(store: &dyn Store, new: &Notification) -> Result<(), CreateError> {
    let id = id(new.prefix, &new.name);
    let key = ALL.key(&id);
    retry::commit(store, &key, || async {
        if ALL.find(store, &id).await?.is_some() {
            return Err(AddError::Exists { key: key.clone() }.into());
        }
        if list(store, new.prefix).await?.len() >= MOST {
            return Err(CreateError::TooMany);
        }
        let mut batch = Batch::default();
        registries::add_in(store, &mut batch, &new.registry, new.prefix).await?;
        ALL.create_in(&mut batch, &id, new)?;
        batch.index(of_registry(new.prefix), 0, &id);
        Ok(Plan::Commit(batch, ()))
    })
    .await
}

/// Reads a notification.
///
/// # Errors
/// [`StoreError`].
pub async fn find(
    store: &dyn Store,
    registry: RunPrefix,
    name: &NotificationName,
) -> Result<Option<Notification>, StoreError> {
    ALL.find(store, &id(registry, name)).await
}

/// The notifications of a registry by name.
///
/// # Errors
/// [`StoreError`].
pub async fn list(store: &dyn Store, registry: RunPrefix) -> Result<Vec<Notification>, StoreError> {
    ALL.list_in(store, &of_registry(registry), None, MOST).await
}

/// Changes a notification; id, registry, name and format stay. `None` if there is none of this id, also if another one
/// has the name now.
///
/// # Errors
/// [`StoreError`].
pub async fn update(
    store: &dyn Store,
    which: &Notification,
    change: impl Fn(&mut Notification) + Send + Sync,
) -> Result<Option<Notification>, StoreError> {
    let keep_identity = |found: &mut Notification| {
        if found.id != which.id {
            return;
        }
        let before = found.clone();
        change(found);
        (found.id, found.registry, found.prefix) = (before.id, before.registry, before.prefix);
        (found.name, found.format, found.created) = (before.name, before.format, before.created);
    };
    let id = id(which.prefix, &which.name);
    let updated = ALL.update(store, &id, keep_identity, |_, _, _| Ok(())).await?;
    Ok(updated.filter(|found| found.id == which.id))
}

/// Deletes a notification. What it has not sent is not sent any more. A second call changes nothing.
///
/// # Errors
/// [`StoreError`].
pub async fn delete(store: &dyn Store, notification: &Notification) -> Result<(), StoreError> {
    let id = id(notification.prefix, &notification.name);
    let mut batch = Batch::default();
    ALL.delete_in(&mut batch, &id);
    batch.unindex(of_registry(notification.prefix), &id);
    commit_unconditional(store, batch).await
}

fn id(registry: RunPrefix, name: &NotificationName) -> String {
    format!("{registry}/{name}")
}

fn of_registry(registry: RunPrefix) -> Index {
    Index::new(format!("notifications/registry/{registry}"))
}
