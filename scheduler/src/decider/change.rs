//! Decides which runs a change starts, once its head is known: judges every candidate, and writes the fact, the runs and
//! the decision in one commit.

use std::collections::BTreeMap;

use gantry_domain::decide::judge::{self, Head, Known, Started, Touched, Verdict};
use gantry_domain::decide::planner::RunDraft;
use gantry_domain::decide::{Candidate, Choice, Rule};
use gantry_domain::fact::{Fact, FactKey};
use gantry_domain::id::{EventId, TaskId};
use gantry_domain::lineage::BaseImage;
use gantry_domain::pull_request::ChangedFiles;
use gantry_domain::run::{CanceledBy, RunState, WaitReason};
use gantry_domain::task::Task;
use gantry_domain::timestamp::Timestamp;
use gantry_domain::trigger::{PathRules, Supersede};
use gantry_domain::wave::{Node, NodeTask};
use gantry_ops::{aside, telemetry};
use gantry_seams::decisions::{Decided, Undecided};
use gantry_seams::place::Place;
use gantry_seams::store::{Batch, StoreError};
use gantry_seams::{Versioned, facts, runs, waves};

use super::asks::MayAsk;
use super::head::{ResolvedHead, Unresolved};
use super::queries::FilesOf;
use super::{Decider, Progress, pause_after};

/// How many candidates one commit decides: as many as Redis commits in less than 5 ms.
pub(super) const CANDIDATES_A_COMMIT: usize = 48;

/// How often a failed query for changed files is retried. After that the change is built.
const TRIES_FOR_FILES: u32 = 4;

/// How many older runs of one candidate a newer one replaces in its commit.
const REPLACED: usize = 16;

/// What is known about the head of a change.
pub(super) enum FoundHead<V> {
    Resolved(ResolvedHead<V>),
    Unknown { fact: FactKey, why: String },
    NotAsked,
}

impl<V: Clone> FoundHead<V> {
    /// Converts it for the judge. `goes_on` is true if an earlier commit for this change has already written the fact.
    fn judged(&self, goes_on: bool) -> Head<V> {
        match self {
            Self::Resolved(resolved) => {
                Head::Known { is_news: goes_on || resolved.advanced(), fact: resolved.now.clone() }
            }
            Self::Unknown { fact, why } => Head::Unknown { fact: fact.clone(), why: why.clone() },
            Self::NotAsked => Head::NotAsked,
        }
    }
}

/// A change whose head is known.
pub(super) struct Change<'a, V> {
    /// The event that reports it.
    pub(super) found: &'a Undecided,
    /// Where it happened.
    pub(super) place: Place,
    /// A page of the tasks that watch the repository.
    pub(super) candidates: &'a [Task],
    /// Its head.
    pub(super) head: FoundHead<V>,
    /// The changed files, as far as the event has them.
    pub(super) files: Option<ChangedFiles>,
    /// What to ask for if they are needed; the reason if nobody can be asked.
    pub(super) files_of: Result<FilesOf, String>,
    pub(super) run_keys: RunKeys,
    pub(super) may_ask: MayAsk,
    pub(super) now: Timestamp,
}

/// What a task has at most one run for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RunKeys {
    /// The head, however often it is reported.
    OfHead,
    /// The event: somebody asks for another run of a head.
    OfEvent,
}

impl RunKeys {
    fn of<V>(self, event: &EventId, head: &Head<V>, task: &Task) -> Option<String> {
        match self {
            Self::OfHead => head.run_key(task),
            Self::OfEvent => Some(format!("{event}/{}@{}", task.id, task.created.as_millis())),
        }
    }
}

/// A candidate with the verdict on it.
struct Judged<'a> {
    task: &'a Task,
    verdict: Verdict,
    run_key: Option<String>,
    scan_key: Option<String>,
}

impl Decider {
    /// Judges all candidates and commits the result. `judge` judges one; `note` adds what else is to be told of it.
    pub(super) async fn decide_change<V: facts::Value>(
        &self,
        mut change: Change<'_, V>,
        judge: impl Fn(&Task, Known<'_, V>) -> Verdict,
        note: impl Fn(&Task, &mut Candidate),
    ) -> Result<Progress, StoreError> {
        let (found, candidates) = (change.found, change.candidates);
        // The first commit advanced the fact. Later candidates must start their runs too, although it is unchanged now.
        let head = change.head.judged(found.cursor().is_some());
        let keys_of = |task: &Task| {
            let run_key = change.run_keys.of(&found.event.id, &head, task);
            (run_key, head.scan_key(task))
        };
        let keys = candidates.iter().map(keys_of).flat_map(|(run, scan)| [run, scan]);
        let keys: Vec<String> = keys.flatten().collect();
        let has = runs::find_for(self.store.as_ref(), &keys).await?;
        let judge_one = |task, files: Option<&Touched>| -> Judged<'_> {
            let (run_key, scan_key) = keys_of(task);
            let found_for = |key: &Option<String>| has.get(key.as_ref()?).copied();
            let started = Started { run: found_for(&run_key), scan: found_for(&scan_key) };
            let known = Known { event: &found.event.id, head: &head, started, files };
            Judged { task, verdict: judge(task, known), run_key, scan_key }
        };
        let mut judged: Vec<_> = candidates.iter().map(|task| judge_one(task, None)).collect();
        let needs_files = |it: &&mut Judged<'_>| matches!(it.verdict, Verdict::NeedsFiles);
        let unclear: Vec<_> = judged.iter_mut().filter(needs_files).collect();
        if !unclear.is_empty() {
            let files = match change.files.take() {
                Some(files) => files,
                None => match self.files_of(&change).await {
                    Ok(files) => files,
                    Err(progress) => return progress,
                },
            };
            let touched = touched(files, unclear.iter().map(|it| it.task)).await;
            for (unclear, touched) in unclear.into_iter().zip(touched) {
                *unclear = judge_one(unclear.task, Some(&touched));
            }
        }
        self.commit_change(&change, judged, note).await
    }

    /// The changed files; the progress of the event if it waits for them.
    async fn files_of<V>(
        &self,
        change: &Change<'_, V>,
    ) -> Result<ChangedFiles, Result<Progress, StoreError>> {
        let of = match &change.files_of {
            Ok(of) => of,
            Err(why) => return Ok(ChangedFiles::Unknown { why: why.clone() }),
        };
        match self.ask_for_files(of, change.candidates, change.may_ask).await {
            Ok(files) => Ok(files),
            Err(Unresolved::Store(error)) => Err(Err(error)),
            Err(Unresolved::MustAsk(host)) => Err(Ok(Progress::MustAsk(host))),
            Err(Unresolved::Asking(error))
                if error.is_transient() && change.found.tries() < TRIES_FOR_FILES =>
            {
                let found = change.found;
                let why = format!("its changed files are not known yet: {error}");
                Err(self.put_off_by(found, pause_after(found.tries()), &why).await)
            }
            Err(Unresolved::Asking(error)) => Ok(ChangedFiles::Unknown { why: error.message }),
            Err(Unresolved::Behind) => {
                Ok(ChangedFiles::Unknown { why: "the provider is behind".to_owned() })
            }
        }
    }

    /// Writes the fact, the runs, the ends of older runs, and the decision in one commit.
    async fn commit_change<V: facts::Value>(
        &self,
        change: &Change<'_, V>,
        judged: Vec<Judged<'_>>,
        note: impl Fn(&Task, &mut Candidate),
    ) -> Result<Progress, StoreError> {
        let (store, event) = (self.store.as_ref(), &change.found.event);
        let is_simulated = event.id.is_simulated();
        let mut batch = Batch::default();
        let fact = match &change.head {
            FoundHead::Resolved(resolved) if resolved.is_something() => {
                facts::advance(&mut batch, resolved.known.as_ref(), &resolved.now)?;
                facts::list_if_open(&mut batch, &change.place, &resolved.now);
                Some(&resolved.now)
            }
            FoundHead::Resolved(_) | FoundHead::Unknown { .. } | FoundHead::NotAsked => None,
        };
        let mut followed = self.followed_by(&judged).await?;
        let signer = self.keyring.as_ref();
        let mut creation =
            runs::Creation::begin(store, batch, event.prefix, signer, change.now).await?;
        let (mut decided, mut started) = (Vec::with_capacity(judged.len()), Vec::new());
        let nodes = self.nodes_of(&judged).await?;
        let mut joined = Batch::default();
        let has_more = judged.len() == CANDIDATES_A_COMMIT;
        let mut last: Option<&TaskId> = None;
        for Judged { task, verdict, run_key, scan_key } in judged {
            let mut start = |mut draft: Box<RunDraft>, key| {
                if is_simulated {
                    return Ok(Choice::WouldRun);
                }
                draft.trace = telemetry::current_trace().or_else(|| event.trace.clone());
                let run = creation.add(*draft, key)?.id;
                started.push(run);
                Ok::<_, StoreError>(Choice::Run { run })
            };
            let mut files_unknown = None;
            let choice = match verdict {
                Verdict::No(rule) => Choice::No { rule },
                // It was judged without the files: read again.
                Verdict::NeedsFiles => return Ok(Progress::Conflict),
                Verdict::Scan { rule, scan } => {
                    start(scan, scan_key)?;
                    Choice::No { rule }
                }
                Verdict::Run { mut draft, files_unknown: why } => {
                    files_unknown = why;
                    let of = NodeTask::of(task);
                    draft.recipe.bases = followed.remove(&of).unwrap_or_default();
                    let node = nodes.get(&of).filter(|_| draft.stands_for_task());
                    let waits = node.and_then(|node| node.value.waits());
                    if let Some(wave) = waits {
                        draft.held = Some(WaitReason::Bases { wave });
                    }
                    let stands = draft.stands_for_task() && !is_simulated;
                    let choice = start(draft, run_key)?;
                    if stands {
                        match (&choice, node) {
                            (Choice::Run { run }, Some(node)) if waits.is_some() => {
                                waves::join(&mut joined, node, *run)?;
                            }
                            _ => waves::expect(&mut joined, &of, node),
                        }
                    }
                    choice
                }
            };
            if let Some(fact) = fact.filter(|_| !is_simulated) {
                self.replace_older(&mut creation, task, fact, &choice).await?;
            }
            let task_id = Some(task.id.clone());
            let mut candidate =
                Candidate { task: task_id, choice, other_address: None, files_unknown };
            note(task, &mut candidate);
            decided.push(candidate);
            last = Some(&task.id);
        }
        let more_after = last.filter(|_| has_more).cloned();
        let decided = Decided { candidates: decided, nothing: None, more_after };
        let progress = match has_more {
            true => Progress::CommittedWithMore(started),
            false => Progress::Committed(started),
        };
        // Nothing but the decision comes of a simulated event.
        let mut batch = if is_simulated { Batch::default() } else { creation.finish() };
        batch.append(joined);
        self.record(batch, change.found, decided, change.now, progress).await
    }

    /// The images that policies have chosen for the tasks that get a run.
    async fn followed_by(
        &self,
        judged: &[Judged<'_>],
    ) -> Result<BTreeMap<NodeTask, Vec<BaseImage>>, StoreError> {
        let mut followed = BTreeMap::new();
        for Judged { task, verdict, .. } in judged {
            if matches!(verdict, Verdict::Run { .. }) && !task.recipe.follows.is_empty() {
                let registry = (&task.id.registry, task.prefix);
                let bases = facts::followed(self.store.as_ref(), registry, &task.recipe).await?;
                followed.insert(NodeTask::of(task), bases);
            }
        }
        Ok(followed)
    }

    /// The open nodes of the tasks that get a run.
    async fn nodes_of(
        &self,
        judged: &[Judged<'_>],
    ) -> Result<BTreeMap<NodeTask, Versioned<Node>>, StoreError> {
        let starts = judged.iter().filter(|it| matches!(it.verdict, Verdict::Run { .. }));
        let tasks: Vec<NodeTask> = starts.map(|it| NodeTask::of(it.task)).collect();
        waves::nodes(self.store.as_ref(), &tasks).await
    }

    /// Cancels the runs of older changes that this one makes useless.
    async fn replace_older<V>(
        &self,
        creation: &mut runs::Creation<'_>,
        task: &Task,
        fact: &Fact<V>,
        choice: &Choice,
    ) -> Result<(), StoreError> {
        let (by, is_replaced) = match choice {
            Choice::Run { run } => (CanceledBy::NewerRun { run: *run }, supersedes(task)),
            Choice::No { rule: Rule::PullRequestClosed { number } } => {
                let by = CanceledBy::PullRequestClosed { number: *number };
                (by, supersedes(task).max(Replaces::Queued))
            }
            Choice::No { .. } | Choice::Wave { .. } | Choice::WouldRun => return Ok(()),
        };
        for run in runs::open_of_change(self.store.as_ref(), task, &fact.key, REPLACED).await? {
            let change = run.value.cause.change();
            let is_older = change.is_some_and(|change| change.generation < fact.generation);
            if is_older && is_replaced.covers(&run.value.state) {
                let _is_new = creation.cancel(run, by.clone())?;
            }
        }
        Ok(())
    }
}

/// What the files mean to each task. It is found out beside the runtime: up to 64 patterns for each of up to 20 000 files
/// take long.
async fn touched<'a>(files: ChangedFiles, tasks: impl Iterator<Item = &'a Task>) -> Vec<Touched> {
    let rules: Vec<PathRules> =
        tasks.map(|task| judge::path_rules(task).cloned().unwrap_or_default()).collect();
    let count = rules.len();
    let compared = aside::read(move || {
        rules.iter().map(|rules| Touched::by(&files, rules)).collect::<Vec<_>>()
    });
    compared.await.unwrap_or_else(|error| {
        vec![Touched::Unknown { why: format!("comparing them failed: {error}") }; count]
    })
}

/// Which older runs a newer change replaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Replaces {
    /// Those that wait for an approval, which is bound to their commit.
    Held,
    /// Those that no worker has taken, too.
    Queued,
    /// All.
    Running,
}

impl Replaces {
    fn covers(self, state: &RunState) -> bool {
        match state {
            _ if state.is_held() => true,
            RunState::Waiting { .. } | RunState::Ready { .. } => self >= Self::Queued,
            RunState::Started { .. } | RunState::Running { .. } => self == Self::Running,
            RunState::Done(_) => false,
        }
    }
}

fn supersedes(task: &Task) -> Replaces {
    match task.source_trigger.as_ref().map(|trigger| trigger.supersede) {
        None | Some(Supersede::None) => Replaces::Held,
        Some(Supersede::Queued) => Replaces::Queued,
        Some(Supersede::Running) => Replaces::Running,
    }
}
