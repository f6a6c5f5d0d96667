//! Undecided events become decisions, and runs where a rule said yes: both in one commit.

use std::borrow::Cow;
use std::time::Duration;

use gantry_domain::decide::judge::{Head, Verdict, judge};
use gantry_domain::decide::{Candidate, Choice, Rule, matcher};
use gantry_domain::event::{Event, EventKind, Push, PushedRef};
use gantry_domain::fact::FactKey;
use gantry_domain::id::{EventId, RunId, TaskId};
use gantry_domain::task::Task;
use gantry_domain::timestamp::Timestamp;
use gantry_ops::{metrics, telemetry};
use gantry_seams::Versioned;
use gantry_seams::decisions::{self, Decided};
use gantry_seams::events::{self, RecordedEvent};
use gantry_seams::queue::RunsMoved;
use gantry_seams::store::{Batch, CommitError, StoreError};
use gantry_seams::{facts, hooks, registries, runs, tasks};
use tracing::{Instrument as _, field};

use crate::Scheduler;
use crate::asks::MayAsk;
use crate::facts::{Asking, ResolvedHead, Unresolved};

/// How many events one look takes.
const EVENTS_A_TICK: usize = 64;

/// How many candidates one commit decides: as many as Redis writes in less than 5 ms.
const CANDIDATES_A_COMMIT: usize = 48;

/// How often an event is looked at anew because somebody else changed what it rests on.
const CONFLICT_RETRIES: usize = 64;

/// How often a code host that cannot be asked is asked again: with the pauses below, about an hour in all.
const TRIES: u32 = 12;

/// For how long after a push its code host may still show an older head. After that its answer counts.
const BEHIND_FOR: Duration = Duration::from_secs(180);

/// The longest pause before a host that may be behind is asked again.
const LONGEST_BEHIND: Duration = Duration::from_secs(30);

/// What was found out of the head of the branch that a push moved.
enum FoundHead {
    Resolved(ResolvedHead),
    Unknown { fact: FactKey, why: String },
    NotAsked,
}

impl FoundHead {
    /// As it is judged. `goes_on`: earlier candidates of this push were judged in a commit that wrote the fact.
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

/// What deciding an event led to.
enum Step {
    /// It is decided, up to here; these runs were started.
    Committed(Vec<RunId>),
    /// There are more candidates than fit one commit.
    CommittedWithMore(Vec<RunId>),
    /// Someone else changed what it rests on: look again.
    Conflict,
    /// It is put off.
    PutOff,
    /// This host must be asked first.
    MustAsk(String),
}

impl Scheduler {
    /// Decides the events that are due, and begins to ask the code hosts of those that cannot be decided without. Answers
    /// how many were decided.
    ///
    /// # Errors
    /// [`StoreError`]; one event that cannot be decided does not keep the others.
    pub(crate) async fn decide_events(&self) -> Result<usize, StoreError> {
        let mut decided = 0;
        loop {
            let now = self.store.now().await?;
            // Those that are being asked about are due still, and the oldest: they must not hide the others.
            let most = EVENTS_A_TICK + self.asks.count();
            let due = events::undecided(self.store.as_ref(), now, most).await?;
            let is_all = due.len() < most;
            let mut moved = 0;
            for event in due.iter().filter(|event| !self.asks.has(event)) {
                match self.decide_event(event, MayAsk::NotNow).await? {
                    None => {
                        decided += 1;
                        moved += 1;
                    }
                    Some(host) => moved += usize::from(self.decide_with_host(event, host)),
                }
            }
            if is_all || moved == 0 {
                return Ok(decided);
            }
        }
    }

    /// Decides an event. Answers with a host that must be asked first, if it may not be now.
    pub(crate) async fn decide_event(
        &self,
        id: &EventId,
        may_ask: MayAsk,
    ) -> Result<Option<String>, StoreError> {
        let mut conflicts = 0;
        loop {
            let found = match self.find_undecided(id).await {
                Ok(Some(found)) => found,
                Ok(None) => return self.set_aside(id).await,
                Err(StoreError::Undecodable { key, message }) => {
                    tracing::error!(event.id = %id, "event {id} is set aside, since {key} does not decode: {message}");
                    return self.set_aside(id).await;
                }
                Err(error) => return Err(error),
            };
            let event = &found.value.event;
            let span = tracing::info_span!("decide event", event.id = %id, trace.id = field::Empty);
            telemetry::follow(&span, event.trace.as_ref());
            let step = match self.decide(&found, may_ask).instrument(span).await {
                // What it rests on waits for a person; it is looked at again, and keeps no other meanwhile.
                Err(StoreError::Undecodable { key, message }) => {
                    self.put_off(&found, &format!("{key} does not decode: {message}")).await?
                }
                Ok(Step::Conflict) if conflicts == CONFLICT_RETRIES => {
                    self.put_off(&found, "others change what it rests on all the time").await?
                }
                step => step?,
            };
            match step {
                Step::Conflict => conflicts += 1,
                Step::CommittedWithMore(_) => {}
                Step::PutOff | Step::Committed(_) => return Ok(None),
                Step::MustAsk(host) => return Ok(Some(host)),
            }
        }
    }

    /// Reads an event; `None` if it is gone, or decided.
    async fn find_undecided(
        &self,
        id: &EventId,
    ) -> Result<Option<Versioned<RecordedEvent>>, StoreError> {
        let store = self.store.as_ref();
        let (found, is_undecided) =
            tokio::try_join!(events::find(store, id), decisions::is_undecided(store, id))?;
        Ok(found.filter(|_| is_undecided))
    }

    /// Looks at an event again after a pause.
    async fn put_off(
        &self,
        found: &Versioned<RecordedEvent>,
        why: &str,
    ) -> Result<Step, StoreError> {
        let (id, pause) = (&found.value.event.id, pause_after(found.value.tries));
        tracing::warn!(event.id = %id, "event {id} is decided in {pause:?} at the earliest: {why}");
        events::put_off(self.store.as_ref(), found, pause).await?;
        Ok(Step::PutOff)
    }

    async fn set_aside(&self, id: &EventId) -> Result<Option<String>, StoreError> {
        events::set_aside(self.store.as_ref(), id).await?;
        Ok(None)
    }

    /// Decides as much of an event as one commit does, and rings for the runs that it started.
    async fn decide(
        &self,
        found: &Versioned<RecordedEvent>,
        may_ask: MayAsk,
    ) -> Result<Step, StoreError> {
        let event = &found.value.event;
        let step = match &event.kind {
            EventKind::Push(push) => self.decide_push(found, push, may_ask).await?,
            EventKind::TaskSaved { task } => self.learn_head(found, task, may_ask).await?,
            EventKind::ImagePushed(pushed) => {
                let what = format!("{} at {}", pushed.image, pushed.digest);
                self.decide_nothing(found, Rule::RecordedOnly { what }).await?
            }
            EventKind::Requested { .. } => {
                let what = "a request, which is decided where it is accepted,".to_owned();
                self.decide_nothing(found, Rule::RecordedOnly { what }).await?
            }
        };
        match &step {
            Step::Conflict | Step::PutOff | Step::MustAsk(_) => {}
            Step::Committed(runs) | Step::CommittedWithMore(runs) => {
                self.announce(event, runs).await;
            }
        }
        Ok(step)
    }

    async fn decide_push(
        &self,
        found: &Versioned<RecordedEvent>,
        push: &Push,
        may_ask: MayAsk,
    ) -> Result<Step, StoreError> {
        let event = &found.value.event;
        let repository = push.repository();
        if let Some(id) = &push.hook {
            let hook = hooks::find(self.store.as_ref(), id).await?;
            if !hook.is_some_and(|hook| hook.speaks_for(&repository)) {
                let rule = Rule::HookNotForRepository { hook: id.clone(), repository };
                return self.decide_nothing(found, rule).await;
            }
        }
        let after = found.value.cursor.as_ref();
        let candidates = tasks::watching(
            self.store.as_ref(),
            &event.registry,
            &repository,
            after,
            CANDIDATES_A_COMMIT,
        )
        .await?;
        if candidates.is_empty() && after.is_none() {
            return self.decide_nothing(found, Rule::NoTask { repository }).await;
        }
        let now = self.store.now().await?;
        let is_new = now.since(event.received) < BEHIND_FOR;
        // Of the candidates behind the cursor the first have been decided by the head that was found.
        let asking = Asking { may_ask, may_wait: is_new && after.is_none() };
        let resolved = async {
            let push = self.with_default_branch(push, &candidates, may_ask).await?;
            let matched = candidates.iter().find_map(|task| matcher::match_push(&push, task).ok());
            let head = match matched {
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
            Err(Unresolved::MustAsk(host)) => return Ok(Step::MustAsk(host)),
            Err(Unresolved::Behind) => {
                let pause = pause_after(found.value.tries).min(LONGEST_BEHIND);
                tracing::info!(event.id = %event.id, "{repository} is asked again in {pause:?}: it may not show yet what event {} says", event.id);
                events::put_off(self.store.as_ref(), found, pause).await?;
                return Ok(Step::PutOff);
            }
            Err(Unresolved::Asking(error)) if found.value.tries < TRIES => {
                let pause = pause_after(found.value.tries);
                tracing::warn!(event.id = %event.id, "{repository} is asked again in {pause:?}: {error}");
                events::put_off(self.store.as_ref(), found, pause).await?;
                return Ok(Step::PutOff);
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

    /// The push with the repository's default branch, which the code host is asked for where the push does not name it
    /// and a task watches it.
    async fn with_default_branch<'a>(
        &self,
        push: &'a Push,
        candidates: &[Task],
        may_ask: MayAsk,
    ) -> Result<Cow<'a, Push>, Unresolved> {
        let needs_it = |task: &Task| {
            let matched = matcher::match_push(push, task);
            matches!(matched, Err(Rule::DefaultBranchUnknown { .. }))
        };
        if !candidates.iter().any(needs_it) {
            return Ok(Cow::Borrowed(push));
        }
        let default_branch = self.ask(None, candidates, may_ask).await?.branch;
        Ok(Cow::Owned(Push { default_branch, ..push.clone() }))
    }

    /// Writes fact, runs and decision in one commit.
    async fn commit_push(
        &self,
        found: &Versioned<RecordedEvent>,
        push: &Push,
        candidates: &[Task],
        head: FoundHead,
        now: Timestamp,
    ) -> Result<Step, StoreError> {
        let (store, event) = (self.store.as_ref(), &found.value.event);
        let Some(registry) = registries::find(store, &event.registry).await? else {
            let rule = Rule::NoRegistry { registry: event.registry.clone() };
            return self.decide_nothing(found, rule).await;
        };
        let mut batch = Batch::default();
        if let FoundHead::Resolved(resolved) = &head
            && resolved.is_something()
        {
            facts::advance(&mut batch, resolved.known.as_ref(), &resolved.now)?;
        }
        // The runs of the first candidates went with the commit that advanced the fact; the later ones follow it.
        let head = head.judged(found.value.cursor.is_some());
        let keys: Vec<String> =
            candidates.iter().filter_map(|task| head.run_key(&task.id)).collect();
        let has = runs::find_for(store, &keys).await?;
        let signer = self.keyring.as_ref();
        let mut creation =
            runs::Creation::begin(store, batch, registry.prefix, signer, now).await?;
        let (mut decided, mut started) = (Vec::with_capacity(candidates.len()), Vec::new());
        for task in candidates {
            let key = head.run_key(&task.id);
            let started_before = key.as_ref().and_then(|key| has.get(key).copied());
            let choice = match judge(&event.id, push, task, &head, started_before) {
                Verdict::No(rule) => Choice::No { rule },
                Verdict::Run(mut draft) => {
                    draft.trace = telemetry::current_trace().or_else(|| event.trace.clone());
                    let run = creation.add(*draft, key)?.id;
                    started.push(run);
                    Choice::Run { run }
                }
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
        let step =
            if has_more { Step::CommittedWithMore(started) } else { Step::Committed(started) };
        self.record(creation.finish(), found, decided, now, step).await
    }

    /// A task with a source trigger was saved: its branch's head becomes known, so that the next push is told from an
    /// old one without asking.
    async fn learn_head(
        &self,
        found: &Versioned<RecordedEvent>,
        task: &TaskId,
        may_ask: MayAsk,
    ) -> Result<Step, StoreError> {
        let event = &found.value.event;
        let watched = tasks::find(self.store.as_ref(), task).await?.and_then(|task| {
            matcher::watched_repository(&task).map(|repository| (task, repository))
        });
        let Some((task, repository)) = watched else {
            let what = format!("task {task}, which watches no branch,");
            return self.decide_nothing(found, Rule::RecordedOnly { what }).await;
        };
        let branch = matcher::watched_branch(&task);
        let resolved = self.ask(branch.as_ref(), std::slice::from_ref(&task), may_ask).await;
        let head = match resolved {
            Ok(head) => head,
            Err(Unresolved::Store(error)) => return Err(error),
            Err(Unresolved::MustAsk(host)) => return Ok(Step::MustAsk(host)),
            Err(Unresolved::Behind) => return self.put_off(found, "its host may be behind").await,
            Err(Unresolved::Asking(error)) => {
                // Not asked again: the first push will be.
                tracing::warn!(task.name = %task.id, "the head that task {} watches is not known yet: {error}", task.id);
                let what = format!("task {}, whose branch could not be read ({error}),", task.id);
                return self.decide_nothing(found, Rule::RecordedOnly { what }).await;
            }
        };
        let Some(branch) = head.branch.or(branch) else {
            let what = format!("task {}, whose repository names no default branch,", task.id);
            return self.decide_nothing(found, Rule::RecordedOnly { what }).await;
        };
        let key = FactKey::branch(&event.registry, &repository, &branch);
        let known = facts::find(self.store.as_ref(), &key).await?;
        let is_there = known.is_some() || head.commit.is_some();
        let mut batch = Batch::default();
        let now = self.store.now().await?;
        // A fact that is known already is left to the pushes: to advance it here would take their run away.
        if known.is_none() {
            let fact = gantry_domain::fact::advanced(None, &key, head.commit, now);
            facts::advance(&mut batch, None, &fact)?;
        }
        let what = match is_there {
            true => format!("the head of {branch} of {repository}"),
            // A tag may be called so: a branch that is made later starts the task.
            false => format!("task {}, whose repository has no branch `{branch}` yet,", task.id),
        };
        let rule = Rule::RecordedOnly { what };
        let decided = Decided { candidates: Vec::new(), nothing: Some(rule), more_after: None };
        self.record(batch, found, decided, now, Step::Committed(Vec::new())).await
    }

    async fn decide_nothing(
        &self,
        found: &Versioned<RecordedEvent>,
        rule: Rule,
    ) -> Result<Step, StoreError> {
        let now = self.store.now().await?;
        let decided = Decided { candidates: Vec::new(), nothing: Some(rule), more_after: None };
        self.record(Batch::default(), found, decided, now, Step::Committed(Vec::new())).await
    }

    /// Commits the batch with the decision in it.
    async fn record(
        &self,
        mut batch: Batch,
        found: &Versioned<RecordedEvent>,
        decided: Decided,
        now: Timestamp,
        step: Step,
    ) -> Result<Step, StoreError> {
        let choices = decided.candidates.iter().map(|candidate| (&candidate.choice).into());
        let outcomes: Vec<metrics::Decided> =
            choices.chain(decided.nothing.iter().map(Into::into)).collect();
        decisions::record(self.store.as_ref(), &mut batch, found, decided, now).await?;
        match self.store.commit(batch).await {
            Ok(()) => {
                outcomes.into_iter().for_each(metrics::decided);
                Ok(step)
            }
            Err(CommitError::Conflict { .. }) => Ok(Step::Conflict),
            Err(CommitError::Store(error)) => Err(error),
        }
    }

    async fn announce(&self, event: &Event, started: &[RunId]) {
        for run in started {
            tracing::info!(event.id = %event.id, run.id = %run, "event {} started run {run}", event.id);
        }
        // Who hears it looks at all that wait.
        let Some(run) = started.last().copied() else { return };
        if let Err(error) = self.queues.runs.publish(RunsMoved { run }, event.trace.clone()).await {
            tracing::debug!("the sweeper rings for run {run}: {error}");
        }
    }
}

/// 2 s, doubling to 10 minutes.
fn pause_after(tries: u32) -> Duration {
    Duration::from_secs(2_u64.saturating_pow(tries + 1).min(600))
}
