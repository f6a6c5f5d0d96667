//! The verdict on a round: compares store, registry and broker with what was sent, when all is quiet.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use gantry_domain::attempt::AttemptEnd;
use gantry_domain::decide::{Choice, Rule};
use gantry_domain::id::{EventId, RunId};
use gantry_domain::run::{COUNTED_ATTEMPTS, ErrorCode, Outcome, Run};
use gantry_domain::timestamp::Timestamp;
use gantry_seams::runs::{self, RunFilter};
use gantry_seams::store::{Key, Kind as RecordKind};
use gantry_seams::{decisions, deliveries, events};
use reqwest::StatusCode;

use super::driver::{Answer, Sent};
use super::plan::Kind;
use super::report::{Played, Report};
use super::round::{PlannedTask, Round};
use crate::evidence::{self, Change, MANY, change};
use crate::round::quiet;

/// How many doorbells may be left when there is no work.
const FEW: u64 = 64;

/// The time limit for more doorbells than that: a broker detects missing heartbeats of 10 s within 30 s.
const EMPTY_WITHIN: Duration = Duration::from_secs(60);

/// The largest difference between a worker's clock and the store's.
const CLOCKS_DIFFER: Duration = Duration::from_millis(500);

/// How long a killed store may still have answered.
const DYING: Duration = Duration::from_millis(500);

/// Compares the stored state with what was sent.
pub(crate) async fn judge(
    round: &Round,
    sent: &[Sent],
    played: &[Played],
    report: &mut Report,
) -> Result<()> {
    let store = round.store.as_ref();
    let all = runs::list(store, &RunFilter::default(), None, MANY).await?;
    ensure!(all.len() < MANY, "there are more runs than are read");
    let answers = round.driver.answers();
    report.accepted = sent.len();
    report.answered = sent.iter().map(|sent| sent.delivery.answers).sum();
    let refused = |answer: &&Answer| answer.status == Some(StatusCode::SERVICE_UNAVAILABLE);
    report.refused = answers.iter().filter(refused).count();

    let judge = Judge { round, runs: all.iter().map(|run| (run.id, run)).collect() };
    for sent in sent {
        if let Err(error) = judge.delivery(sent, report).await {
            report.lost += 1;
            report.fault(format!("delivery {}: {error:#}", sent.delivery.id));
        }
    }
    judge.count(sent, report);
    round.timed.judge(store, &judge.runs, report).await;
    report.rebuilds(round.base_images.judge(store, &all).await?);
    for run in &all {
        report.extra_attempts += run.attempts.len().saturating_sub(1);
        if let Err(error) = judge.run(run, played, report).await {
            report.fault(format!("run {}: {error:#}\n    {:?}", run.id, run.state));
        }
    }
    for task in &round.tasks {
        if let Err(error) = judge.tag(task) {
            report.stale += 1;
            report.fault(format!("{}: {error:#}", task.latest));
        }
    }
    for open in evidence::open(store).await? {
        report.fault(open);
    }
    // A client whose connection is dead in one direction receives nothing until the broker detects missing heartbeats.
    if let Err(left) = quiet("empty its queues", EMPTY_WITHIN, || unclaimed(round)).await {
        report.fault(format!("{left:#}"));
    }
    for fault in played {
        report.recovered.push((*fault, judge.recovery(fault, sent)));
        if let Err(error) = judge.went_on(fault, sent, &answers, report) {
            report.fault(format!("{}: {error:#}", fault.kind));
        }
    }
    Ok(())
}

/// Queues with more doorbells than may be left.
async fn unclaimed(round: &Round) -> Result<Vec<String>> {
    let queues = round.servers.queues().await?;
    let full = queues.iter().filter(|queue| queue.messages > FEW);
    Ok(full.map(|queue| format!("{} messages are in {}", queue.messages, queue.name)).collect())
}

struct Judge<'a> {
    round: &'a Round,
    runs: BTreeMap<RunId, &'a Run>,
}

impl Judge<'_> {
    /// The delivery is stored with the events of every answer, and each event is decided: a run for each watching task,
    /// unless a later push was reported before.
    async fn delivery(&self, sent: &Sent, report: &mut Report) -> Result<()> {
        let (store, delivery) = (self.round.store.as_ref(), &sent.delivery);
        let (hook, id) = (self.round.driver.hook.id.parse()?, delivery.id.parse()?);
        let Some(found) = deliveries::find(store, &hook, &id).await? else {
            bail!("it was answered and is not stored")
        };
        let stored: Vec<String> = found.event_ids().map(|event| event.to_string()).collect();
        ensure!(stored.len() == 1, "a push is one event, not {stored:?}");
        let answered = BTreeSet::from([stored]);
        ensure!(delivery.events == answered, "{:?} was answered for {answered:?}", delivery.events);
        for event in found.event_ids() {
            self.event(&event, sent, report).await?;
        }
        Ok(())
    }

    async fn event(&self, event: &EventId, sent: &Sent, report: &mut Report) -> Result<()> {
        let store = self.round.store.as_ref();
        ensure!(events::find(store, event).await?.is_some(), "event {event} is not stored");
        let decision = decisions::find(store, event).await?.filter(|found| found.is_final);
        let Some(decision) = decision else { bail!("event {event} is not decided") };
        let push = &sent.delivery.push;
        for task in self.round.tasks.iter().filter(|task| task.branch == push.branch) {
            let of_task = decision.decision.candidates.iter().find(|candidate| {
                candidate.task.as_ref().is_some_and(|it| it.name.to_string() == task.name)
            });
            match of_task.map(|candidate| &candidate.choice) {
                Some(Choice::Run { run } | Choice::No { rule: Rule::AlreadyStarted { run } }) => {
                    let change = self.runs.get(run).and_then(|run| change(run));
                    let expected = (task.name.clone(), push.after.clone());
                    ensure!(change == Some(expected), "it started {run}, for {change:?}");
                }
                Some(Choice::No { rule: Rule::Superseded { head, .. } }) => {
                    report.superseded += 1;
                    let newer = (task.name.clone(), head.to_string());
                    let has_run =
                        self.runs.values().any(|run| change(run).as_ref() == Some(&newer));
                    ensure!(has_run, "it was left to {head}, which has no run of {}", task.name);
                }
                other => bail!("for task {} was decided {other:?}", task.name),
            }
        }
        Ok(())
    }

    /// Each change of each task, and each generation of its fact, has one run, and there are no other runs but those of
    /// timers and waves.
    fn count(&self, sent: &[Sent], report: &mut Report) {
        let mut by_change: BTreeMap<Change, Vec<RunId>> = BTreeMap::new();
        let mut by_generation: BTreeMap<_, Vec<RunId>> = BTreeMap::new();
        let is_of_push = |run: &&&Run| run.cause.timer().is_none() && run.cause.wave().is_none();
        for run in self.runs.values().filter(is_of_push) {
            by_change.entry(change(run).unwrap_or_default()).or_default().push(run.id);
            let task = run.task.as_ref().map(|task| task.name.to_string());
            let generation = run.built_on.facts().first().map(|built_on| built_on.generation);
            by_generation.entry((task, generation)).or_default().push(run.id);
        }
        let pushed: BTreeSet<&String> = sent.iter().map(|sent| &sent.delivery.push.after).collect();
        for ((task, commit), runs) in &by_change {
            if runs.len() > 1 || !pushed.contains(commit) {
                report.doubled += runs.len() - usize::from(pushed.contains(commit));
                report.fault(format!("there are {runs:?} for {commit} of {task}"));
            }
        }
        for (generation, runs) in by_generation.iter().filter(|(_, runs)| runs.len() > 1) {
            report.fault(format!("there are {runs:?} for generation {generation:?}"));
        }
        for task in &self.round.tasks {
            let newest = sent.iter().rfind(|sent| sent.delivery.push.branch == task.branch);
            let newest = newest.map(|sent| (task.name.clone(), sent.delivery.push.after.clone()));
            if newest.as_ref().is_some_and(|newest| !by_change.contains_key(newest)) {
                report.lost += 1;
                report.fault(format!("there is no run for {newest:?}"));
            }
        }
    }

    /// The run ended as expected, with consecutive attempts, and left logs and no secrets.
    async fn run(&self, run: &Run, played: &[Played], report: &mut Report) -> Result<()> {
        let Some(done) = run.state.done() else { bail!("it has not ended") };
        let engine_was_away = played.iter().any(|fault| fault.kind == Kind::EngineAway);
        let was_restarted = played.iter().any(|fault| fault.kind == Kind::RollingRestart);
        let mut finished = None;
        for (place, attempt) in run.attempts.iter().enumerate() {
            ensure!(attempt.attempt as usize == place + 1, "its attempts are {:?}", run.attempts);
            ensure!(attempt.since <= attempt.ended, "it ended before it began: {attempt:?}");
            ensure!(finished.is_none(), "it was finished before attempt {attempt:?}");
            match &attempt.end {
                AttemptEnd::Finished => finished = Some(attempt.attempt),
                AttemptEnd::Lapsed => {}
                AttemptEnd::HandedBack if was_restarted => {}
                AttemptEnd::InfrastructureFailed { .. } | AttemptEnd::Unavailable { .. }
                    if engine_was_away => {}
                end @ (AttemptEnd::HandedBack
                | AttemptEnd::Split
                | AttemptEnd::Unavailable { .. }
                | AttemptEnd::InfrastructureFailed { .. }) => {
                    bail!("attempt {} ended by {end:?}", attempt.attempt)
                }
            }
        }
        match &done.outcome {
            Outcome::Succeeded(product) => {
                let commit = product.commit.as_ref().map(ToString::to_string);
                ensure!(finished.is_some(), "nobody finished it: {:?}", run.attempts);
                let named = run.cause.commit().map(ToString::to_string);
                // A timer names no commit, nor does a wave whose task has no source trigger: such a run builds the head of
                // the branch at that moment.
                let must_name = run.cause.timer().is_none() && run.cause.wave().is_none();
                let as_named =
                    if named.is_some() || must_name { commit == named } else { commit.is_some() };
                ensure!(as_named, "it built {commit:?}");
            }
            Outcome::Error { error } => {
                report.given_up += 1;
                let counted = run.attempts.iter().filter(|attempt| attempt.end.counts()).count();
                ensure!(
                    error.code == ErrorCode::WorkerLost || engine_was_away,
                    "it ended by {error:?}"
                );
                ensure!(counted == COUNTED_ATTEMPTS, "it was given up after {counted} attempts");
            }
            outcome @ (Outcome::Failed { .. }
            | Outcome::Canceled { .. }
            | Outcome::Timeout { .. }) => bail!("it ended by {outcome:?}"),
        }
        self.logs(run, finished, report).await?;
        let bundle = Key::new(RecordKind::Bundle, format!("{}/{}", run.pool(), run.id));
        let bundle = self.round.store.load(&[bundle]).await?;
        ensure!(bundle.iter().all(Option::is_none), "its secrets are still stored");
        Ok(())
    }

    /// Each attempt's log is complete, and that of the last one names the pushed images.
    async fn logs(&self, run: &Run, finished: Option<u32>, report: &mut Report) -> Result<()> {
        let blobs = self.round.environment.blobs()?;
        for attempt in &run.attempts {
            let (store, number) = (self.round.store.as_ref(), attempt.attempt);
            let evidence::Log { text, last } = evidence::log(store, &blobs, run.id, number).await?;
            // Harmless: a log belongs to one attempt, and a late append opens it again.
            if last.is_some_and(|last| last > attempt.ended.after(CLOCKS_DIFFER)) {
                report.late_logs += 1;
            }
            if finished != Some(number) {
                continue;
            }
            let product = run.state.done().and_then(|done| done.outcome.product());
            let says_all = product.into_iter().flat_map(|product| &product.outputs).all(|output| {
                text.contains(&format!("pushed {} at {}\n", output.image, output.digest))
            });
            ensure!(text.starts_with("fetching") && says_all, "its log is\n{text}");
        }
        Ok(())
    }

    /// The tag points to the image of the newest run with the newest generation.
    fn tag(&self, task: &PlannedTask) -> Result<()> {
        let of_task = self
            .runs
            .values()
            .filter(|run| run.task.as_ref().is_some_and(|it| it.name.to_string() == task.name));
        let succeeded = of_task.filter_map(|run| {
            let product = run.state.done()?.outcome.product()?;
            Some((run.built_on.facts().first()?.generation, run.id, product))
        });
        let newest = succeeded.max_by_key(|(generation, run, _)| (*generation, run.number()));
        let Some((_, run, product)) = newest else { return Ok(()) };
        let output = product.outputs.iter().find(|it| it.image.to_string() == task.latest);
        let pushed = output.map(|output| output.digest.to_string());
        let tagged = self.round.tag(task)?;
        ensure!(
            pushed.is_some() && pushed == tagged,
            "it is {tagged:?}, and {run} made {pushed:?}"
        );
        Ok(())
    }

    /// How long after the end of a fault all delayed work was done, and a hook was accepted again.
    fn recovery(&self, fault: &Played, sent: &[Sent]) -> Duration {
        let end = fault.until;
        let held_up = self.runs.values().filter(|run| run.created < end);
        let done = held_up.filter_map(|run| Some(run.state.done()?.at));
        let taken = sent.iter().map(|sent| sent.accepted).filter(|accepted| *accepted >= end).min();
        done.chain(taken).filter(|at| *at > end).map(|at| at.since(end)).max().unwrap_or_default()
    }

    /// Work that must continue during a fault did, and work that must not did not.
    fn went_on(
        &self,
        fault: &Played,
        sent: &[Sent],
        answers: &[Answer],
        report: &mut Report,
    ) -> Result<()> {
        let during = |at: Timestamp| fault.from < at && at < fault.until;
        if fault.kind == Kind::BrokerAway {
            let accepted = sent.iter().filter(|sent| during(sent.accepted)).count();
            let done = self.runs.values().filter(|run| {
                during(run.created) && run.state.done().is_some_and(|done| during(done.at))
            });
            let done = done.count();
            report.figures.push(format!(
                "without a broker {accepted} deliveries were accepted, {done} new runs ended"
            ));
            ensure!(accepted > 0, "no delivery was accepted without a broker");
            ensure!(done > 0, "no run began and ended without a broker");
        }
        if fault.kind == Kind::StoreAway {
            let asked = answers
                .iter()
                .filter(|answer| fault.from.after(DYING) < answer.asked && answer.at < fault.until);
            let statuses: Vec<_> = asked.filter_map(|answer| answer.status).collect();
            let refused = statuses.iter().filter(|it| **it == StatusCode::SERVICE_UNAVAILABLE);
            let refused = refused.count();
            let held: Vec<&&Run> = self.runs.values().filter(|run| was_held(run, fault)).collect();
            let finished = held.iter().filter(|run| {
                run.attempts.iter().any(|attempt| {
                    attempt.since < fault.from && attempt.end == AttemptEnd::Finished
                })
            });
            let finished = finished.count();
            report.figures.push(format!(
                "without a store {refused} of {} answers were 503; {finished} of {} builds went on and finished",
                statuses.len(),
                held.len()
            ));
            ensure!(refused > 0 && refused == statuses.len(), "it was answered {statuses:?}");
            ensure!(finished == held.len(), "not every build went on: {held:?}");
        }
        Ok(())
    }
}

/// Whether a worker held the run for the whole duration of a fault.
fn was_held(run: &Run, fault: &Played) -> bool {
    run.attempts.iter().any(|attempt| attempt.since < fault.from && attempt.ended > fault.until)
}
