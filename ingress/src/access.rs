//! Who may do what: bearer tokens, and the proof that one was shown.
//!
//! In: `Authorization: Bearer gantry_<id>_<secret>`. Out: an [`Allowed`], which only a valid token of enough scope makes;
//! a handler that takes one cannot be reached without. What belongs to a registry that the token is not bound to looks as
//! if it were not there.

use std::collections::BTreeSet;
use std::future::{Ready, ready};
use std::marker::PhantomData;
use std::time::{Duration, Instant};

use actix_web::body::MessageBody;
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::http::header;
use actix_web::middleware::Next;
use actix_web::{FromRequest, HttpMessage as _, HttpRequest, web};
use gantry_domain::id::{RegistryName, TokenId};
use gantry_domain::registry::Registry;
use gantry_domain::timestamp::Timestamp;
use gantry_domain::token::{Scope, Token};
use gantry_ops::secret::{SecretError, random_hex};
use gantry_seams::store::{Store, StoreError};
use gantry_seams::{CreateError, registries, tokens};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::ANSWERED_WITHIN;
use crate::api::uploads;
use crate::connections;
use crate::error::ApiError;
use crate::state::State;

/// What every token begins with, so that scanners for lost secrets know it.
const PREFIX: &str = "gantry_";

/// The id of the token that a new installation begins with.
const FIRST_ADMIN: &str = "admin";

/// A scope as a type.
pub(crate) trait Needs: 'static {
    const SCOPE: Scope;
}

macro_rules! scope_types {
    ($($name:ident)*) => {
        $(
            #[derive(Debug)]
            pub(crate) enum $name {}

            impl Needs for $name {
                const SCOPE: Scope = Scope::$name;
            }
        )*
    };
}
scope_types!(Read Run Write Admin);

/// The proof that a valid token of at least scope `S` was shown.
#[derive(Debug)]
pub(crate) struct Allowed<S> {
    token: Token,
    scope: PhantomData<S>,
}

impl<S: Needs> Allowed<S> {
    /// The token.
    pub(crate) fn token(&self) -> &Token {
        &self.token
    }

    /// Its id.
    pub(crate) fn by(&self) -> TokenId {
        self.token.id.clone()
    }

    /// The registries that it is bound to; `None` if to none.
    pub(crate) fn bound_to(&self) -> Option<&BTreeSet<RegistryName>> {
        self.token.registries.as_ref()
    }

    /// Whether it may act on this registry.
    pub(crate) fn sees(&self, registry: &RegistryName) -> bool {
        self.token.allows(S::SCOPE, registry)
    }

    /// Goes on only if the token may act on this registry; otherwise `what` is not there.
    pub(crate) fn check(
        &self,
        registry: &RegistryName,
        what: &'static str,
        name: impl std::fmt::Display,
    ) -> Result<(), ApiError> {
        if self.sees(registry) {
            return Ok(());
        }
        Err(ApiError::NotFound { what, name: name.to_string() })
    }

    /// Goes on only if the token is bound to no registry.
    pub(crate) fn check_everywhere(&self) -> Result<(), ApiError> {
        if self.token.allows_everywhere(S::SCOPE) {
            return Ok(());
        }
        Err(ApiError::Forbidden("this needs a token that is not bound to registries".to_owned()))
    }

    /// The same permission for as long as an answer takes.
    pub(crate) fn standing(&self, registry: &RegistryName) -> Standing {
        Standing {
            token: self.by(),
            scope: S::SCOPE,
            registry: registry.clone(),
            looked: Instant::now(),
        }
    }

    /// Loads a registry that the token may act on.
    pub(crate) async fn registry(
        &self,
        store: &dyn Store,
        name: &RegistryName,
    ) -> Result<Registry, ApiError> {
        let absent = || ApiError::NotFound { what: "registry", name: name.to_string() };
        if !self.sees(name) {
            return Err(absent());
        }
        registries::find(store, name).await?.ok_or_else(absent)
    }
}

/// How often the token behind a long answer is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// A permission for an answer that goes on for long: it ends with its token.
#[derive(Debug)]
pub(crate) struct Standing {
    token: TokenId,
    scope: Scope,
    registry: RegistryName,
    looked: Instant,
}

impl Standing {
    /// Whether the token still allows it. Looks every few seconds, and while the store does not answer takes it that it does.
    pub(crate) async fn holds(&mut self, store: &dyn Store) -> bool {
        if self.looked.elapsed() < LOOK_AGAIN {
            return true;
        }
        self.looked = Instant::now();
        let looked = async {
            let token = tokens::find(store, &self.token).await?;
            let now = store.now().await?;
            let allows =
                |token: &Token| token.is_active(now) && token.allows(self.scope, &self.registry);
            Ok::<_, StoreError>(token.as_ref().is_some_and(allows))
        };
        looked.await.unwrap_or(true)
    }
}

impl<S: Needs> FromRequest for Allowed<S> {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let Some(Shown(token)) = request.extensions().get().cloned() else {
            return ready(Err(ApiError::Unauthorized));
        };
        if token.scope < S::SCOPE {
            return ready(Err(ApiError::needs_scope(S::SCOPE, token.scope)));
        }
        ready(Ok(Self { token, scope: PhantomData }))
    }
}

/// The valid token of a request.
#[derive(Clone)]
struct Shown(Token);

/// Lets a request go on only with a valid token. Before anything else of it is read: whoever has none is not told what
/// else is wrong.
pub(crate) async fn with_token(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    let state = request.app_data::<web::Data<State>>().cloned();
    let shown = bearer(request.request()).map(Zeroizing::new);
    let (Some(state), Some(shown)) = (state, shown) else {
        return Err(ApiError::Unauthorized.into());
    };
    let token = authenticate(state.store.as_ref(), &shown).await?;
    connections::showed_token(request.request(), &token.id).map_err(ApiError::from)?;
    request.extensions_mut().insert(Shown(token));
    if uploads::is_upload(request.path()) {
        return next.call(request).await;
    }
    // A body that never ends would hold its connection for ever. A log's answer begins at once, and is followed after this.
    let patience = state.settings.body_patience + ANSWERED_WITHIN;
    match tokio::time::timeout(patience, next.call(request)).await {
        Ok(answer) => answer,
        Err(_) => Err(ApiError::TooSlow { patience }.into()),
    }
}

fn bearer(request: &HttpRequest) -> Option<String> {
    let value = request.headers().get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
}

async fn authenticate(store: &dyn Store, shown: &str) -> Result<Token, ApiError> {
    let (id, secret) = shown
        .strip_prefix(PREFIX)
        .and_then(|rest| rest.rsplit_once('_'))
        .ok_or(ApiError::Unauthorized)?;
    let id: TokenId = id.parse().map_err(|_| ApiError::Unauthorized)?;
    let token = tokens::find(store, &id).await?.ok_or(ApiError::Unauthorized)?;
    if !is_secret_of(&token, secret) || !token.is_active(store.now().await?) {
        return Err(ApiError::Unauthorized);
    }
    Ok(token)
}

fn is_secret_of(token: &Token, secret: &str) -> bool {
    let shown = hash(secret);
    // Constant time: `==` would tell a guesser how many leading digits of the hash were right.
    shown.as_bytes().ct_eq(token.secret_sha256.as_bytes()).into()
}

fn hash(secret: &str) -> String {
    hex::encode(Sha256::digest(secret.as_bytes()))
}

/// What a new token is to be.
#[derive(Debug, Clone)]
pub(crate) struct Grant {
    pub(crate) description: String,
    pub(crate) scope: Scope,
    pub(crate) registries: Option<BTreeSet<RegistryName>>,
    pub(crate) expires: Option<Timestamp>,
}

/// A token could not be made.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The store's own.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The system has no random bytes.
    #[error(transparent)]
    Secret(#[from] SecretError),
}

impl From<IssueError> for ApiError {
    fn from(error: IssueError) -> Self {
        match error {
            IssueError::Store(error) => error.into(),
            IssueError::Secret(error) => error.into(),
        }
    }
}

/// Makes a token under a new id. Its text is the only copy of the secret.
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

/// Makes a token under this id; `None` if there is one already.
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

/// Makes the admin token that an installation begins with, and gives its text: the only copy of its secret. `None` once
/// there is any token.
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

/// Makes another admin token, should every other be lost, and gives its text. For who has the store in hand anyway.
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
    fn only_the_secret_itself_opens() {
        assert!(is_secret_of(&token(), "right"));
        assert!(!is_secret_of(&token(), "righ"));
        assert!(!is_secret_of(&token(), ""));
        assert!(!is_secret_of(&token(), &hash("right")));
    }
}
