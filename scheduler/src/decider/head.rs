//! Resolves the head of a branch after a push: from the push and the stored head if they suffice, else from the code
//! host.

use gantry_domain::event::Push;
use gantry_domain::fact::{self, Fact, FactKey, PushEffect};
use gantry_domain::id::RegistryName;
use gantry_domain::registry::Registry;
use gantry_domain::source::{RefName, Source};
use gantry_domain::task::Task;
use gantry_domain::timestamp::Timestamp;
use gantry_remote::code_host::{BranchHead, CodeHostError, CodeHostFailure};
use gantry_seams::Versioned;
use gantry_seams::facts;
use gantry_seams::store::StoreError;

use super::Decider;
use super::asks::MayAsk;

/// The current head of a branch, and the fact that was stored before.
pub(super) struct ResolvedHead {
    /// The stored fact, which the new one replaces.
    pub(super) known: Option<Versioned<Fact>>,
    /// The fact with the current head.
    pub(super) now: Fact,
}

impl ResolvedHead {
    /// Whether there is a fact to store. A branch that does not exist and has no fact gets none: otherwise a sender
    /// could fill the store with invented branch names.
    pub(super) fn is_something(&self) -> bool {
        self.known.is_some() || self.now.value.is_some()
    }

    /// Whether the head has changed.
    pub(super) fn advanced(&self) -> bool {
        self.known.as_ref().is_none_or(|known| known.value.generation != self.now.generation)
    }
}

/// How a code host may be queried.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asking {
    /// Whether it may be queried now.
    pub(super) may_ask: MayAsk,
    /// Whether an answer that may be older than the push is postponed. If not, that answer counts.
    pub(super) may_wait: bool,
}

/// Why a head was not resolved.
pub(super) enum Unresolved {
    /// The query failed.
    Asking(CodeHostError),
    /// This host must be queried, and [`MayAsk::NotNow`] forbids it.
    MustAsk(String),
    /// The host may not show the push yet.
    Behind,
    /// An error from the store.
    Store(StoreError),
}

impl From<StoreError> for Unresolved {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Decider {
    /// Resolves the head of `branch` after a push. `tasks` are those that watch the repository: the code host is
    /// queried with their tokens.
    pub(super) async fn resolve_head(
        &self,
        registry: &RegistryName,
        push: &Push,
        branch: &RefName,
        tasks: &[Task],
        now: Timestamp,
        asking: Asking,
    ) -> Result<ResolvedHead, Unresolved> {
        let key = FactKey::branch(registry, &push.repository(), branch);
        let known = facts::find(self.store.as_ref(), &key).await?;
        let fact = known.as_ref().map(|known| &known.value);
        let value = match fact::classify(fact, push) {
            PushEffect::Advances(value) => value,
            PushEffect::Repeats => push.after.clone(),
            PushEffect::Unclear => {
                let value = self.ask(Some(branch), tasks, asking.may_ask).await?.commit;
                if asking.may_wait && fact::may_be_behind(fact, push, value.as_ref()) {
                    return Err(Unresolved::Behind);
                }
                value
            }
        };
        let now = fact::advanced(fact, &key, value, now)
            .remembering(push.before.as_ref())
            .remembering(push.after.as_ref());
        Ok(ResolvedHead { known, now })
    }

    /// Queries the code host with the address and token of each task in turn, until one is accepted. It never uses an
    /// address from a push: then a sender of hooks could have the tokens sent to a server of its own.
    pub(super) async fn ask(
        &self,
        branch: Option<&RefName>,
        tasks: &[Task],
        may_ask: MayAsk,
    ) -> Result<BranchHead, Unresolved> {
        /// More tasks would only send the same query to the same host.
        const TOKENS: usize = 3;
        let mut asked = Vec::with_capacity(TOKENS);
        for task in tasks {
            if let Source::Git(git) = &task.recipe.source
                && asked.len() < TOKENS
            {
                asked.push((task, &git.url));
            }
        }
        if let Some((_, url)) = asked.first()
            && may_ask == MayAsk::NotNow
        {
            // With the port: two servers may share a host name.
            return Err(Unresolved::MustAsk(url.as_url().authority().to_owned()));
        }
        let message = "no task reads the repository from git".to_owned();
        let kind = CodeHostFailure::RefusedToken;
        let mut last = CodeHostError { message, kind };
        for (task, url) in asked {
            let sealed_for = Registry::seals_for(task.prefix);
            let token = match &task.git_token {
                None => None,
                Some(sealed) => match self.keyring.open(&sealed_for, sealed) {
                    Ok(token) => Some(token),
                    Err(error) => {
                        last = CodeHostError { message: error.to_string(), kind };
                        continue;
                    }
                },
            };
            match self.code_host.head(url, branch, token.as_ref()).await {
                Ok(head) => return Ok(head),
                Err(error) if error.refused_token() => last = error,
                Err(error) => return Err(Unresolved::Asking(error)),
            }
        }
        Err(Unresolved::Asking(last))
    }
}
