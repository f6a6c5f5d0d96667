//! Decides events: writes the decision, and the runs that it starts, in one commit.

use std::sync::Arc;
use std::time::Duration;

use gantry_domain::decide::Rule;
use gantry_domain::event::{Event, EventKind};
use gantry_domain::id::{HookId, RunId};
use gantry_domain::source::RepositoryKey;
use gantry_domain::timestamp::Timestamp;
use gantry_ops::secret::Keyring;
use gantry_ops::{metrics, telemetry};
use gantry_remote::code_host::{CodeHost, ProviderApi};
use gantry_seams::decisions::{self, Decided, Undecided};
use gantry_seams::due::{self, Due};
use gantry_seams::queue::{Queue, RunsMoved};
use gantry_seams::store::{Batch, CommitError, SharedStore, StoreError};
use gantry_seams::{events, hooks, registries};
use tracing::{Instrument as _, field};

use crate::base_images::ImageLooks;

mod asks;
mod change;
mod comment;
mod head;
mod image;
mod pull_request;
mod push;
mod queries;
mod saved;
mod timer;

pub use asks::Asks;
use asks::MayAsk;
use head::Unresolved;
use pull_request::Reported;
use saved::Incarnation;

/// How many events are read at once.
const EVENTS_A_TICK: usize = 64;

/// How often a failed query to a code host is retried: with the pauses of [`pause_after`], for about an hour.
const TRIES: u32 = 12;

/// For how long after a change its code host may still return an older head. Later answers count.
const BEHIND_FOR: Duration = Duration::from_secs(180);

/// The longest pause before a host that may be behind is queried again.
const LONGEST_BEHIND: Duration = Duration::from_secs(30);

/// How many conflicts with other writers are retried before an event is postponed.
const CONFLICT_RETRIES: usize = 64;

/// The result of one step of deciding an event.
enum Progress {
    /// The event is decided; these runs were started.
    Committed(Vec<RunId>),
    /// These runs were started; more candidates remain than fit into one commit.
    CommittedWithMore(Vec<RunId>),
    /// Another writer changed a record that the decision depends on: read again.
    Conflict,
    /// The event was postponed.
    PutOff,
    /// This host must be queried first.
    MustAsk(String),
}

/// What became of an event.
enum Step {
    /// It is decided or postponed.
    Done,
    /// Candidates remain. Other events come first.
    More,
    /// This host must be queried first.
    MustAsk(String),
}

/// Decides events.
#[derive(Clone)]
pub(crate) struct Decider {
    pub(crate) store: SharedStore,
    pub(crate) runs_moved: Arc<dyn Queue<RunsMoved>>,
    /// Opens the tokens for code hosts, and signs runs.
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) code_host: Arc<dyn CodeHost>,
    pub(crate) providers: Arc<dyn ProviderApi>,
    pub(crate) asks: Arc<Asks>,
    /// Rings for watches and waves.
    pub(crate) image_looks: Arc<ImageLooks>,
    /// How many tasks of a wave must succeed before the others begin.
    pub(crate) canary: u32,
}

impl Decider {
    /// Like [`Decider::tick`], but also waits for the queries to code hosts.
    pub(crate) async fn tick_and_settle(&self) -> Result<usize, StoreError> {
        let decided = self.tick().await?;
        Ok(decided + usize::from(self.asks.settled().await))
    }

    /// Decides the events that are due, and starts the queries that some need first. Returns how many events were
    /// decided or postponed.
    ///
    /// # Errors
    /// [`StoreError`]. An event that cannot be decided is postponed, and does not block the others.
    pub(crate) async fn tick(&self) -> Result<usize, StoreError> {
        let mut decided = 0;
        loop {
            let now = self.store.now().await?;
            // Events awaiting a code host stay due and sort first, so read past them.
            let most = EVENTS_A_TICK + self.asks.count();
            let due = due::undecided(self.store.as_ref(), now, most).await?;
            let is_all = due.len() < most;
            let (mut moved, mut has_more) = (0, false);
            for due in due.iter().filter(|due| !self.asks.has(&due.event)) {
                match self.decide_event(due, MayAsk::NotNow).await? {
                    Step::Done => {
                        decided += 1;
                        moved += 1;
                    }
                    Step::More => {
                        has_more = true;
                        moved += 1;
                    }
                    Step::MustAsk(host) => moved += usize::from(self.decide_with_host(due, host)),
                }
            }
            if (is_all && !has_more) || moved == 0 {
                return Ok(decided);
            }
        }
    }

    /// Decides an event. A host is not queried if `may_ask` forbids to query it now.
    ///
    /// A change of an image may reach thousands of tasks: after each commit it is the turn of other events. Other events are
    /// decided as a whole, because those of one repository are decided in their order.
    async fn decide_event(&self, due: &Due, may_ask: MayAsk) -> Result<Step, StoreError> {
        let id = &due.event;
        let mut conflicts = 0;
        loop {
            let found = match events::find_undecided(self.store.as_ref(), id).await {
                Ok(Some(found)) => found,
                Ok(None) => return self.set_aside(due).await,
                Err(StoreError::Undecodable { key, message }) => {
                    tracing::error!(event.id = %id, "event {id} is set aside: {key} does not decode: {message}");
                    return self.set_aside(due).await;
                }
                Err(error) => return Err(error),
            };
            let event = &found.event;
            let span = tracing::info_span!("decide event", event.id = %id, trace.id = field::Empty);
            telemetry::follow(&span, event.trace.as_ref());
            let progress = match self.decide(&found, may_ask).instrument(span).await {
                // A person must repair the record. Until then the event is postponed, so that it blocks no other.
                Err(StoreError::Undecodable { key, message }) => {
                    self.put_off(&found, &format!("{key} does not decode: {message}")).await?
                }
                Ok(Progress::Conflict) if conflicts == CONFLICT_RETRIES => {
                    self.put_off(&found, "records that it depends on change too often").await?
                }
                progress => progress?,
            };
            match progress {
                Progress::Conflict => conflicts += 1,
                Progress::CommittedWithMore(_)
                    if matches!(event.kind, EventKind::ImageMoved(_)) =>
                {
                    return Ok(Step::More);
                }
                Progress::CommittedWithMore(_) => {}
                Progress::PutOff | Progress::Committed(_) => return Ok(Step::Done),
                Progress::MustAsk(host) => return Ok(Step::MustAsk(host)),
            }
        }
    }

    /// Postpones an event. The pause grows with each try.
    async fn put_off(&self, found: &Undecided, why: &str) -> Result<Progress, StoreError> {
        self.put_off_by(found, pause_after(found.tries()), why).await
    }

    async fn put_off_by(
        &self,
        found: &Undecided,
        pause: Duration,
        why: &str,
    ) -> Result<Progress, StoreError> {
        let id = &found.event.id;
        tracing::warn!(event.id = %id, "event {id} is postponed by {pause:?}: {why}");
        decisions::put_off(self.store.as_ref(), found, pause).await?;
        Ok(Progress::PutOff)
    }

    /// Why nothing may be decided about a repository: its registry is gone, or the hook may not speak for it.
    async fn not_for_repository(
        &self,
        event: &Event,
        hook: Option<&HookId>,
        repository: &RepositoryKey,
    ) -> Result<Option<Rule>, StoreError> {
        let store = self.store.as_ref();
        if registries::find_exactly(store, &event.registry, event.prefix).await?.is_none() {
            return Ok(Some(Rule::NoRegistry { registry: event.registry.clone() }));
        }
        let Some(id) = hook else { return Ok(None) };
        let hook = hooks::find(store, id).await?;
        let may_speak = hook.is_some_and(|hook| hook.speaks_for(repository));
        let rule =
            || Rule::HookNotForRepository { hook: id.clone(), repository: repository.clone() };
        Ok((!may_speak).then(rule))
    }

    /// Whether the event is so new that its code host may not show its change yet. Candidates before the cursor were
    /// already decided with the head that was found then, so an event that goes on does not wait.
    fn may_wait(found: &Undecided, now: Timestamp) -> bool {
        now.since(found.event.received) < BEHIND_FOR && found.cursor().is_none()
    }

    /// Postpones an event whose head could not be resolved. Returns why the head stays unknown if there were too many
    /// tries.
    async fn wait_for_head(
        &self,
        found: &Undecided,
        repository: &RepositoryKey,
        unresolved: Unresolved,
    ) -> Result<Result<Progress, String>, StoreError> {
        let pause = pause_after(found.tries());
        let put_off = |pause, why: String| async move {
            tracing::info!(event.id = %found.event.id, "{repository} is queried again in {pause:?}: {why}");
            decisions::put_off(self.store.as_ref(), found, pause).await?;
            Ok(Ok(Progress::PutOff))
        };
        match unresolved {
            Unresolved::Store(error) => Err(error),
            Unresolved::MustAsk(host) => Ok(Ok(Progress::MustAsk(host))),
            Unresolved::Behind => {
                let why = format!("it may not show the change of event {} yet", found.event.id);
                put_off(pause.min(LONGEST_BEHIND), why).await
            }
            Unresolved::Asking(error) if error.may_pass() && found.tries() < TRIES => {
                put_off(pause, error.to_string()).await
            }
            Unresolved::Asking(error) => Ok(Err(error.message)),
        }
    }

    async fn set_aside(&self, due: &Due) -> Result<Step, StoreError> {
        due::set_aside(self.store.as_ref(), due).await?;
        Ok(Step::Done)
    }

    /// Decides as many candidates of an event as fit into one commit, and rings for the runs that it started.
    async fn decide(&self, found: &Undecided, may_ask: MayAsk) -> Result<Progress, StoreError> {
        let event = &found.event;
        let progress = match &event.kind {
            EventKind::Push(push) => self.decide_push(found, push, may_ask).await?,
            EventKind::PullRequest(change) => {
                self.decide_pull_request(found, Reported::Change(change), may_ask).await?
            }
            EventKind::PullRequestNotice(notice) => {
                self.decide_pull_request(found, Reported::Notice(notice), may_ask).await?
            }
            EventKind::Comment(comment) => self.decide_comment(found, comment, may_ask).await?,
            EventKind::TaskSaved { task, created, watches_anew } => {
                let task = Incarnation { id: task, created: *created };
                self.decide_saved(found, task, *watches_anew, may_ask).await?
            }
            EventKind::TimerDue(due) => self.decide_timer(found, due).await?,
            EventKind::ImagePushed(pushed) => self.decide_pushed_image(found, pushed).await?,
            EventKind::ImageMoved(moved) => self.decide_moved_image(found, moved).await?,
            EventKind::Requested { .. } => {
                let what = "a request, which is decided where it is accepted,".to_owned();
                self.decide_nothing(found, Rule::RecordedOnly { what }).await?
            }
        };
        match &progress {
            Progress::Conflict | Progress::PutOff | Progress::MustAsk(_) => {}
            Progress::Committed(runs) | Progress::CommittedWithMore(runs) => {
                self.announce(event, runs).await;
            }
        }
        Ok(progress)
    }

    async fn decide_nothing(&self, found: &Undecided, rule: Rule) -> Result<Progress, StoreError> {
        let now = self.store.now().await?;
        let decided = Decided { candidates: Vec::new(), nothing: Some(rule), more_after: None };
        self.record(Batch::default(), found, decided, now, Progress::Committed(Vec::new())).await
    }

    /// Commits the batch with the decision in it.
    async fn record(
        &self,
        mut batch: Batch,
        found: &Undecided,
        decided: Decided,
        now: Timestamp,
        progress: Progress,
    ) -> Result<Progress, StoreError> {
        let choices = decided.candidates.iter().map(|candidate| (&candidate.choice).into());
        let outcomes: Vec<metrics::Decided> =
            choices.chain(decided.nothing.iter().map(Into::into)).collect();
        decisions::record(&mut batch, found, decided, now)?;
        let is_counted = !found.event.id.is_simulated();
        match self.store.commit(batch).await {
            Ok(()) if !is_counted => Ok(progress),
            Ok(()) => {
                outcomes.into_iter().for_each(metrics::decided);
                Ok(progress)
            }
            Err(CommitError::Conflict { .. }) => Ok(Progress::Conflict),
            Err(CommitError::Store(error)) => Err(error),
        }
    }

    async fn announce(&self, event: &Event, started: &[RunId]) {
        for run in started {
            tracing::info!(event.id = %event.id, run.id = %run, "event {} started run {run}", event.id);
        }
        // One doorbell is enough: its receiver scans all waiting runs.
        let Some(run) = started.last().copied() else { return };
        if let Err(error) = self.runs_moved.publish(RunsMoved { run }, event.trace.clone()).await {
            tracing::debug!("admission is not notified and will poll: {error}");
        }
    }
}

/// 2 s, doubling to 10 minutes.
fn pause_after(tries: u32) -> Duration {
    Duration::from_secs(2_u64.saturating_pow(tries + 1).min(600))
}
