//! Resolves the current head after a change: from the report and the stored fact if they suffice, else from the code
//! host.

use std::borrow::Cow;

use gantry_domain::event::{PullRequestChange, PullRequestNotice, Push};
use gantry_domain::fact::{self, Before, Effect, Fact, FactKey, Move};
use gantry_domain::id::RegistryName;
use gantry_domain::pull_request::{PullRequest, PullRequestVersion};
use gantry_domain::source::CommitId;
use gantry_domain::task::Task;
use gantry_domain::timestamp::Timestamp;
use gantry_remote::code_host::CodeHostError;
use gantry_seams::Versioned;
use gantry_seams::facts;
use gantry_seams::store::StoreError;

use super::Decider;
use super::asks::MayAsk;

/// The current head, and the fact that was stored before.
pub(super) struct ResolvedHead<V = CommitId> {
    /// The stored fact, which the new one replaces.
    pub(super) known: Option<Versioned<Fact<V>>>,
    /// The fact with the current head.
    pub(super) now: Fact<V>,
}

impl<V> ResolvedHead<V> {
    /// Whether there is a fact to store. What does not exist and has no fact gets none: otherwise a sender could fill
    /// the store with invented names.
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
    /// Resolves what a push moved. `tasks` are those that watch the repository: the code host is queried with their
    /// tokens.
    pub(super) async fn resolve_head(
        &self,
        registry: &RegistryName,
        push: &Push,
        tasks: &[Task],
        now: Timestamp,
        asking: Asking,
    ) -> Result<ResolvedHead, Unresolved> {
        let key = FactKey::moved(registry, &push.repository(), &push.reference);
        let known = facts::find(self.store.as_ref(), &key).await?;
        let fact = known.as_ref().map(|known| &known.value);
        let told = push.into();
        let (value, at) = match fact::classify(fact, &told) {
            Effect::Advances(value) => (value, now),
            Effect::Repeats => (push.after.clone(), now),
            Effect::Unclear => {
                let value = self.ask(Some(&push.reference), tasks, asking.may_ask).await?.commit;
                if asking.may_wait && fact::may_be_behind(fact, &told, value.as_ref()) {
                    return Err(Unresolved::Behind);
                }
                // An older list of heads is told by this time, so it must not be before the answer.
                (value, self.store.now().await?)
            }
        };
        let now = fact::advanced(fact, &key, value, at)
            .remembering(push.before.as_ref())
            .remembering(push.after.as_ref());
        Ok(ResolvedHead { known, now })
    }

    /// Resolves the version of a pull request. `tasks` are those that watch the repository: the provider is queried with
    /// their tokens. Returns the change with the pull request as it is now.
    pub(super) async fn resolve_pull_request<'a>(
        &self,
        registry: &RegistryName,
        change: &'a PullRequestChange,
        tasks: &[Task],
        now: Timestamp,
        asking: Asking,
    ) -> Result<(Cow<'a, PullRequestChange>, ResolvedHead<PullRequestVersion>), Unresolved> {
        let key = change.fact_key(registry);
        let known = facts::find(self.store.as_ref(), &key).await?;
        let fact = known.as_ref().map(|known| &known.value);
        let told: Move<PullRequestVersion> = change.into();
        let mut change = Cow::Borrowed(change);
        let value = match fact::classify(fact, &told) {
            Effect::Advances(value) => value,
            Effect::Repeats => told.after.clone(),
            Effect::Unclear => {
                let number = change.now.number;
                let found = self.ask_for_pull_request(number, tasks, asking.may_ask).await?;
                let value = found.as_ref().and_then(PullRequest::version);
                if asking.may_wait && fact::may_be_behind(fact, &told, value.as_ref()) {
                    return Err(Unresolved::Behind);
                }
                if let Some(found) = found {
                    change.to_mut().now = found;
                }
                value
            }
        };
        let before = match &told.before {
            Before::Was(before) => before.as_ref(),
            Before::Unsaid => None,
        };
        let now = fact::advanced(fact, &key, value, now)
            .remembering(before)
            .remembering(told.after.as_ref());
        Ok((change, ResolvedHead { known, now }))
    }

    /// Resolves the version of a pull request of which a provider reported only a part. The provider is queried for the
    /// rest, unless the notice ends what is known. Returns the change with the pull request as it is now; `None` if it was
    /// not asked for, or there is none of this number.
    pub(super) async fn resolve_notice(
        &self,
        registry: &RegistryName,
        notice: &PullRequestNotice,
        tasks: &[Task],
        now: Timestamp,
        asking: Asking,
    ) -> Result<(Option<PullRequestChange>, ResolvedHead<PullRequestVersion>), Unresolved> {
        let key = notice.fact_key(registry);
        let known = facts::find(self.store.as_ref(), &key).await?;
        let fact: Option<&Fact<PullRequestVersion>> = known.as_ref().map(|known| &known.value);
        let found = match fact.is_some_and(|fact| fact::is_ended_by(fact, notice)) {
            true => None,
            false => self.ask_for_pull_request(notice.number, tasks, asking.may_ask).await?,
        };
        let value = found.as_ref().and_then(PullRequest::version);
        if asking.may_wait && fact::may_be_behind_notice(fact, notice, value.as_ref()) {
            return Err(Unresolved::Behind);
        }
        let now = fact::advanced(fact, &key, value, now);
        Ok((found.map(|found| notice.as_change(found)), ResolvedHead { known, now }))
    }
}
