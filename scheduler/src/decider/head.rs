//! Resolves the head of a branch after a push: by the push itself where the known head allows it, else at the code host.

use gantry_domain::event::Push;
use gantry_domain::fact::{self, Fact, FactKey, PushEffect};
use gantry_domain::id::RegistryName;
use gantry_domain::registry::Registry;
use gantry_domain::source::{RefName, Source};
use gantry_domain::task::Task;
use gantry_domain::timestamp::Timestamp;
use gantry_remote::code_host::{BranchHead, CodeHostError};
use gantry_seams::Versioned;
use gantry_seams::facts;
use gantry_seams::store::StoreError;

use super::Decider;
use super::asks::MayAsk;

/// The current head of a branch, and the fact that was stored before.
pub(super) struct ResolvedHead {
    /// What the store said, to be advanced from.
    pub(super) known: Option<Versioned<Fact>>,
    /// The fact with the current head.
    pub(super) now: Fact,
}

impl ResolvedHead {
    /// Whether there is anything to know: a branch that never was and is not has no fact, or a sender could have as many stored
    /// as it has names.
    pub(super) fn is_something(&self) -> bool {
        self.known.is_some() || self.now.value.is_some()
    }

    /// Whether something changed.
    pub(super) fn advanced(&self) -> bool {
        self.known.as_ref().is_none_or(|known| known.value.generation != self.now.generation)
    }
}

/// How a code host may be asked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asking {
    /// Whether now.
    pub(super) may_ask: MayAsk,
    /// Whether it may be asked again later if it may be behind the push.
    pub(super) may_wait: bool,
}

/// Why a head is not resolved.
pub(super) enum Unresolved {
    /// The code host could not be asked: later, perhaps.
    Asking(CodeHostError),
    /// This host must be asked, which may take a while.
    MustAsk(String),
    /// The host may not show yet what the push says.
    Behind,
    /// The store's own.
    Store(StoreError),
}

impl From<StoreError> for Unresolved {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Decider {
    /// What a push means for the head of its branch. `tasks` watch it, and one of their tokens may be needed to ask.
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

    /// Asks the code host, with the address and the token of each task in turn until one is let in. Never at an address
    /// that a push names: whoever sends hooks would be sent the tokens.
    pub(super) async fn ask(
        &self,
        branch: Option<&RefName>,
        tasks: &[Task],
        may_ask: MayAsk,
    ) -> Result<BranchHead, Unresolved> {
        /// More would only ask the same host the same thing.
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
            // Two servers may share a name, at different ports.
            return Err(Unresolved::MustAsk(url.as_url().authority().to_owned()));
        }
        let message = "no task reads the repository from git".to_owned();
        let mut last = CodeHostError { message, refused_token: true };
        for (task, url) in asked {
            let sealed_for = Registry::seals_for(task.prefix);
            let token = match &task.git_token {
                None => None,
                Some(sealed) => match self.keyring.open(&sealed_for, sealed) {
                    Ok(token) => Some(token),
                    Err(error) => {
                        last = CodeHostError { message: error.to_string(), refused_token: true };
                        continue;
                    }
                },
            };
            match self.code_host.head(url, branch, token.as_ref()).await {
                Ok(head) => return Ok(head),
                Err(error) if error.refused_token => last = error,
                Err(error) => return Err(Unresolved::Asking(error)),
            }
        }
        Err(Unresolved::Asking(last))
    }
}
