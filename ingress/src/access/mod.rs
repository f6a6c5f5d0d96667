//! Authorization.
//!
//! In: an authenticated token. Out: an [`Allowed`], which only a token of sufficient scope can produce; functions that
//! take one cannot be called without it. Objects of registries that the token is not bound to look as if they did not
//! exist. Authentication is the business of [`bearer`].

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::time::{Duration, Instant};

use gantry_domain::id::{RegistryName, RunPrefix, TokenId};
use gantry_domain::registry::Registry;
use gantry_domain::token::{Scope, Token};
use gantry_seams::store::{Store, StoreError};
use gantry_seams::{registries, tokens};

use crate::refusal::Refusal;

mod bearer;
mod issue;
mod owned;

pub(crate) use bearer::with_token;
pub(crate) use issue::{Grant, issue};
pub use issue::{IssueError, bootstrap_admin_token, issue_admin_token};
use owned::OfRegistry;

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

/// Proof that the caller showed a valid token of at least scope `S`.
#[derive(Debug)]
pub(crate) struct Allowed<S> {
    token: Token,
    scope: PhantomData<S>,
}

impl<S: Needs> Allowed<S> {
    /// Fails if the token's scope is too small.
    fn with(token: Token) -> Result<Self, Refusal> {
        if token.scope < S::SCOPE {
            return Err(Refusal::needs_scope(S::SCOPE, token.scope));
        }
        Ok(Self { token, scope: PhantomData })
    }

    pub(crate) fn token(&self) -> &Token {
        &self.token
    }

    /// The token's id.
    pub(crate) fn by(&self) -> TokenId {
        self.token.id.clone()
    }

    /// The registries that the token is bound to; `None` if it is not bound.
    pub(crate) fn bound_to(&self) -> Option<&BTreeMap<RegistryName, RunPrefix>> {
        self.token.registries.as_ref()
    }

    /// Whether the token may act on this registry, or on the registry that this belongs to.
    pub(crate) fn sees(&self, owned: &impl OfRegistry) -> bool {
        let (registry, prefix) = owned.registry();
        self.token.allows(S::SCOPE, registry, prefix)
    }

    /// Fails with `NotFound` for `what` unless the token may act on the object's registry.
    pub(crate) fn check(
        &self,
        owned: &impl OfRegistry,
        what: &'static str,
        name: impl std::fmt::Display,
    ) -> Result<(), Refusal> {
        if self.sees(owned) {
            return Ok(());
        }
        Err(Refusal::NotFound { what, name: name.to_string() })
    }

    /// Fails if the token is bound to registries.
    pub(crate) fn check_everywhere(&self) -> Result<(), Refusal> {
        if self.token.allows_everywhere(S::SCOPE) {
            return Ok(());
        }
        Err(Refusal::Forbidden("this needs a token that is not bound to registries".to_owned()))
    }

    /// The same permission, for a long answer.
    pub(crate) fn standing(&self, owned: &impl OfRegistry) -> Standing {
        let (registry, prefix) = owned.registry();
        Standing {
            token: self.by(),
            scope: S::SCOPE,
            registry: (registry.clone(), prefix),
            looked: Instant::now(),
        }
    }

    /// Loads a registry that the caller may act on.
    pub(crate) async fn registry(
        &self,
        store: &dyn Store,
        name: &RegistryName,
    ) -> Result<Registry, Refusal> {
        let found = registries::find(store, name).await?.filter(|registry| self.sees(registry));
        found.ok_or_else(|| Refusal::no_registry(name))
    }
}

/// How often the token behind a long answer is checked again.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// A permission for a long answer. It ends when the token is revoked.
#[derive(Debug)]
pub(crate) struct Standing {
    token: TokenId,
    scope: Scope,
    registry: (RegistryName, RunPrefix),
    looked: Instant,
}

impl Standing {
    /// Whether the token is still valid. Checks every few seconds; while the store does not answer, it counts as valid.
    pub(crate) async fn holds(&mut self, store: &dyn Store) -> bool {
        if self.looked.elapsed() < LOOK_AGAIN {
            return true;
        }
        self.looked = Instant::now();
        let looked = async {
            let token = tokens::find(store, &self.token).await?;
            let now = store.now().await?;
            let (registry, prefix) = &self.registry;
            let allows =
                |token: &Token| token.is_active(now) && token.allows(self.scope, registry, *prefix);
            Ok::<_, StoreError>(token.as_ref().is_some_and(allows))
        };
        looked.await.unwrap_or(true)
    }
}
