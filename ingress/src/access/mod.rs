//! Who may do what.
//!
//! In: the token of somebody who proved that it is theirs. Out: an [`Allowed`], which only a token of enough scope makes; a
//! function that takes one cannot be reached without. What belongs to a registry that the token is not bound to looks as if
//! it were not there. How a request proves whose it is, is the business of [`bearer`].

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

/// The proof that a valid token of at least scope `S` was shown.
#[derive(Debug)]
pub(crate) struct Allowed<S> {
    token: Token,
    scope: PhantomData<S>,
}

impl<S: Needs> Allowed<S> {
    /// What this token may do, if it has the scope.
    fn with(token: Token) -> Result<Self, Refusal> {
        if token.scope < S::SCOPE {
            return Err(Refusal::needs_scope(S::SCOPE, token.scope));
        }
        Ok(Self { token, scope: PhantomData })
    }

    /// The token.
    pub(crate) fn token(&self) -> &Token {
        &self.token
    }

    /// Its id.
    pub(crate) fn by(&self) -> TokenId {
        self.token.id.clone()
    }

    /// The registries that it is bound to; `None` if to none.
    pub(crate) fn bound_to(&self) -> Option<&BTreeMap<RegistryName, RunPrefix>> {
        self.token.registries.as_ref()
    }

    /// Whether it may act on the registry that this is or belongs to.
    pub(crate) fn sees(&self, owned: &impl OfRegistry) -> bool {
        let (registry, prefix) = owned.registry();
        self.token.allows(S::SCOPE, registry, prefix)
    }

    /// Goes on only if the token may act on the registry that this is or belongs to; otherwise `what` is not there.
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

    /// Goes on only if the token is bound to no registry.
    pub(crate) fn check_everywhere(&self) -> Result<(), Refusal> {
        if self.token.allows_everywhere(S::SCOPE) {
            return Ok(());
        }
        Err(Refusal::Forbidden("this needs a token that is not bound to registries".to_owned()))
    }

    /// The same permission for as long as an answer takes.
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

/// How often the token behind a long answer is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// A permission for an answer that goes on for long: it ends with its token.
#[derive(Debug)]
pub(crate) struct Standing {
    token: TokenId,
    scope: Scope,
    registry: (RegistryName, RunPrefix),
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
            let (registry, prefix) = &self.registry;
            let allows =
                |token: &Token| token.is_active(now) && token.allows(self.scope, registry, *prefix);
            Ok::<_, StoreError>(token.as_ref().is_some_and(allows))
        };
        looked.await.unwrap_or(true)
    }
}
