//! Tries again what others came between.

use crate::store::{Batch, CommitError, Key, Store, StoreError};

/// How often an operation looks again because others changed what it rests on, before the store counts as too busy.
pub(crate) const TRIES: usize = 64;

/// What an operation wants to do, by what it read.
pub(crate) enum Plan<T> {
    /// Nothing is to be written: this is the answer.
    Answer(T),
    /// This is the answer once the batch is committed.
    Commit(Batch, T),
}

/// Plans, and commits the plan. When others changed what it rests on, plans again on what is there now.
///
/// # Errors
/// What `plan` says, and [`StoreError::Unavailable`] that names `what` if others came between each time.
pub(crate) async fn commit<T, E, F>(
    store: &dyn Store,
    what: &Key,
    plan: impl Fn() -> F + Send + Sync,
) -> Result<T, E>
where
    T: Send,
    E: From<StoreError> + Send,
    F: Future<Output = Result<Plan<T>, E>> + Send,
{
    for _ in 0..TRIES {
        let (batch, answer) = match plan().await? {
            Plan::Answer(answer) => return Ok(answer),
            Plan::Commit(batch, answer) => (batch, answer),
        };
        match store.commit(batch).await {
            Ok(()) => return Ok(answer),
            Err(CommitError::Conflict { .. }) => {}
            Err(CommitError::Store(error)) => return Err(error.into()),
        }
    }
    Err(too_busy(what).into())
}

/// Others came between each time.
pub(crate) fn too_busy(what: &Key) -> StoreError {
    StoreError::Unavailable { message: format!("{what} changes faster than it can be written") }
}
