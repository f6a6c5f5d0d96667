//! Decides what a due timer starts.

use gantry_domain::decide::timers::{self, MOST_QUEUED, Start};
use gantry_domain::decide::{Candidate, Choice, Rule, planner};
use gantry_domain::event::TimerDue;
use gantry_domain::id::RunId;
use gantry_domain::run::CanceledBy;
use gantry_ops::telemetry;
use gantry_seams::decisions::{Decided, Undecided};
use gantry_seams::store::{Batch, StoreError};
use gantry_seams::{facts, runs, tasks};

use super::{Decider, Progress};

impl Decider {
    pub(super) async fn decide_timer(
        &self,
        found: &Undecided,
        due: &TimerDue,
    ) -> Result<Progress, StoreError> {
        let (store, event) = (self.store.as_ref(), &found.event);
        let task = tasks::find(store, &due.task).await?;
        let is_it = |task: &gantry_domain::task::Task| {
            task.prefix == event.prefix && task.created == due.created
        };
        let Some(task) = task.filter(is_it) else {
            let what = format!("timer {} of task {}, which is deleted,", due.timer, due.task);
            return self.decide_nothing(found, Rule::RecordedOnly { what }).await;
        };
        let (now, signer) = (store.now().await?, self.keyring.as_ref());
        // Before the open runs are read: a run that is created afterwards makes this commit conflict.
        let mut creation =
            runs::Creation::begin(store, Batch::default(), event.prefix, signer, now).await?;
        let timer = match timers::enabled(&task, &due.timer) {
            Ok(Some(timer)) => timer,
            Ok(None) => {
                let what = format!("timer {}, which task {} has no more,", due.timer, due.task);
                return self.decide_nothing(found, Rule::RecordedOnly { what }).await;
            }
            Err(rule) => return self.decide_one(found, due, Choice::No { rule }, creation).await,
        };
        let open = runs::open_of_timer(store, &task, &timer.name, MOST_QUEUED).await?;
        let ids: Vec<RunId> = open.iter().map(|run| run.value.id).collect();
        let start = match timers::start(timer, &ids) {
            Ok(start) => start,
            Err(rule) => return self.decide_one(found, due, Choice::No { rule }, creation).await,
        };
        let mut run = planner::for_timer(&task, &event.id, due, start == Start::Queued);
        let registry = (&task.id.registry, task.prefix);
        run.recipe.bases = facts::followed(store, registry, &task.recipe).await?;
        run.trace = telemetry::current_trace().or_else(|| event.trace.clone());
        let run = creation.add(run, Some(event.id.to_string()))?.id;
        if start == Start::Instead {
            for earlier in open {
                let _is_new = creation.cancel(earlier, CanceledBy::NewerRun { run })?;
            }
        }
        self.decide_one(found, due, Choice::Run { run }, creation).await
    }

    async fn decide_one(
        &self,
        found: &Undecided,
        due: &TimerDue,
        choice: Choice,
        creation: runs::Creation<'_>,
    ) -> Result<Progress, StoreError> {
        let started = match &choice {
            Choice::Run { run } => vec![*run],
            Choice::Wave { .. } | Choice::WouldRun | Choice::No { .. } => Vec::new(),
        };
        let candidate = Candidate {
            task: Some(due.task.clone()),
            choice,
            other_address: None,
            files_unknown: None,
        };
        let decided = Decided { candidates: vec![candidate], nothing: None, more_after: None };
        let now = self.store.now().await?;
        self.record(creation.finish(), found, decided, now, Progress::Committed(started)).await
    }
}
