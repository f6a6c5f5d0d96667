//! Decides which runs a change of a pull request starts.

use std::borrow::Cow;

use gantry_domain::decide::{Rule, judge, matcher};
use gantry_domain::event::{PullRequestChange, PullRequestNotice};
use gantry_domain::fact::FactKey;
use gantry_domain::id::{HookId, RegistryName};
use gantry_domain::pull_request::PullRequestVersion;
use gantry_domain::source::GitUrl;
use gantry_domain::task::Task;
use gantry_domain::timestamp::Timestamp;
use gantry_seams::decisions::Undecided;
use gantry_seams::place::Place;
use gantry_seams::store::StoreError;
use gantry_seams::tasks;

use super::asks::MayAsk;
use super::change::{CANDIDATES_A_COMMIT, Change, FoundHead, RunKeys};
use super::head::{Asking, ResolvedHead, Unresolved};
use super::queries::FilesOf;
use super::{Decider, Progress};

/// What a provider reported about a pull request.
#[derive(Clone, Copy)]
pub(super) enum Reported<'a> {
    /// All of it.
    Change(&'a PullRequestChange),
    /// So little that the provider must be asked.
    Notice(&'a PullRequestNotice),
}

impl<'a> Reported<'a> {
    fn url(self) -> &'a GitUrl {
        match self {
            Self::Change(change) => &change.url,
            Self::Notice(notice) => &notice.url,
        }
    }

    fn hook(self) -> Option<&'a HookId> {
        match self {
            Self::Change(change) => change.hook.as_ref(),
            Self::Notice(notice) => notice.hook.as_ref(),
        }
    }

    fn number(self) -> u64 {
        match self {
            Self::Change(change) => change.now.number,
            Self::Notice(notice) => notice.number,
        }
    }

    fn fact_key(self, registry: &RegistryName) -> FactKey {
        match self {
            Self::Change(change) => change.fact_key(registry),
            Self::Notice(notice) => notice.fact_key(registry),
        }
    }

    /// The change, as far as it was reported.
    fn change(self) -> Option<Cow<'a, PullRequestChange>> {
        match self {
            Self::Change(change) => Some(Cow::Borrowed(change)),
            Self::Notice(_) => None,
        }
    }
}

/// The change, if there is a pull request, and its version.
type Resolved<'a> = (Option<Cow<'a, PullRequestChange>>, ResolvedHead<PullRequestVersion>);

impl Decider {
    pub(super) async fn decide_pull_request(
        &self,
        found: &Undecided,
        reported: Reported<'_>,
        may_ask: MayAsk,
    ) -> Result<Progress, StoreError> {
        let event = &found.event;
        let repository = reported.url().key();
        if let Some(rule) = self.not_for_repository(event, reported.hook(), &repository).await? {
            return self.decide_nothing(found, rule).await;
        }
        let (store, after) = (self.store.as_ref(), found.cursor());
        let candidates =
            tasks::watching(store, event.prefix, &repository, after, CANDIDATES_A_COMMIT).await?;
        if candidates.is_empty() && after.is_none() {
            return self.decide_nothing(found, Rule::NoTask { repository }).await;
        }
        let now = self.store.now().await?;
        let asking = Asking { may_ask, may_wait: Self::may_wait(found, now) };
        let (change, head) = if candidates.iter().any(matcher::watches_pull_requests) {
            match self.resolve_reported(&event.registry, reported, &candidates, now, asking).await {
                Ok((change, resolved)) => (change, FoundHead::Resolved(resolved)),
                Err(unresolved) => {
                    match self.wait_for_head(found, &repository, unresolved).await? {
                        Ok(progress) => return Ok(progress),
                        Err(why) => {
                            let fact = reported.fact_key(&event.registry);
                            (reported.change(), FoundHead::Unknown { fact, why })
                        }
                    }
                }
            }
        } else {
            (reported.change(), FoundHead::NotAsked)
        };
        let number = reported.number();
        let decided = Change {
            found,
            place: Place { registry: event.prefix, repository: repository.clone() },
            candidates: &candidates,
            head,
            files: None,
            files_of: Ok(FilesOf::PullRequest { number }),
            run_keys: RunKeys::OfHead,
            may_ask,
            now,
        };
        self.decide_change(
            decided,
            |task, known| {
                judge::noticed_pull_request(&repository, number, change.as_deref(), task, known)
            },
            |task, candidate| {
                candidate.other_address = matcher::other_address(reported.url(), task);
            },
        )
        .await
    }

    async fn resolve_reported<'a>(
        &self,
        registry: &RegistryName,
        reported: Reported<'a>,
        tasks: &[Task],
        now: Timestamp,
        asking: Asking,
    ) -> Result<Resolved<'a>, Unresolved> {
        match reported {
            Reported::Change(change) => {
                let (change, head) =
                    self.resolve_pull_request(registry, change, tasks, now, asking).await?;
                Ok((Some(change), head))
            }
            Reported::Notice(notice) => {
                let (change, head) =
                    self.resolve_notice(registry, notice, tasks, now, asking).await?;
                Ok((change.map(Cow::Owned), head))
            }
        }
    }
}
