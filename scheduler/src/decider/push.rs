//! Decides which runs a push starts.

use std::borrow::Cow;

use gantry_domain::decide::{Rule, judge, matcher};
use gantry_domain::event::Push;
use gantry_domain::fact::{Fact, FactKey};
use gantry_domain::pull_request::ChangedFiles;
use gantry_domain::task::Task;
use gantry_seams::decisions::Undecided;
use gantry_seams::place::Place;
use gantry_seams::store::StoreError;
use gantry_seams::tasks;

use super::asks::MayAsk;
use super::change::{CANDIDATES_A_COMMIT, Change, FoundHead, RunKeys};
use super::head::{Asking, ResolvedHead, Unresolved};
use super::queries::FilesOf;
use super::{Decider, Progress};

impl Decider {
    pub(super) async fn decide_push(
        &self,
        found: &Undecided,
        push: &Push,
        may_ask: MayAsk,
    ) -> Result<Progress, StoreError> {
        let event = &found.event;
        let repository = push.repository();
        if let Some(rule) = self.not_for_repository(event, push.hook.as_ref(), &repository).await? {
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
        let resolved = async {
            let push = self.with_default_branch(push, &candidates, may_ask).await?;
            let is_watched =
                candidates.iter().any(|task| matcher::moved_source(&push, task).is_ok());
            let head = match is_watched {
                false => FoundHead::NotAsked,
                true => FoundHead::Resolved(
                    self.resolve_head(&event.registry, &push, &candidates, now, asking).await?,
                ),
            };
            Ok((push, head))
        };
        let (push, head) = match resolved.await {
            Ok(resolved) => resolved,
            Err(unresolved) => match self.wait_for_head(found, &repository, unresolved).await? {
                Ok(progress) => return Ok(progress),
                Err(why) => {
                    let fact = FactKey::moved(&event.registry, &repository, &push.reference);
                    (Cow::Borrowed(push), FoundHead::Unknown { fact, why })
                }
            },
        };
        let (files, files_of) = match &head {
            FoundHead::Resolved(resolved) => files_of(&push, resolved),
            FoundHead::Unknown { .. } | FoundHead::NotAsked => {
                (None, Err("its head is not known".to_owned()))
            }
        };
        let change = Change {
            found,
            place: Place { registry: event.prefix, repository: repository.clone() },
            candidates: &candidates,
            head,
            files,
            files_of,
            run_keys: RunKeys::OfHead,
            may_ask,
            now,
        };
        self.decide_change(
            change,
            |task, known| judge::push(&push, task, known),
            |task, candidate| {
                candidate.other_address = matcher::other_address(&push.url, task);
                if let Some(addresses) = &candidate.other_address {
                    tracing::warn!(event.id = %event.id, task.name = %task.id, "event {}, task {}: {addresses}", event.id, task.id);
                }
            },
        )
        .await
    }

    /// Returns the push with the repository's default branch. The code host is queried for it only if a task watches it
    /// and the push does not name it.
    async fn with_default_branch<'a>(
        &self,
        push: &'a Push,
        candidates: &[Task],
        may_ask: MayAsk,
    ) -> Result<Cow<'a, Push>, Unresolved> {
        let needs_it = |task: &Task| {
            let moved = matcher::moved_source(push, task);
            matches!(moved, Err(Rule::DefaultBranchUnknown { .. }))
        };
        if !candidates.iter().any(needs_it) {
            return Ok(Cow::Borrowed(push));
        }
        let default_branch = self.ask(None, candidates, may_ask).await?.branch;
        Ok(Cow::Owned(Push { default_branch, ..push.clone() }))
    }
}

/// The changed files, if the push lists those between the former and the current head, and else what to ask for.
fn files_of(
    push: &Push,
    resolved: &ResolvedHead,
) -> (Option<ChangedFiles>, Result<FilesOf, String>) {
    let Fact { value: Some(after), generation, former, .. } = &resolved.now else {
        return (None, Err("it was deleted".to_owned()));
    };
    let was = |head: &&gantry_domain::fact::FormerValue| head.generation + 1 == *generation;
    let before = former.iter().find(was).and_then(|head| head.value.as_ref());
    // A push that was not known before tells itself what it moved the head from.
    let before = before.or(push.before.as_ref().filter(|_| *generation == 1));
    let Some(before) = before else { return (None, Err("it is new".to_owned())) };
    let is_this_push = push.before.as_ref() == Some(before) && push.after.as_ref() == Some(after);
    let listed = match &push.changed {
        ChangedFiles::All { .. } if is_this_push => Some(push.changed.clone()),
        ChangedFiles::All { .. } | ChangedFiles::Unknown { .. } => None,
    };
    let (before, after) = (before.clone(), after.clone());
    (listed, Ok(FilesOf::Commits { before, after }))
}
