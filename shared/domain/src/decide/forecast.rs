//! The place of a queued run in its pool, and when it will probably start. Both are as if no limit held a run up and nothing
//! else was started: they tell what to expect, and decide nothing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::decide::order::{Class, Turns};
use crate::id::{PoolName, RunId, RunPrefix, TaskName};
use crate::run::{Outcome, Run, RunState};
use crate::timestamp::Timestamp;

/// How many runs of a pool are looked at. The place of a run behind them is not told.
pub const LINE: usize = 1000;

/// A run that waits for admission.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields without a comment explain themselves")]
pub struct Waiting {
    pub run: RunId,
    pub class: Class,
    pub registry: RunPrefix,
    /// The name of its task, or a text that is the same for all runs without one.
    pub task: String,
}

/// The runs of a pool, and what is known to tell when they start.
#[derive(Debug, Clone, Default)]
pub struct Line {
    /// The first ready runs, in the order in which they are taken.
    pub ready: Vec<Run>,
    /// The first waiting runs: by class, registry and task, and those of a task in their order.
    pub waiting: Vec<Waiting>,
    /// Whose turn it is among the registries.
    pub registries: Turns,
    /// Whose turn it is among the tasks of each registry.
    pub tasks: BTreeMap<RunPrefix, Turns>,
    /// The leased runs.
    pub leased: Vec<Run>,
    /// How many runs are executed at once.
    pub slots: u32,
    /// How long runs take.
    pub history: History,
}

/// How long the last successful runs of a pool took.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    by_task: BTreeMap<(RunPrefix, TaskName), Duration>,
    median: Option<Duration>,
}

impl History {
    /// Learns from runs, the newest first. Those of other pools, and those that did not succeed, are left out.
    pub fn learn<'a>(pool: &PoolName, runs: impl IntoIterator<Item = &'a Run>) -> Self {
        let mut history = Self::default();
        let mut all = Vec::new();
        for run in runs.into_iter().filter(|run| run.pool() == *pool) {
            let RunState::Done(done) = &run.state else { continue };
            let (Outcome::Succeeded(_), Some(started)) = (&done.outcome, done.started) else {
                continue;
            };
            let took = done.at.since(started);
            all.push(took);
            if let Some(task) = task_of(run) {
                history.by_task.entry(task).or_insert(took);
            }
        }
        all.sort_unstable();
        history.median = all.get(all.len() / 2).copied();
        history
    }

    /// How long a run takes: as long as the last one of its task, or else as most do.
    fn expected(&self, task: Option<&(RunPrefix, TaskName)>) -> Option<Duration> {
        task.and_then(|task| self.by_task.get(task)).copied().or(self.median)
    }
}

fn task_of(run: &Run) -> Option<(RunPrefix, TaskName)> {
    run.task.as_ref().map(|task| (run.id.prefix(), task.name.clone()))
}

/// What to expect of a queued run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forecast {
    /// Its place among the queued runs of its pool, from 1; `None` if it is behind the first [`LINE`].
    pub place: Option<usize>,
    /// When it will probably start.
    pub start: Result<Timestamp, NoForecast>,
}

/// Why nothing tells when a run starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoForecast {
    /// Too many runs come before it.
    #[error("more than {LINE} runs come before it")]
    TooFar,
    /// Nobody will take it.
    #[error("no worker of its pool takes runs")]
    NoWorker,
    /// No durations are known.
    #[error(
        "no run of its pool has succeeded lately, so nothing tells how long those before it take"
    )]
    NoHistory,
}

impl Line {
    /// What to expect of a queued run; `None` if it does not stand in line: because it is held, or not queued.
    #[must_use]
    pub fn forecast(&self, run: &Run, now: Timestamp) -> Option<Forecast> {
        let before = match &run.state {
            RunState::Ready { .. } => self.before_ready(run),
            RunState::Waiting { reason, .. } if reason.is_held() => return None,
            RunState::Waiting { .. } => self.before_waiting(run),
            RunState::Started { .. } | RunState::Running { .. } | RunState::Done(_) => return None,
        };
        Some(match before {
            Some(before) if before.len() < LINE => {
                Forecast { place: Some(before.len() + 1), start: self.start(&before, now) }
            }
            _ => Forecast { place: None, start: Err(NoForecast::TooFar) },
        })
    }

    /// The tasks of the runs that are taken before a ready run.
    fn before_ready(&self, run: &Run) -> Option<Vec<Option<(RunPrefix, TaskName)>>> {
        let place = self.ready.iter().position(|other| other.id == run.id)?;
        let better = self.waiting.iter().filter(|other| other.class < run.class());
        let ready = self.ready.iter().take(place).map(task_of);
        Some(ready.chain(better.map(Waiting::task_of)).collect())
    }

    /// The tasks of the runs that are taken before a waiting run.
    fn before_waiting(&self, run: &Run) -> Option<Vec<Option<(RunPrefix, TaskName)>>> {
        let class = run.class();
        let own = in_turn(self.waiting.iter().filter(|other| other.class == class), self);
        let place = own.iter().position(|other| other.run == run.id)?;
        let ready = self.ready.iter().filter(|other| other.class() <= class).map(task_of);
        let better = self.waiting.iter().filter(|other| other.class < class);
        let waiting = better.chain(own.iter().take(place).copied()).map(Waiting::task_of);
        Some(ready.chain(waiting).collect())
    }

    /// When a slot is free for a run, after these: each run gets the slot that is free first.
    fn start(
        &self,
        before: &[Option<(RunPrefix, TaskName)>],
        now: Timestamp,
    ) -> Result<Timestamp, NoForecast> {
        if self.slots == 0 {
            return Err(NoForecast::NoWorker);
        }
        let busy = self.leased.iter().filter_map(|run| Some((run, run.state.started()?)));
        let slots = self.slots as usize;
        let mut ends = Vec::new();
        for (run, started) in busy {
            let takes =
                self.history.expected(task_of(run).as_ref()).ok_or(NoForecast::NoHistory)?;
            // One that takes longer than expected may end at any moment.
            ends.push(started.after(takes).max(now));
        }
        let mut free: BTreeSet<(Timestamp, usize)> = BTreeSet::new();
        free.extend((ends.len()..slots).map(|slot| (now, slot)));
        free.extend(ends.into_iter().enumerate().map(|(slot, end)| (end, slot)));
        for task in before {
            let takes = self.history.expected(task.as_ref());
            if let Some((start, slot)) = free.pop_first() {
                free.insert((start.after(takes.ok_or(NoForecast::NoHistory)?), slot));
            }
        }
        free.first().map(|(start, _)| *start).ok_or(NoForecast::NoWorker)
    }
}

impl Waiting {
    fn task_of(&self) -> Option<(RunPrefix, TaskName)> {
        Some((self.registry, self.task.parse().ok()?))
    }
}

/// The runs of each task, in their order.
type Lanes<'a> = Vec<(&'a str, VecDeque<&'a Waiting>)>;

/// The runs of one class in the order of admission: each registry in turn, and each of its tasks in turn.
fn in_turn<'a>(runs: impl Iterator<Item = &'a Waiting>, line: &Line) -> Vec<&'a Waiting> {
    let mut registries: Vec<(RunPrefix, Lanes<'_>)> = Vec::new();
    let mut class = Class::Person;
    for run in runs {
        class = run.class;
        match registries.last_mut() {
            Some((registry, tasks)) if *registry == run.registry => match tasks.last_mut() {
                Some((task, lane)) if *task == run.task => lane.push_back(run),
                _ => tasks.push((&run.task, VecDeque::from([run]))),
            },
            _ => registries.push((run.registry, vec![(&run.task, VecDeque::from([run]))])),
        }
    }
    let last = line.registries.last(class);
    let mut round: VecDeque<(RunPrefix, VecDeque<_>)> = registries
        .into_iter()
        .map(|(registry, tasks)| {
            let last = line.tasks.get(&registry).and_then(|turns| turns.last(class));
            (registry, behind(tasks, |(task, _)| Some(*task) == last))
        })
        .collect();
    let at = round.iter().position(|(registry, _)| Some(registry.to_string().as_str()) == last);
    round.rotate_left(at.map_or(0, |at| (at + 1) % round.len().max(1)));
    let mut in_turn = Vec::new();
    while let Some((registry, mut tasks)) = round.pop_front() {
        let Some((task, mut lane)) = tasks.pop_front() else { continue };
        in_turn.extend(lane.pop_front());
        if !lane.is_empty() {
            tasks.push_back((task, lane));
        }
        if !tasks.is_empty() {
            round.push_back((registry, tasks));
        }
    }
    in_turn
}

/// The items, beginning behind the one that was last.
fn behind<T>(items: Vec<T>, is_last: impl Fn(&T) -> bool) -> VecDeque<T> {
    let mut items = VecDeque::from(items);
    let at = items.iter().position(is_last);
    let count = items.len().max(1);
    items.rotate_left(at.map_or(0, |at| (at + 1) % count));
    items
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attempt::Lease;
    use crate::decide::planner;
    use crate::decide::samples::task;
    use crate::run::{Done, Product, Rank, ReadySecrets, WaitReason};

    const MINUTE: i64 = 60_000;

    fn run(id: &str, state: RunState) -> Run {
        let task = task();
        let event = "request/1".parse().unwrap();
        let draft =
            planner::for_task_request(&task, task.recipe.clone(), event, "t1".parse().unwrap());
        Run { state, ..draft.create(id.parse().unwrap(), Timestamp::default()) }
    }

    fn waiting(id: &str) -> Run {
        run(id, RunState::Waiting { reason: WaitReason::Admission, since: Timestamp::default() })
    }

    fn ready(id: &str) -> Run {
        let state = RunState::Ready {
            pool: "linux-amd64".parse().unwrap(),
            rank: Rank(0),
            since: Timestamp::default(),
            secrets: ReadySecrets::None,
        };
        run(id, state)
    }

    fn leased(id: &str, since: i64) -> Run {
        let lease = Lease {
            attempt: 1,
            worker: "w".parse().unwrap(),
            pool: "linux-amd64".parse().unwrap(),
            nonce: "0".repeat(32).parse().unwrap(),
            since: Timestamp::from_millis(since),
            until: Timestamp::from_millis(since),
        };
        run(id, RunState::Started { lease })
    }

    fn succeeded(minutes: i64) -> Run {
        let done = Done {
            outcome: Outcome::Succeeded(Product::default()),
            started: Some(Timestamp::default()),
            at: Timestamp::from_millis(minutes * MINUTE),
        };
        Run { task: None, ..run("ca1", RunState::Done(done)) }
    }

    fn member(id: &str, class: Class, registry: &str, task: &str) -> Waiting {
        let (run, registry) = (id.parse().unwrap(), registry.parse().unwrap());
        Waiting { run, class, registry, task: task.to_owned() }
    }

    fn history(minutes: i64) -> History {
        History::learn(&"linux-amd64".parse().unwrap(), &[succeeded(minutes)])
    }

    fn place(line: &Line, run: &Run) -> Option<usize> {
        line.forecast(run, Timestamp::default()).unwrap().place
    }

    #[test]
    fn runs_of_other_registries_and_tasks_come_in_between() {
        let line = Line {
            waiting: vec![
                member("ca1", Class::Person, "ca", "api"),
                member("ca2", Class::Person, "ca", "api"),
                member("ca3", Class::Person, "ca", "api"),
                member("ca9", Class::Person, "ca", "web"),
                member("cb1", Class::Person, "cb", "api"),
                member("ca4", Class::Wave, "ca", "api"),
            ],
            ..Line::default()
        };
        let places = ["ca1", "cb1", "ca9", "ca2", "ca3"].map(|id| place(&line, &waiting(id)));
        assert_eq!(places, [1, 2, 3, 4, 5].map(Some));
    }

    #[test]
    fn whoever_was_served_last_comes_last() {
        let mut line = Line {
            waiting: vec![
                member("ca1", Class::Person, "ca", "api"),
                member("ca2", Class::Person, "ca", "web"),
                member("cb1", Class::Person, "cb", "api"),
            ],
            ..Line::default()
        };
        line.registries.served(Class::Person, "ca");
        let turns = line.tasks.entry("ca".parse().unwrap()).or_default();
        turns.served(Class::Person, "api");
        let places = ["cb1", "ca2", "ca1"].map(|id| place(&line, &waiting(id)));
        assert_eq!(places, [1, 2, 3].map(Some));
    }

    #[test]
    fn ready_runs_come_before_waiting_ones_of_their_class() {
        let line = Line {
            ready: vec![ready("ca1"), ready("ca2")],
            waiting: vec![member("ca3", Class::Person, "ca", "api")],
            ..Line::default()
        };
        assert_eq!(place(&line, &ready("ca2")), Some(2));
        assert_eq!(place(&line, &waiting("ca3")), Some(3));
    }

    #[test]
    fn a_run_starts_when_those_before_it_have_ended_on_all_slots() {
        let mut line = Line {
            leased: vec![leased("ca1", -4 * MINUTE), leased("ca2", -20 * MINUTE)],
            ready: vec![ready("ca3"), ready("ca4"), ready("ca5")],
            slots: 2,
            history: history(10),
            ..Line::default()
        };
        let start =
            |line: &Line, id| line.forecast(&ready(id), Timestamp::default()).unwrap().start;
        let minutes = |minutes: i64| Ok(Timestamp::from_millis(minutes * MINUTE));
        // `ca2` takes longer than expected; `ca1` has 6 minutes left.
        assert_eq!(["ca3", "ca4", "ca5"].map(|id| start(&line, id)), [0, 6, 10].map(minutes));
        line.history = History::default();
        assert_eq!(start(&line, "ca3"), Err(NoForecast::NoHistory));
        line.leased.clear();
        assert_eq!(start(&line, "ca3"), minutes(0), "there is a free slot");
        line.slots = 0;
        assert_eq!(start(&line, "ca3"), Err(NoForecast::NoWorker));
    }

    #[test]
    fn a_run_behind_the_first_thousand_has_no_place_and_says_so() {
        let line = Line { slots: 2, history: history(1), ..Line::default() };
        let forecast = line.forecast(&waiting("ca1"), Timestamp::default()).unwrap();
        assert_eq!((forecast.place, forecast.start), (None, Err(NoForecast::TooFar)));
    }

    #[test]
    fn a_held_run_does_not_stand_in_line() {
        let state = RunState::Waiting { reason: WaitReason::Approval, since: Timestamp::default() };
        assert_eq!(Line::default().forecast(&run("ca1", state), Timestamp::default()), None);
    }
}
