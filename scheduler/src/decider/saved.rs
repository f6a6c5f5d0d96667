//! Scans the source of a saved task, and reads the head of a branch that it newly watches.

use gantry_domain::decide::{Rule, matcher, planner};
use gantry_domain::event::PushedRef;
use gantry_domain::fact::{self, FactKey};
use gantry_domain::id::TaskId;
use gantry_domain::source::CommitId;
use gantry_domain::task::Task;
use gantry_domain::timestamp::Timestamp;
use gantry_ops::telemetry;
use gantry_seams::decisions::{Decided, Undecided};
use gantry_seams::store::{Batch, StoreError};
use gantry_seams::{facts, runs, tasks};

use super::asks::MayAsk;
use super::head::Unresolved;
use super::{Decider, Progress};

/// A task, distinguished from others of the same name.
#[derive(Debug, Clone, Copy)]
pub(super) struct Incarnation<'a> {
    pub(super) id: &'a TaskId,
    pub(super) created: Timestamp,
}

/// What was learned about the head of a branch.
enum Learned {
    /// This is to be recorded, in these words.
    Recorded { batch: Batch, what: String },
    /// This host must be queried first.
    MustAsk(String),
    /// The host may not show the head yet.
    Behind,
}

impl Decider {
    /// Starts a scan of a saved task, unless its current revision has one, and stores the head of the branch that it
    /// newly watches.
    pub(super) async fn decide_saved(
        &self,
        found: &Undecided,
        saved: Incarnation<'_>,
        watches_anew: bool,
        may_ask: MayAsk,
    ) -> Result<Progress, StoreError> {
        let (store, event) = (self.store.as_ref(), &found.event);
        let task = tasks::find(store, saved.id).await?;
        let is_saved = |task: &Task| task.prefix == event.prefix && task.created == saved.created;
        let Some(task) = task.filter(is_saved) else {
            let what = format!("task {}, which is deleted,", saved.id);
            return self.decide_nothing(found, Rule::RecordedOnly { what }).await;
        };
        let learned = if watches_anew {
            self.learn_head(found, &task, may_ask).await?
        } else {
            let what = format!("revision {} of task {}", task.revision, task.id);
            Learned::Recorded { batch: Batch::default(), what }
        };
        let (batch, what) = match learned {
            Learned::Recorded { batch, what } => (batch, what),
            Learned::MustAsk(host) => return Ok(Progress::MustAsk(host)),
            Learned::Behind => return self.put_off(found, "its host may be behind").await,
        };
        let key = task.scan_key();
        let has_scan = !runs::find_for(store, std::slice::from_ref(&key)).await?.is_empty();
        let (now, signer) = (store.now().await?, self.keyring.as_ref());
        let mut creation = runs::Creation::begin(store, batch, event.prefix, signer, now).await?;
        let mut started = Vec::new();
        if !has_scan {
            let mut scan = planner::for_scan_of_saved(&task, event.id.clone());
            scan.trace = telemetry::current_trace().or_else(|| event.trace.clone());
            started.push(creation.add(scan, Some(key))?.id);
        }
        let nothing = Some(Rule::RecordedOnly { what });
        let decided = Decided { candidates: Vec::new(), nothing, more_after: None };
        self.record(creation.finish(), found, decided, now, Progress::Committed(started)).await
    }

    /// Reads the head of the branch that a task watches. With it the next push can be classified without a query to the
    /// code host.
    async fn learn_head(
        &self,
        found: &Undecided,
        task: &Task,
        may_ask: MayAsk,
    ) -> Result<Learned, StoreError> {
        let mut batch = Batch::default();
        let Some(repository) = matcher::watched_repository(task) else {
            let what = format!("task {}, which watches no branch,", task.id);
            return Ok(Learned::Recorded { batch, what });
        };
        let branch = matcher::watched_branch(task);
        let reference = branch.clone().map(PushedRef::Branch);
        let resolved = self.ask(reference.as_ref(), std::slice::from_ref(task), may_ask).await;
        let head = match resolved {
            Ok(head) => head,
            Err(Unresolved::Store(error)) => return Err(error),
            Err(Unresolved::MustAsk(host)) => return Ok(Learned::MustAsk(host)),
            Err(Unresolved::Behind) => return Ok(Learned::Behind),
            Err(Unresolved::Asking(error)) => {
                // No retry: the first push queries the host.
                tracing::warn!(task.name = %task.id, "the head that task {} watches is not known yet: {error}", task.id);
                let what = format!("task {}, whose branch could not be read ({error}),", task.id);
                return Ok(Learned::Recorded { batch, what });
            }
        };
        let Some(branch) = head.branch.or(branch) else {
            let what = format!("task {}, whose repository names no default branch,", task.id);
            return Ok(Learned::Recorded { batch, what });
        };
        let key = FactKey::branch(&found.event.registry, &repository, &branch);
        let known = facts::find::<CommitId>(self.store.as_ref(), &key).await?;
        let is_there = known.is_some() || head.commit.is_some();
        // An existing fact is advanced only by pushes: if it were advanced here, the push would count as a repetition
        // and start no run.
        if known.is_none() {
            let now = self.store.now().await?;
            let fact = fact::advanced(None, &key, head.commit, now);
            facts::advance(&mut batch, None, &fact)?;
        }
        let what = match is_there {
            true => format!("the head of {branch} of {repository}"),
            // The name may be that of a tag. A branch that is created later starts the task.
            false => format!("task {}, whose repository has no branch `{branch}` yet,", task.id),
        };
        Ok(Learned::Recorded { batch, what })
    }
}
