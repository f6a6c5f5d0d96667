//! Decides which runs a change of a pull request starts.

use std::borrow::Cow;

use gantry_domain::decide::{Rule, judge, matcher};
use gantry_domain::event::PullRequestChange;
use gantry_seams::decisions::Undecided;
use gantry_seams::place::Place;
use gantry_seams::store::StoreError;
use gantry_seams::tasks;

use super::asks::MayAsk;
use super::change::{CANDIDATES_A_COMMIT, Change, FoundHead, RunKeys};
use super::head::Asking;
use super::queries::FilesOf;
use super::{Decider, Progress};

impl Decider {
    pub(super) async fn decide_pull_request(
        &self,
        found: &Undecided,
        change: &PullRequestChange,
        may_ask: MayAsk,
    ) -> Result<Progress, StoreError> {
        let event = &found.event;
        let repository = change.repository();
        let hook = change.hook.as_ref();
        if let Some(rule) = self.not_for_repository(event, hook, &repository).await? {
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
            let resolved =
                self.resolve_pull_request(&event.registry, change, &candidates, now, asking).await;
            match resolved {
                Ok((change, resolved)) => (change, FoundHead::Resolved(resolved)),
                Err(unresolved) => {
                    match self.wait_for_head(found, &repository, unresolved).await? {
                        Ok(progress) => return Ok(progress),
                        Err(why) => {
                            let fact = change.fact_key(&event.registry);
                            (Cow::Borrowed(change), FoundHead::Unknown { fact, why })
                        }
                    }
                }
            }
        } else {
            (Cow::Borrowed(change), FoundHead::NotAsked)
        };
        let number = change.now.number;
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
            |task, known| judge::pull_request(&change, task, known),
            |task, candidate| {
                candidate.other_address = matcher::other_address(&change.url, task);
            },
        )
        .await
    }
}
