//! Decides which runs a push starts.

use std::borrow::Cow;
use std::time::Duration;

use gantry_domain::decide::judge::{Head, Started, Verdict, judge};
use gantry_domain::decide::planner::RunDraft;
use gantry_domain::decide::{Candidate, Choice, Rule, matcher};
use gantry_domain::event::{Push, PushedRef};
use gantry_domain::fact::FactKey;
use gantry_domain::task::Task;
use gantry_domain::timestamp::Timestamp;
use gantry_ops::telemetry;
use gantry_seams::decisions::{self, Decided, Undecided};
use gantry_seams::store::{Batch, StoreError};
use gantry_seams::{facts, hooks, registries, runs, tasks};

use super::asks::MayAsk;
use super::head::{Asking, ResolvedHead, Unresolved};
use super::{Decider, Progress, pause_after};

/// How many candidates one commit decides: as many as Redis commits in less than 5 ms.
const CANDIDATES_A_COMMIT: usize = 48;

/// How often a failed query to a code host is retried: with the pauses of [`pause_after`], for about an hour.
const TRIES: u32 = 12;

/// For how long after a push its code host may still return an older head. Later answers count.
const BEHIND_FOR: Duration = Duration::from_secs(180);

/// The longest pause before a host that may be behind is queried again.
const LONGEST_BEHIND: Duration = Duration::from_secs(30);

/// What is known about the head of the branch that a push moved.
enum FoundHead {
    Resolved(ResolvedHead),
    Unknown { fact: FactKey, why: String },
    NotAsked,
}

impl FoundHead {
    /// Converts it for [`judge`]. `goes_on` is true if an earlier commit for this push has already written the fact.
    fn judged(self, goes_on: bool) -> Head {
        match self {
            Self::Resolved(resolved) => {
                Head::Known { is_news: goes_on || resolved.advanced(), fact: resolved.now }
            }
            Self::Unknown { fact, why } => Head::Unknown { fact, why },
            Self::NotAsked => Head::NotAsked,
        }
    }
}

impl Decider {
    pub(super) async fn decide_push(
        &self,
        found: &Undecided,
        push: &Push,
        may_ask: MayAsk,
    ) -> Result<Progress, StoreError> {
        let event = &found.event;
        let repository = push.repository();
        let store = self.store.as_ref();
        if registries::find_exactly(store, &event.registry, event.prefix).await?.is_none() {
            let rule = Rule::NoRegistry { registry: event.registry.clone() };
            return self.decide_nothing(found, rule).await;
        }
        if let Some(id) = &push.hook {
            let hook = hooks::find(store, id).await?;
            if !hook.is_some_and(|hook| hook.speaks_for(&repository)) {
                let rule = Rule::HookNotForRepository { hook: id.clone(), repository };
                return self.decide_nothing(found, rule).await;
            }
        }
        let after = found.cursor();
        let candidates =
            tasks::watching(store, event.prefix, &repository, after, CANDIDATES_A_COMMIT).await?;
        if candidates.is_empty() && after.is_none() {
            return self.decide_nothing(found, Rule::NoTask { repository }).await;
        }
        let now = self.store.now().await?;
        let is_new = now.since(event.received) < BEHIND_FOR;
        // Candidates before the cursor were already decided with the head that was found then, so do not postpone now.
        let asking = Asking { may_ask, may_wait: is_new && after.is_none() };
        let resolved = async {
            let push = self.with_default_branch(push, &candidates, may_ask).await?;
            let moved = candidates.iter().find_map(|task| matcher::moved_source(&push, task).ok());
            let head = match moved {
                None => FoundHead::NotAsked,
                Some(branch) => FoundHead::Resolved(
                    self.resolve_head(&event.registry, &push, branch, &candidates, now, asking)
                        .await?,
                ),
            };
            Ok((push, head))
        };
        let (push, head) = match resolved.await {
            Ok(resolved) => resolved,
            Err(Unresolved::Store(error)) => return Err(error),
            Err(Unresolved::MustAsk(host)) => return Ok(Progress::MustAsk(host)),
            Err(Unresolved::Behind) => {
                let pause = pause_after(found.tries()).min(LONGEST_BEHIND);
                tracing::info!(event.id = %event.id, "{repository} is queried again in {pause:?}: it may not show the push of event {} yet", event.id);
                decisions::put_off(self.store.as_ref(), found, pause).await?;
                return Ok(Progress::PutOff);
            }
            Err(Unresolved::Asking(error)) if found.tries() < TRIES => {
                let pause = pause_after(found.tries());
                tracing::warn!(event.id = %event.id, "{repository} is queried again in {pause:?}: {error}");
                decisions::put_off(self.store.as_ref(), found, pause).await?;
                return Ok(Progress::PutOff);
            }
            Err(Unresolved::Asking(error)) => {
                let branch = match &push.reference {
                    PushedRef::Branch(branch) | PushedRef::Tag(branch) => branch,
                };
                let fact = FactKey::branch(&event.registry, &repository, branch);
                (Cow::Borrowed(push), FoundHead::Unknown { fact, why: error.message })
            }
        };
        self.commit_push(found, &push, &candidates, head, now).await
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

    /// Writes the fact, the runs and the decision in one commit.
    async fn commit_push(
        &self,
        found: &Undecided,
        push: &Push,
        candidates: &[Task],
        head: FoundHead,
        now: Timestamp,
    ) -> Result<Progress, StoreError> {
        let (store, event) = (self.store.as_ref(), &found.event);
        let mut batch = Batch::default();
        if let FoundHead::Resolved(resolved) = &head
            && resolved.is_something()
        {
            facts::advance(&mut batch, resolved.known.as_ref(), &resolved.now)?;
        }
        // The first commit advanced the fact. Later candidates must start their runs too, although it is unchanged now.
        let head = head.judged(found.cursor().is_some());
        let keys = candidates.iter().flat_map(|task| [head.run_key(task), head.scan_key(task)]);
        let keys: Vec<String> = keys.flatten().collect();
        let has = runs::find_for(store, &keys).await?;
        let found_for = |key: &Option<String>| key.as_ref().and_then(|key| has.get(key).copied());
        let signer = self.keyring.as_ref();
        let mut creation = runs::Creation::begin(store, batch, event.prefix, signer, now).await?;
        let (mut decided, mut started) = (Vec::with_capacity(candidates.len()), Vec::new());
        for task in candidates {
            let (run_key, scan_key) = (head.run_key(task), head.scan_key(task));
            let before = Started { run: found_for(&run_key), scan: found_for(&scan_key) };
            let mut start = |mut draft: Box<RunDraft>, key| {
                draft.trace = telemetry::current_trace().or_else(|| event.trace.clone());
                let run = creation.add(*draft, key)?.id;
                started.push(run);
                Ok::<_, StoreError>(run)
            };
            let choice = match judge(&event.id, push, task, &head, before) {
                Verdict::No(rule) => Choice::No { rule },
                Verdict::Scan { rule, scan } => {
                    start(scan, scan_key)?;
                    Choice::No { rule }
                }
                Verdict::Run(draft) => Choice::Run { run: start(draft, run_key)? },
            };
            let other_address = matcher::other_address(push, task);
            if let Some(addresses) = &other_address {
                tracing::warn!(event.id = %event.id, task.name = %task.id, "event {}, task {}: {addresses}", event.id, task.id);
            }
            decided.push(Candidate { task: Some(task.id.clone()), choice, other_address });
        }
        let has_more = candidates.len() == CANDIDATES_A_COMMIT;
        let more_after = candidates.last().filter(|_| has_more).map(|task| task.id.clone());
        let decided = Decided { candidates: decided, nothing: None, more_after };
        let progress = if has_more {
            Progress::CommittedWithMore(started)
        } else {
            Progress::Committed(started)
        };
        self.record(creation.finish(), found, decided, now, progress).await
    }
}
