//! API tokens.

use gantry_domain::id::TokenId;
use gantry_domain::timestamp::Timestamp;
use gantry_domain::token::Token;

use crate::collection::{Collection, CreateError};
use crate::store::{Batch, Kind, Store, StoreError};

const ALL: Collection<Token> = Collection::new(Kind::Token);

/// Creates a token.
///
/// # Errors
/// [`CreateError::Exists`].
pub async fn create(store: &dyn Store, token: &Token) -> Result<(), CreateError> {
    let mut batch = Batch::default();
    ALL.create_in(&mut batch, token.id.as_str(), token)?;
    Ok(store.commit(batch).await?)
}

/// Reads a token.
///
/// # Errors
/// [`StoreError`].
pub async fn find(store: &dyn Store, id: &TokenId) -> Result<Option<Token>, StoreError> {
    ALL.find(store, id.as_str()).await
}

/// Lists tokens by id, after `after`; revoked ones too.
///
/// # Errors
/// [`StoreError`].
pub async fn list(
    store: &dyn Store,
    after: Option<&TokenId>,
    limit: usize,
) -> Result<Vec<Token>, StoreError> {
    ALL.list(store, after.map(TokenId::as_str), limit).await
}

/// Revokes a token for good; a second call keeps the first time. `None` when there is no such token.
///
/// # Errors
/// [`StoreError`].
pub async fn revoke(
    store: &dyn Store,
    id: &TokenId,
    now: Timestamp,
) -> Result<Option<Token>, StoreError> {
    let revoke = |token: &mut Token| {
        token.revoked.get_or_insert(now);
    };
    ALL.update(store, id.as_str(), revoke, |_, _, _| Ok(())).await
}
