//! Small named records: one key each, and one listing in the order of ids.

use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec::{self, Versioned};
use crate::retry::{self, Plan};
use crate::store::{Batch, CommitError, Entry, From, Index, Key, Kind, Store, StoreError};

/// Records of one kind, listed by id.
pub(crate) struct Collection<T> {
    kind: Kind,
    value: PhantomData<fn() -> T>,
}

impl<T: Serialize + DeserializeOwned + Clone + PartialEq + Send + Sync> Collection<T> {
    pub(crate) const fn new(kind: Kind) -> Self {
        Self { kind, value: PhantomData }
    }

    pub(crate) fn key(&self, id: &str) -> Key {
        Key::new(self.kind, id)
    }

    pub(crate) fn listing(&self) -> Index {
        Index::new(format!("{}/all", self.kind.as_str()))
    }

    /// Adds a new record to a batch; the commit conflicts if it exists.
    pub(crate) fn create_in(
        &self,
        batch: &mut Batch,
        id: &str,
        value: &T,
    ) -> Result<(), StoreError> {
        let key = self.key(id);
        batch.create(key.clone(), codec::encode(&key, value)?);
        batch.index(self.listing(), 0, id);
        Ok(())
    }

    /// Writes a record without a precondition.
    pub(crate) async fn put(
        &self,
        store: &dyn Store,
        id: &str,
        value: &T,
    ) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        self.put_in(&mut batch, id, value)?;
        commit_unconditional(store, batch).await
    }

    /// Adds a record to a batch without a precondition.
    pub(crate) fn put_in(&self, batch: &mut Batch, id: &str, value: &T) -> Result<(), StoreError> {
        let key = self.key(id);
        batch.put(key.clone(), codec::encode(&key, value)?);
        batch.index(self.listing(), 0, id);
        Ok(())
    }

    pub(crate) async fn find(&self, store: &dyn Store, id: &str) -> Result<Option<T>, StoreError> {
        Ok(self.find_versioned(store, id).await?.map(|found| found.value))
    }

    pub(crate) async fn find_versioned(
        &self,
        store: &dyn Store,
        id: &str,
    ) -> Result<Option<Versioned<T>>, StoreError> {
        codec::load(store, &self.key(id)).await
    }

    /// At most `limit` records with ids after `after`, in the order of ids.
    pub(crate) async fn list(
        &self,
        store: &dyn Store,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<T>, StoreError> {
        self.list_in(store, &self.listing(), after, limit).await
    }

    /// Like [`Self::list`], for another index whose members are ids and whose scores are 0.
    pub(crate) async fn list_in(
        &self,
        store: &dyn Store,
        index: &Index,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<T>, StoreError> {
        let from =
            after.map_or(From::Start, |id| From::After(Entry { score: 0, member: id.to_owned() }));
        codec::load_members(store, index, from, limit, |entry| Some(self.key(&entry.member))).await
    }

    /// Changes a record under its version. `also` adds what must change in the same commit. `None` if there is no such
    /// record.
    pub(crate) async fn update(
        &self,
        store: &dyn Store,
        id: &str,
        change: impl Fn(&mut T) + Send + Sync,
        also: impl Fn(&mut Batch, &T, &T) -> Result<(), StoreError> + Send + Sync,
    ) -> Result<Option<T>, StoreError> {
        retry::commit(store, &self.key(id), || async {
            let Some(mut found) = self.find_versioned(store, id).await? else {
                return Ok(Plan::Answer(None));
            };
            let before = found.value.clone();
            change(&mut found.value);
            if found.value == before {
                return Ok(Plan::Answer(Some(before)));
            }
            let mut batch = Batch::default();
            found.replace_in(&mut batch, self.key(id))?;
            also(&mut batch, &before, &found.value)?;
            Ok(Plan::Commit(batch, Some(found.value)))
        })
        .await
    }

    /// Removes a record; a missing record is no error.
    pub(crate) fn delete_in(&self, batch: &mut Batch, id: &str) {
        batch.delete.push(self.key(id));
        batch.unindex(self.listing(), id);
    }
}

/// Commits a batch without preconditions.
pub(crate) async fn commit_unconditional(
    store: &dyn Store,
    batch: Batch,
) -> Result<(), StoreError> {
    match store.commit(batch).await {
        Ok(()) => Ok(()),
        Err(CommitError::Store(error)) => Err(error),
        Err(CommitError::Conflict { key }) => Err(StoreError::Unavailable {
            message: format!("a conflict on {key} without a precondition"),
        }),
    }
}

/// A record could not be created.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the fields without a comment explain themselves")]
pub enum CreateError {
    /// The name is taken.
    #[error("{key} already exists")]
    Exists { key: Key },
    /// An error from the store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl std::convert::From<CommitError> for CreateError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Conflict { key } => Self::Exists { key },
            CommitError::Store(error) => Self::Store(error),
        }
    }
}
