//! Obeys commands in comments below pull requests.

use gantry_domain::decide::{Candidate, Choice, Rule, judge, matcher};
use gantry_domain::event::{Command, Comment, PullRequestChange};
use gantry_domain::fact::{self, Fact, FactKey};
use gantry_domain::pull_request::{PullRequest, PullRequestVersion};
use gantry_domain::run::CanceledBy;
use gantry_domain::source::CommitId;
use gantry_domain::task::Task;
use gantry_seams::decisions::{Decided, Undecided};
use gantry_seams::place::Place;
use gantry_seams::store::{Batch, StoreError};
use gantry_seams::{facts, runs, tasks};

use super::asks::MayAsk;
use super::change::{CANDIDATES_A_COMMIT, Change, FoundHead, RunKeys};
use super::head::ResolvedHead;
use super::queries::FilesOf;
use super::{Decider, Progress};

/// How many runs of one candidate a comment cancels or approves.
const MOST_RUNS: usize = 64;

impl Decider {
    pub(super) async fn decide_comment(
        &self,
        found: &Undecided,
        comment: &Comment,
        may_ask: MayAsk,
    ) -> Result<Progress, StoreError> {
        let event = &found.event;
        let repository = comment.url.key();
        let hook = comment.hook.as_ref();
        if let Some(rule) = self.not_for_repository(event, hook, &repository).await? {
            return self.decide_nothing(found, rule).await;
        }
        let (store, after) = (self.store.as_ref(), found.cursor());
        let candidates =
            tasks::watching(store, event.prefix, &repository, after, CANDIDATES_A_COMMIT).await?;
        if candidates.is_empty() && after.is_none() {
            return self.decide_nothing(found, Rule::NoTask { repository }).await;
        }
        let Comment { url, repository: id, number, .. } = comment;
        let key = FactKey::pull_request(&event.registry, &url.key(), id, *number);
        match &comment.command {
            Command::Build => self.build(found, comment, key, &candidates, may_ask).await,
            Command::Cancel => self.end_or_approve(found, comment, None, &key, &candidates).await,
            Command::Approve { commit } => {
                self.end_or_approve(found, comment, Some(commit), &key, &candidates).await
            }
        }
    }

    /// Builds the pull request as it is now, even if it was built before.
    async fn build(
        &self,
        found: &Undecided,
        comment: &Comment,
        key: FactKey,
        candidates: &[Task],
        may_ask: MayAsk,
    ) -> Result<Progress, StoreError> {
        let now = self.store.now().await?;
        let obeys = |task: &Task| matcher::match_comment(comment, task).is_ok();
        let (mut change, mut head) = (None, FoundHead::NotAsked);
        if candidates.iter().any(obeys) {
            match self.ask_for_pull_request(comment.number, candidates, may_ask).await {
                Ok(pull_request) => {
                    let known = facts::find(self.store.as_ref(), &key).await?;
                    let value = pull_request.as_ref().and_then(PullRequest::version);
                    let fact: Option<&Fact<PullRequestVersion>> =
                        known.as_ref().map(|known| &known.value);
                    let now = fact::advanced(fact, &key, value, now);
                    head = FoundHead::Resolved(ResolvedHead { known, now });
                    change = pull_request.map(|now| as_change(comment, now));
                }
                Err(unresolved) => {
                    let repository = comment.url.key();
                    match self.wait_for_head(found, &repository, unresolved).await? {
                        Ok(progress) => return Ok(progress),
                        Err(why) => head = FoundHead::Unknown { fact: key, why },
                    }
                }
            }
        }
        let decided = Change {
            found,
            place: Place { registry: found.event.prefix, repository: comment.url.key() },
            candidates,
            head,
            files: None,
            files_of: Ok(FilesOf::PullRequest { number: comment.number }),
            run_keys: RunKeys::OfEvent,
            may_ask,
            now,
        };
        self.decide_change(
            decided,
            |task, known| judge::comment(comment, change.as_ref(), task, known),
            |task, candidate| {
                candidate.other_address = matcher::other_address(&comment.url, task);
            },
        )
        .await
    }

    /// Cancels all runs of the pull request, or approves those of the `approved` commit, together with the decision.
    async fn end_or_approve(
        &self,
        found: &Undecided,
        comment: &Comment,
        approved: Option<&CommitId>,
        key: &FactKey,
        candidates: &[Task],
    ) -> Result<Progress, StoreError> {
        let (store, event, now) = (self.store.as_ref(), &found.event, self.store.now().await?);
        let signer = self.keyring.as_ref();
        let mut creation =
            runs::Creation::begin(store, Batch::default(), event.prefix, signer, now).await?;
        let author = comment.author.clone().unwrap_or_else(|| "somebody".to_owned());
        let mut decided = Vec::with_capacity(candidates.len());
        for task in candidates {
            let rule = match matcher::match_comment(comment, task) {
                Err(rule) => rule,
                Ok(()) => {
                    let mut done = Vec::new();
                    for run in runs::open_of_change(store, task, key, MOST_RUNS).await? {
                        let id = run.value.id;
                        let is_done = match approved {
                            Some(commit) => creation.approve(run, commit, &author)?,
                            None => {
                                let by = CanceledBy::Comment { author: author.clone() };
                                creation.cancel(run, by)?
                            }
                        };
                        done.extend(is_done.then_some(id));
                    }
                    Rule::Obeyed { command: comment.command.clone(), runs: done }
                }
            };
            decided.push(Candidate {
                task: Some(task.id.clone()),
                choice: Choice::No { rule },
                other_address: matcher::other_address(&comment.url, task),
                files_unknown: None,
            });
        }
        let has_more = candidates.len() == CANDIDATES_A_COMMIT;
        let more_after = candidates.last().filter(|_| has_more).map(|task| task.id.clone());
        let decided = Decided { candidates: decided, nothing: None, more_after };
        // Approved runs wait for admission, and ended ones leave their places.
        let moved = creation.moved();
        let progress = match has_more {
            true => Progress::CommittedWithMore(moved),
            false => Progress::Committed(moved),
        };
        let batch = if event.id.is_simulated() { Batch::default() } else { creation.finish() };
        self.record(batch, found, decided, now, progress).await
    }
}

/// The pull request as a change, for the rules.
fn as_change(comment: &Comment, now: PullRequest) -> PullRequestChange {
    PullRequestChange {
        hook: comment.hook.clone(),
        url: comment.url.clone(),
        action: None,
        before: None,
        now,
        asks_to_skip: false,
        refs: comment.refs.clone(),
    }
}
