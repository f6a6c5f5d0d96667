//! The verdict on a round: compares the store with what was delivered, when no process is running.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};
use gantry_domain::attempt::AttemptEnd;
use gantry_domain::decide::{Choice, Rule};
use gantry_domain::id::{EventId, RunId};
use gantry_domain::run::{COUNTED_ATTEMPTS, ErrorCode, Outcome, Run};
use gantry_objects::ObjectBlobs;
use gantry_seams::blobs::Blobs;
use gantry_seams::runs::{self, RunFilter};
use gantry_seams::store::{Key, Kind, Store};
use gantry_seams::{decisions, deliveries, events};
use gantry_sqlite::{DataDir, Options, SqliteStore};

use crate::base_images::BaseImages;
use crate::evidence::{self, Change, MANY, change};
use crate::ledger::{Delivery, Hook};
use crate::report::{CutShort, Report};
use crate::round::{PlannedTask, Round};

/// Compares the state in a round's folder with what was sent.
pub(crate) async fn judge(
    round: &Round,
    hook: &Hook,
    sent: &[Delivery],
    base_images: Option<&BaseImages>,
    report: &mut Report,
) -> Result<()> {
    let data = DataDir::lock(round.data())?;
    let judge = Judge {
        tasks: &round.tasks,
        requested: &[],
        store: &SqliteStore::open(data.path().join("gantry.db"), Options::default())?,
        blobs: &ObjectBlobs::local(data.path().join("objects"))?,
    };
    judge.judge(hook, sent, report).await?;
    if let Some(images) = base_images {
        let all = runs::list(judge.store, &RunFilter::default(), None, MANY).await?;
        report.rebuilds(images.judge(judge.store, &all).await?);
    }
    Ok(())
}

/// The expected state, and the store to check.
pub(crate) struct Judge<'a> {
    pub(crate) tasks: &'a [PlannedTask],
    /// Runs that were requested by name.
    pub(crate) requested: &'a [RunId],
    pub(crate) store: &'a dyn Store,
    pub(crate) blobs: &'a dyn Blobs,
}

impl Judge<'_> {
    /// Compares the stored state with what was sent.
    pub(crate) async fn judge(
        &self,
        hook: &Hook,
        sent: &[Delivery],
        report: &mut Report,
    ) -> Result<()> {
        report.accepted = sent.len();
        report.answered = sent.iter().map(|delivery| delivery.answers).sum();
        let all = runs::list(self.store, &RunFilter::default(), None, MANY).await?;
        let mut superseded = BTreeSet::new();
        for delivery in sent {
            match self.delivery(hook, delivery, &all).await {
                Ok(changes) => superseded.extend(changes),
                Err(error) => report.fault(format!("delivery {}: {error:#}", delivery.id)),
            }
        }
        self.count(sent, &all, &superseded, report);
        for run in &all {
            report.extra_attempts += run.attempts.len().saturating_sub(1);
            if let Err(error) = self.run(run, &mut report.cut_short).await {
                report.fault(format!("run {}: {error:#}\n    {:?}", run.id, run.state));
            }
        }
        for open in evidence::open(self.store).await? {
            report.fault(open);
        }
        Ok(())
    }

    /// The tasks that a push to a branch starts.
    fn watching(&self, branch: &str) -> impl Iterator<Item = &PlannedTask> {
        self.tasks.iter().filter(move |task| task.branch == branch)
    }

    /// The delivery is in the ledger with the events of every answer, and each event is decided: a run for each
    /// watching task. A scheduler that starts may have found the change itself before, or a newer head of the branch, which
    /// is built instead: returns the changes that were left to those.
    async fn delivery(&self, hook: &Hook, delivery: &Delivery, all: &[Run]) -> Result<Vec<Change>> {
        let id = delivery.id.parse()?;
        let found = deliveries::find(self.store, &hook.id.parse()?, &id).await?;
        let Some(found) = found else { anyhow::bail!("it was answered and is not stored") };
        let stored: Vec<String> = found.event_ids().map(|event| event.to_string()).collect();
        ensure!(stored.len() == 1, "a push is one event, not {stored:?}");
        let answered = BTreeSet::from([stored]);
        ensure!(delivery.events == answered, "{:?} was answered for {answered:?}", delivery.events);
        let mut superseded = Vec::new();
        for event in found.event_ids() {
            superseded.extend(self.event(&event, delivery, all).await?);
        }
        Ok(superseded)
    }

    async fn event(
        &self,
        event: &EventId,
        delivery: &Delivery,
        all: &[Run],
    ) -> Result<Vec<Change>> {
        ensure!(events::find(self.store, event).await?.is_some(), "event {event} is not stored");
        let decision = decisions::find(self.store, event).await?.filter(|found| found.is_final);
        let Some(decision) = decision else { anyhow::bail!("event {event} is not decided") };
        let (mut started, mut left, mut superseded) =
            (BTreeMap::new(), BTreeMap::new(), Vec::new());
        for candidate in &decision.decision.candidates {
            let task = candidate.task.as_ref().map(|task| task.name.to_string());
            match &candidate.choice {
                Choice::Run { run } | Choice::No { rule: Rule::AlreadyStarted { run } } => {
                    started.insert(task.unwrap_or_default(), *run);
                }
                Choice::No { rule: Rule::Superseded { head, .. } } => {
                    left.insert(task.unwrap_or_default(), head.to_string());
                }
                Choice::No { .. } | Choice::Wave { .. } | Choice::WouldRun => {}
            }
        }
        for task in self.watching(&delivery.push.branch) {
            if let Some(head) = left.remove(&task.name) {
                let newer = (task.name.clone(), head);
                let has_run = all.iter().any(|run| change(run).as_ref() == Some(&newer));
                ensure!(has_run, "it was left to {newer:?}, which has no run");
                superseded.push((task.name.clone(), delivery.push.after.clone()));
                continue;
            }
            let run = started.remove(&task.name);
            let Some(run) = run else {
                anyhow::bail!("task {} was not started: {:?}", task.name, decision.decision)
            };
            let found = runs::find(self.store, run).await?;
            let change = found.as_ref().and_then(change);
            let expected = (task.name.clone(), delivery.push.after.clone());
            ensure!(change == Some(expected), "it is decided as {run}, which is for {change:?}");
        }
        ensure!(started.is_empty(), "it started {started:?} too");
        Ok(superseded)
    }

    /// Each change of each task has one run, unless it was left to a newer one, and there are no others but those of waves;
    /// their numbers have no gaps.
    fn count(
        &self,
        sent: &[Delivery],
        all: &[Run],
        superseded: &BTreeSet<Change>,
        report: &mut Report,
    ) {
        let mut open: BTreeMap<Change, Vec<RunId>> = BTreeMap::new();
        let is_of_push =
            |run: &&Run| run.cause.wave().is_none() && !self.requested.contains(&run.id);
        for run in all.iter().filter(is_of_push) {
            open.entry(change(run).unwrap_or_default()).or_default().push(run.id);
        }
        for delivery in sent {
            for task in self.watching(&delivery.push.branch) {
                let change = (task.name.clone(), delivery.push.after.clone());
                match open.remove(&change) {
                    None if superseded.contains(&change) => {}
                    None => {
                        report.lost += 1;
                        report.fault(format!("there is no run for {change:?}"));
                    }
                    Some(runs) if runs.len() > 1 => {
                        report.doubled += runs.len() - 1;
                        report.fault(format!("there are {runs:?} for {change:?}"));
                    }
                    Some(_) => {}
                }
            }
        }
        for (change, runs) in open {
            report.doubled += runs.len();
            report.fault(format!("nobody asked for {runs:?}, for {change:?}"));
        }
        let last = all.iter().map(|run| run.id.number()).max().unwrap_or_default();
        if usize::try_from(last).ok() != Some(all.len()) {
            report.fault(format!("the last of {} runs has number {last}", all.len()));
        }
    }

    /// The run ended as expected, with consecutive attempts, and left a log and no secrets.
    async fn run(&self, run: &Run, cut_short: &mut CutShort) -> Result<()> {
        let Some(done) = run.state.done() else { anyhow::bail!("it has not ended") };
        let mut finished = None;
        let mut lost = 0;
        let mut workers = BTreeSet::new();
        for (place, attempt) in run.attempts.iter().enumerate() {
            ensure!(attempt.attempt as usize == place + 1, "its attempts are {:?}", run.attempts);
            ensure!(attempt.since <= attempt.ended, "it ended before it began: {attempt:?}");
            ensure!(finished.is_none(), "it was finished before attempt {attempt:?}");
            ensure!(workers.insert(&attempt.worker), "its worker had it before: {attempt:?}");
            match &attempt.end {
                AttemptEnd::Finished => finished = Some(attempt.attempt),
                AttemptEnd::Lapsed => lost += 1,
                end @ (AttemptEnd::HandedBack
                | AttemptEnd::Split
                | AttemptEnd::Unavailable { .. }
                | AttemptEnd::InfrastructureFailed { .. }) => {
                    anyhow::bail!("attempt {} ended by {end:?}", attempt.attempt)
                }
            }
        }
        let hangs = self.tasks.iter().any(|task| {
            task.hangs && run.task.as_ref().is_some_and(|of| of.name.to_string() == task.name)
        });
        match &done.outcome {
            Outcome::Succeeded(product) if !hangs => {
                ensure!(finished.is_some(), "nobody finished it: {:?}", run.attempts);
                let commit = product.commit.as_ref().map(ToString::to_string);
                let asked = run.cause.commit().map(ToString::to_string);
                ensure!(asked.is_none() || commit == asked, "it built {commit:?}");
            }
            Outcome::Canceled { .. } if hangs => {}
            Outcome::Error { error } => {
                ensure!(error.code == ErrorCode::WorkerLost, "it ended by {error:?}");
                ensure!(lost == COUNTED_ATTEMPTS, "it was given up after {lost} attempts");
            }
            outcome @ (Outcome::Succeeded(_)
            | Outcome::Failed { .. }
            | Outcome::Canceled { .. }
            | Outcome::Timeout { .. }) => anyhow::bail!("it ended by {outcome:?}"),
        }
        for attempt in &run.attempts {
            let log = evidence::log(self.store, self.blobs, run.id, attempt.attempt).await?;
            let text = log.text;
            if attempt.end == AttemptEnd::Lapsed {
                cut_short.count(&text);
            }
            if let Some(product) = done.outcome.product()
                && finished == Some(attempt.attempt)
            {
                let says_all = product.outputs.iter().all(|output| {
                    text.contains(&format!("pushed {} at {}\n", output.image, output.digest))
                });
                let begins = text.starts_with("fetching") && text.contains(" begins");
                ensure!(begins && says_all, "its log is\n{text}");
            }
        }
        let bundle = Key::new(Kind::Bundle, format!("{}/{}", run.pool(), run.id));
        let bundle = self.store.load(&[bundle]).await?;
        ensure!(bundle.iter().all(Option::is_none), "its secrets are still stored");
        Ok(())
    }
}
