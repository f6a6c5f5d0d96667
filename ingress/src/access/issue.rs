//! Creates tokens, and verifies their secrets.

use std::collections::BTreeMap;

use gantry_domain::id::{RegistryName, RunPrefix, TokenId};
use gantry_domain::timestamp::Timestamp;
use gantry_domain::token::{Scope, Token};
use gantry_ops::secret::{SecretError, random_hex};
use gantry_seams::store::{Store, StoreError};
use gantry_seams::{CreateError, tokens};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::refusal::Refusal;

/// The prefix of every token, known to scanners for leaked secrets.
pub(super) const PREFIX: &str = "gantry_";

/// The id of a new installation's first token.
const FIRST_ADMIN: &str = "admin";

/// The properties of a new token.
#[derive(Debug, Clone)]
pub(crate) struct Grant {
    pub(crate) description: String,
    pub(crate) scope: Scope,
    pub(crate) registries: Option<BTreeMap<RegistryName, RunPrefix>>,
    pub(crate) expires: Option<Timestamp>,
}

/// A token could not be created.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// An error from the store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The system has no random bytes.
    #[error(transparent)]
    Secret(#[from] SecretError),
}

impl From<IssueError> for Refusal {
    fn from(error: IssueError) -> Self {
        match error {
            IssueError::Store(error) => error.into(),
            IssueError::Secret(error) => error.into(),
        }
    }
}

/// Creates a token with a new id. The returned text is the only copy of its secret.
pub(crate) async fn issue(
    store: &dyn Store,
    grant: Grant,
) -> Result<(Token, Zeroizing<String>), IssueError> {
    loop {
        let random = random_hex::<6>()?;
        let Ok(id) = random.parse() else {
            return Err(SecretError::NoEntropy.into());
        };
        if let Some(issued) = issue_as(store, id, grant.clone()).await? {
            return Ok(issued);
        }
    }
}

/// Creates a token with this id; `None` if the id is taken.
async fn issue_as(
    store: &dyn Store,
    id: TokenId,
    grant: Grant,
) -> Result<Option<(Token, Zeroizing<String>)>, IssueError> {
    let secret = random_hex::<32>()?;
    let text = Zeroizing::new(format!("{PREFIX}{id}_{}", secret.as_str()));
    let token = Token {
        id,
        description: grant.description,
        secret_sha256: hash(&secret),
        scope: grant.scope,
        registries: grant.registries,
        created: store.now().await?,
        expires: grant.expires,
        revoked: None,
    };
    match tokens::create(store, &token).await {
        Ok(()) => Ok(Some((token, text))),
        Err(CreateError::Exists { .. }) => Ok(None),
        Err(CreateError::Store(error)) => Err(error.into()),
    }
}

/// Creates the admin token of a new installation, and returns its text, the only copy of the secret. `None` if there is
/// any token already.
///
/// # Errors
/// [`IssueError`].
pub async fn bootstrap_admin_token(
    store: &dyn Store,
) -> Result<Option<Zeroizing<String>>, IssueError> {
    if !tokens::list(store, None, 1).await?.is_empty() {
        return Ok(None);
    }
    let Ok(id) = FIRST_ADMIN.parse() else {
        return Ok(None);
    };
    let grant = Grant {
        description: "made at the first start".to_owned(),
        scope: Scope::Admin,
        registries: None,
        expires: None,
    };
    Ok(issue_as(store, id, grant).await?.map(|(_, text)| text))
}

/// Creates another admin token, in case every other is lost, and returns its text. For operators with access to the
/// store.
///
/// # Errors
/// [`IssueError`].
pub async fn issue_admin_token(store: &dyn Store) -> Result<Zeroizing<String>, IssueError> {
    let grant = Grant {
        description: "made by the operator".to_owned(),
        scope: Scope::Admin,
        registries: None,
        expires: None,
    };
    Ok(issue(store, grant).await?.1)
}

pub(super) fn is_secret_of(token: &Token, secret: &str) -> bool {
    let shown = hash(secret);
    // In constant time: `==` would reveal how many leading digits of the hash are right.
    shown.as_bytes().ct_eq(token.secret_sha256.as_bytes()).into()
}

fn hash(secret: &str) -> String {
    hex::encode(Sha256::digest(secret.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> Token {
        Token {
            id: "t1".parse().unwrap(),
            description: String::new(),
            secret_sha256: hash("right"),
            scope: Scope::Read,
            registries: None,
            created: Timestamp::from_millis(0),
            expires: None,
            revoked: None,
        }
    }

    #[test]
    fn only_the_right_secret_is_accepted() {
        assert!(is_secret_of(&token(), "right"));
        assert!(!is_secret_of(&token(), "righ"));
        assert!(!is_secret_of(&token(), ""));
        assert!(!is_secret_of(&token(), &hash("right")));
    }
}
