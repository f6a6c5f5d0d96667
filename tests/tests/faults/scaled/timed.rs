//! A task whose timers are due at every full minute, and the verdict on them: each instant has one event, one decision
//! and one run.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use gantry_api::{Task, TaskCreate, Timer};
use gantry_domain::decide::Choice;
use gantry_domain::event::TimerDue;
use gantry_domain::id::{RunId, TaskId};
use gantry_domain::run::Run;
use gantry_domain::timer::Timers;
use gantry_domain::timestamp::Timestamp;
use gantry_seams::store::Store;
use gantry_seams::{decisions, events, tasks};
use gantry_tests::installation::Client;

use super::environment::now;
use super::report::Report;
use super::round::REGISTRY;
use crate::base_images;
use crate::round::quiet;

/// Its name.
pub(crate) const NAME: &str = "timed";
const TIMERS: [&str; 3] = ["one", "two", "three"];

const MINUTE: i64 = 60_000;

/// A round begins this long before a full minute, so that something fails when the timers are due.
const BEFORE: [Duration; 2] = [Duration::from_secs(4), Duration::from_secs(10)];

/// The task.
#[derive(Debug)]
pub(crate) struct Timed {
    task: TaskId,
    created: Timestamp,
    /// When its timers were removed; until then, when it was created.
    until: Timestamp,
}

impl Timed {
    /// Creates the task, which builds the head of a branch and pushes nothing.
    pub(crate) async fn create(
        client: &Client,
        store: &dyn Store,
        (clone_url, branch): (&str, &str),
    ) -> Result<Self> {
        let every_minute =
            TIMERS.map(|name| Timer { misfire: "all".to_owned(), ..Timer::new(name, "* * * * *") });
        let task = TaskCreate {
            name: NAME.to_owned(),
            context: format!("{clone_url}#{branch}"),
            dockerfile: base_images::dockerfile_of(branch),
            push: false,
            timers: every_minute.into(),
            ..TaskCreate::default()
        };
        let _: Task = client.post(&format!("registries/{REGISTRY}/tasks"), &task).await?;
        let task: TaskId = format!("{REGISTRY}/{NAME}").parse()?;
        let created = tasks::find(store, &task).await?.context("it is saved")?.created;
        Ok(Self { task, created, until: created })
    }

    /// Waits until a full minute is near, if it is not.
    pub(crate) async fn until_nearly_due() {
        let left = Duration::from_millis((MINUTE - now().as_millis() % MINUTE).unsigned_abs());
        let [least, most] = BEFORE;
        if left < least {
            tokio::time::sleep(left + Duration::from_secs(60) - most).await;
        } else {
            tokio::time::sleep(left.saturating_sub(most)).await;
        }
    }

    /// Waits until the events of all instants until now are decided, and removes the timers. Further instants may have an
    /// event.
    pub(crate) async fn stop(&mut self, store: &dyn Store, within: Duration) -> Result<()> {
        self.until = now();
        quiet("fire its timers", within, async || {
            let mut open = Vec::new();
            for due in self.instants() {
                let event = due.event_id();
                if !decisions::find(store, &event).await?.is_some_and(|found| found.is_final) {
                    open.push(format!("event {event} is not decided"));
                }
            }
            Ok(open)
        })
        .await?;
        tasks::update(store, &self.task, |task| task.timers = Timers::default()).await?;
        Ok(())
    }

    /// The instants of all timers, each of which must have an event.
    fn instants(&self) -> Vec<TimerDue> {
        let minutes = self.created.as_millis() / MINUTE + 1..=self.until.as_millis() / MINUTE;
        let all = minutes.flat_map(|minute| TIMERS.map(|timer| (minute, timer)));
        let all = all.map(|(minute, timer)| TimerDue {
            task: self.task.clone(),
            created: self.created,
            timer: timer.parse().unwrap(),
            due: Timestamp::from_millis(minute * MINUTE),
        });
        all.collect()
    }

    /// Compares events, decisions and runs with the instants.
    pub(crate) async fn judge(
        &self,
        store: &dyn Store,
        runs: &BTreeMap<RunId, &Run>,
        report: &mut Report,
    ) {
        let instants = self.instants();
        report.instants = instants.len();
        for due in &instants {
            if let Err(error) = started(store, runs, due).await {
                report.lost += 1;
                report.fault(format!("timer {} due {}: {error:#}", due.timer, due.due));
            }
        }
        let mut by_instant: BTreeMap<_, Vec<RunId>> = BTreeMap::new();
        for run in runs.values() {
            if let Some((timer, due)) = run.cause.timer() {
                by_instant.entry((due, timer.to_string())).or_default().push(run.id);
            }
        }
        for ((due, timer), runs) in by_instant.into_iter().filter(|(_, runs)| runs.len() > 1) {
            report.doubled += runs.len() - 1;
            report.fault(format!("there are {runs:?} for timer {timer} due {due}"));
        }
    }
}

/// The instant has an event, whose decision is a run of the instant.
async fn started(store: &dyn Store, runs: &BTreeMap<RunId, &Run>, due: &TimerDue) -> Result<()> {
    let event = due.event_id();
    ensure!(events::find(store, &event).await?.is_some(), "event {event} is not stored");
    let decision = decisions::find(store, &event).await?.filter(|found| found.is_final);
    let Some(decision) = decision else { bail!("event {event} is not decided") };
    let choices: Vec<&Choice> =
        decision.decision.candidates.iter().map(|candidate| &candidate.choice).collect();
    let [Choice::Run { run }] = choices[..] else { bail!("it was decided {choices:?}") };
    let cause = runs.get(run).and_then(|run| run.cause.timer());
    ensure!(cause == Some((&due.timer, due.due)), "it started {run}, for {cause:?}");
    Ok(())
}
