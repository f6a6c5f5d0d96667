//! Retries after conflicting commits.

use crate::store::{Batch, CommitError, Key, Store, StoreError};

/// How many conflicts an operation retries before it reports the store as too busy.
pub(crate) const TRIES: usize = 64;

/// What an operation wants to do, given what it read.
pub(crate) enum Plan<T> {
    /// Nothing is to be written; this is the result.
    Answer(T),
    /// The result, once the batch is committed.
    Commit(Batch, T),
}

/// Plans and commits. On a conflict, plans again with what is stored now.
///
/// # Errors
/// The errors of `plan`; [`StoreError::Unavailable`] naming `what` after [`TRIES`] conflicts.
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

/// Commits without a retry. Returns `false` after a conflict: somebody else was first.
///
/// # Errors
/// [`StoreError`].
pub(crate) async fn once(store: &dyn Store, batch: Batch) -> Result<bool, StoreError> {
    match store.commit(batch).await {
        Ok(()) => Ok(true),
        Err(CommitError::Conflict { .. }) => Ok(false),
        Err(CommitError::Store(error)) => Err(error),
    }
}

/// Every try conflicted.
pub(crate) fn too_busy(what: &Key) -> StoreError {
    StoreError::Unavailable { message: format!("{what} changes faster than it can be written") }
}
