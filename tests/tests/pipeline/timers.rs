//! Tasks start by the clock: each due instant once, whoever looks and whatever happens meanwhile.

use std::collections::BTreeSet;
use std::time::Duration;

use gantry_domain::id::EventId;
use gantry_domain::run::{RunState, RunStatus, WaitReason};
use gantry_domain::task::{Status, Task};
use gantry_domain::timer::{Misfire, Overlap, Timer, Timers};
use gantry_domain::timestamp::Timestamp;
use gantry_seams::runs::{self, RunFilter};
use gantry_seams::{due, tasks, timers};
use gantry_tests::pipeline::{DOCKERFILE, TestPipeline};

const MINUTE: Duration = Duration::from_secs(60);

fn timer(name: &str, schedule: &str) -> Timer {
    Timer {
        name: name.parse().unwrap(),
        schedule: schedule.parse().unwrap(),
        timezone: Default::default(),
        status: Status::Enabled,
        misfire: Misfire::default(),
        catch_up: Default::default(),
        overlap: Overlap::default(),
    }
}

fn timers<const N: usize>(timers: [Timer; N]) -> Timers {
    Timers::try_from(Vec::from(timers)).unwrap()
}

/// A task that only these timers start.
async fn task<const N: usize>(gantry: &TestPipeline, name: &str, of: [Timer; N]) -> Task {
    let change = |task: &mut Task| {
        task.source_trigger = None;
        task.timers = timers(of);
    };
    gantry.task_with(name, "hello:{{.Run.ID}}", change).await
}

/// The undecided events of timers, without the time of creation: `reg/web nightly 2023-11-15T03:00Z`.
async fn undecided(gantry: &TestPipeline) -> Vec<String> {
    let now = gantry.clock.now();
    let found = due::undecided(gantry.store.as_ref(), now, 100_000).await.unwrap();
    let events = found.iter().filter_map(|due| {
        let [_, task, _, timer, due] = due.event.as_str().split(':').collect::<Vec<_>>()[..] else {
            return None;
        };
        let due = Timestamp::from_millis(due.parse().unwrap());
        Some(format!("{task} {timer} {}", due.to_minute()))
    });
    events.collect()
}

async fn fire(gantry: &TestPipeline) -> usize {
    gantry.scheduler().fire_timers().await.unwrap()
}

async fn due_of(gantry: &TestPipeline, task: &Task) -> Vec<String> {
    let scheduled = timers::of_task(gantry.store.as_ref(), task).await.unwrap();
    scheduled.iter().map(|it| format!("{} {}", it.timer.name, it.due.to_minute())).collect()
}

#[tokio::test]
async fn a_timer_that_is_due_builds_the_head_of_its_branch_once() {
    let gantry = super::start().await;
    let hello = gantry.git.repository("hello").unwrap();
    hello.commit("main", DOCKERFILE).unwrap();
    let task = task(&gantry, "hello", [timer("nightly", "0 3 * * *")]).await;
    gantry.settle().await;
    assert_eq!(gantry.transcript().await, "");
    assert_eq!(due_of(&gantry, &task).await, ["nightly 2023-11-15T03:00Z"]);

    let head = hello.commit("main", &[("file", "later")]).unwrap();
    gantry.clock.advance(5 * 60 * MINUTE);
    gantry.settle().await;
    gantry.settle().await;
    assert_eq!(
        gantry.transcript().await,
        "ca1 Succeeded timer nightly due 2023-11-15T03:00Z -> registry.test/hello:ca1"
    );
    let run = gantry.run("ca1").await;
    assert_eq!(run.read.unwrap().commit.as_str(), head);
    assert_eq!(run.cause.trigger(), "Timer");
    assert_eq!(due_of(&gantry, &task).await, ["nightly 2023-11-16T03:00Z"]);
    let decided = gantry.decision(run.cause.event()).await;
    assert_eq!(decided, "reg/hello: run ca1");
}

#[tokio::test]
async fn every_instant_has_one_event_however_many_schedulers_tick_at_whatever_time() {
    const TASKS: usize = 60;
    let gantry = super::start().await;
    let created = gantry.clock.now();
    for number in 0..TASKS {
        task(&gantry, &format!("t{number}"), [timer("often", "* * * * *")]).await;
    }
    // A pseudo-random sequence of steps, some longer than what is on time.
    let mut step: u64 = 7;
    let all = Timer { misfire: Misfire::All, ..timer("often", "* * * * *") };
    for number in 0..TASKS {
        let id = format!("reg/t{number}").parse().unwrap();
        let of = timers([all.clone()]);
        tasks::update(gantry.store.as_ref(), &id, |task| task.timers = of.clone()).await.unwrap();
    }
    for _ in 0..12 {
        step = step * 31 % 151;
        gantry.clock.advance(Duration::from_secs(step));
        let (first, second) = (gantry.scheduler(), gantry.scheduler());
        let (one, other) = tokio::join!(first.fire_timers(), second.fire_timers());
        let (_fired, _fired_too) = (one.unwrap(), other.unwrap());
    }
    // What both gave up, because each was in the other's way.
    while fire(&gantry).await > 0 {}
    let minute = |at: Timestamp| at.as_millis() / 60_000;
    let passed = usize::try_from(minute(gantry.clock.now()) - minute(created)).unwrap();
    let events = undecided(&gantry).await;
    let different: BTreeSet<&String> = events.iter().collect();
    assert_eq!((events.len(), different.len()), (TASKS * passed, TASKS * passed));
}

#[tokio::test]
async fn missed_instants_start_what_the_timer_says() {
    let gantry = super::start().await;
    let with = |name: &str, misfire| Timer { misfire, ..timer(name, "*/10 * * * *") };
    let of = [
        with("skip", Misfire::Skip),
        with("once", Misfire::Once),
        with("all", Misfire::All),
        Timer { schedule: "0 22-23 * * *".parse().unwrap(), ..with("hourly", Misfire::Once) },
    ];
    task(&gantry, "hello", of).await;
    // From 22:13:20 to 22:45:20: nothing was looked at.
    gantry.clock.advance(32 * MINUTE);
    fire(&gantry).await;
    let mut events = undecided(&gantry).await;
    events.sort();
    assert_eq!(
        events,
        [
            "reg/hello all 2023-11-14T22:20Z",
            "reg/hello all 2023-11-14T22:30Z",
            "reg/hello all 2023-11-14T22:40Z",
            "reg/hello once 2023-11-14T22:40Z",
        ]
    );
    // To 00:50:20: only the last hour is caught up with, and at 00:50 all are on time again.
    gantry.clock.advance(125 * MINUTE);
    fire(&gantry).await;
    let mut later = undecided(&gantry).await;
    later.retain(|event| !events.contains(event));
    later.sort();
    let all = [
        "2023-11-15T00:00Z",
        "2023-11-15T00:10Z",
        "2023-11-15T00:20Z",
        "2023-11-15T00:30Z",
        "2023-11-15T00:40Z",
        "2023-11-15T00:50Z",
    ];
    let mut expected: Vec<String> = all.map(|at| format!("reg/hello all {at}")).into();
    expected.push("reg/hello once 2023-11-15T00:50Z".to_owned());
    expected.push("reg/hello skip 2023-11-15T00:50Z".to_owned());
    assert_eq!(later, expected);
}

#[tokio::test]
async fn a_run_that_overlaps_an_earlier_one_of_its_timer_does_what_the_timer_says() {
    let gantry = super::start().await;
    let mut decided = Vec::new();
    for overlap in [Overlap::Allow, Overlap::Skip, Overlap::Queue, Overlap::Cancel] {
        let name = format!("web-{overlap}");
        let of = [Timer { overlap, ..timer("t", "* * * * *") }];
        let task = task(&gantry, &name, of).await;
        for _ in 0..2 {
            gantry.clock.advance(MINUTE);
            fire(&gantry).await;
            gantry.schedule().await;
        }
        tasks::delete(gantry.store.as_ref(), &task.id).await.unwrap();
        let filter =
            RunFilter { task: Some((task.prefix, task.id.name.clone())), ..RunFilter::default() };
        let mut found = runs::list(gantry.store.as_ref(), &filter, None, 9).await.unwrap();
        found.reverse();
        let states = found.iter().map(|run| match &run.state {
            RunState::Waiting { reason: WaitReason::EarlierRun, .. } => "behind".to_owned(),
            RunState::Ready { .. } => "ready".to_owned(),
            RunState::Waiting { .. }
            | RunState::Started { .. }
            | RunState::Running { .. }
            | RunState::Done(_) => run.status().to_string(),
        });
        decided.push(format!("{overlap}: {}", states.collect::<Vec<_>>().join(", ")));
    }
    assert_eq!(
        decided,
        ["allow: ready, ready", "skip: ready", "queue: ready, behind", "cancel: Canceled, ready"]
    );
}

#[tokio::test]
async fn a_queued_run_starts_when_the_earlier_one_has_ended() {
    let gantry = super::start().await;
    gantry.git.repository("hello").unwrap().commit("main", DOCKERFILE).unwrap();
    let of = [Timer { overlap: Overlap::Queue, ..timer("t", "* * * * *") }];
    let task = task(&gantry, "hello", of).await;
    for _ in 0..2 {
        gantry.clock.advance(MINUTE);
        fire(&gantry).await;
        gantry.schedule().await;
    }
    let store = gantry.store.as_ref();
    let disable = |task: &mut Task| task.status = Status::Disabled;
    tasks::update(store, &task.id, disable).await.unwrap();
    assert_eq!(gantry.run("ca2").await.status(), RunStatus::Queued);
    gantry.settle().await;
    let ended = |run: &gantry_domain::run::Run| run.state.done().unwrap().at;
    let (first, second) = (gantry.run("ca1").await, gantry.run("ca2").await);
    assert_eq!((first.status(), second.status()), (RunStatus::Succeeded, RunStatus::Succeeded));
    assert!(ended(&first) <= ended(&second));
}

#[tokio::test]
async fn what_is_disabled_removed_or_made_again_does_not_fire() {
    let gantry = super::start().await;
    let store = gantry.store.as_ref();
    let [one, two, three] = ["one", "two", "three"].map(|name| timer(name, "* * * * *"));
    let off = Timer { status: Status::Disabled, ..timer("off", "* * * * *") };
    let task = task(&gantry, "hello", [one.clone(), two.clone(), off]).await;
    assert_eq!(due_of(&gantry, &task).await, ["one 2023-11-14T22:14Z", "two 2023-11-14T22:14Z"]);
    let change = |of: Timers, status| {
        tasks::update(store, &task.id, move |task| {
            (task.timers, task.status) = (of.clone(), status);
        })
    };
    change(timers([one.clone(), three]), Status::Enabled).await.unwrap();
    gantry.clock.advance(MINUTE);
    fire(&gantry).await;
    let fired = ["reg/hello one 2023-11-14T22:14Z", "reg/hello three 2023-11-14T22:14Z"];
    assert_eq!(undecided(&gantry).await, fired);

    change(timers([one.clone()]), Status::Disabled).await.unwrap();
    gantry.clock.advance(MINUTE);
    assert_eq!(fire(&gantry).await, 0);
    let events: Vec<EventId> = due::undecided(store, gantry.clock.now(), 9)
        .await
        .unwrap()
        .into_iter()
        .map(|due| due.event)
        .filter(|event| event.as_str().starts_with("timer:"))
        .collect();
    gantry.schedule().await;
    let disabled = "reg/hello: the task is disabled: `gantry task update --status Enabled`";
    assert_eq!(gantry.decision(&events[0]).await, disabled);

    change(timers([one.clone()]), Status::Enabled).await.unwrap();
    gantry.clock.advance(MINUTE);
    assert_eq!(fire(&gantry).await, 1, "it counts from when it was enabled");
    tasks::delete(store, &task.id).await.unwrap();
    let again = self::task(&gantry, "hello", [one]).await;
    gantry.schedule().await;
    assert_eq!(gantry.transcript().await, "", "the event is one of the former task");
    assert_eq!(due_of(&gantry, &again).await, ["one 2023-11-14T22:17Z"]);
}

#[tokio::test]
async fn a_saved_task_keeps_the_next_instant_of_timers_that_stay_the_same() {
    let gantry = super::start().await;
    let (kept, moved) = (timer("kept", "15 * * * *"), timer("moved", "15 * * * *"));
    let task = task(&gantry, "hello", [kept.clone(), moved.clone()]).await;
    gantry.clock.advance(3 * MINUTE);
    let moved = Timer { schedule: "15,30 * * * *".parse().unwrap(), ..moved };
    let of = timers([kept, moved]);
    tasks::update(gantry.store.as_ref(), &task.id, |task| {
        task.timers = of.clone();
        task.run_limit = std::num::NonZeroU32::new(3);
    })
    .await
    .unwrap();
    fire(&gantry).await;
    assert_eq!(undecided(&gantry).await, ["reg/hello kept 2023-11-14T22:15Z"]);
    let task = tasks::find(gantry.store.as_ref(), &task.id).await.unwrap().unwrap();
    assert_eq!(due_of(&gantry, &task).await, ["kept 2023-11-14T23:15Z", "moved 2023-11-14T22:30Z"]);
}

#[tokio::test]
async fn a_timer_that_is_saved_at_its_instant_starts_one_run_for_it() {
    let gantry = super::start().await;
    let store = gantry.store.as_ref();
    let task = task(&gantry, "hello", [timer("t", "14 22 * * *")]).await;
    gantry.clock.advance(MINUTE);
    let now = gantry.clock.now();
    let (due, _) = timers::due(store, now, gantry_seams::store::From::Start, 9).await.unwrap();
    let firing = |found: gantry_seams::Versioned<timers::Scheduled>| timers::Firing {
        instants: found.value.timer.due(found.value.due, now),
        found,
        trace: None,
    };
    let stale = due.clone();
    let firings: Vec<_> = due.into_iter().map(firing).collect();
    assert!(timers::fire(store, &firings, now).await.unwrap());
    assert!(!timers::fire(store, &firings, now).await.unwrap(), "it was fired");
    // As if it had been saved a moment before the instant, and committed a moment after it was fired.
    let (moved, _) =
        timers::due(store, now.after(48 * 60 * MINUTE), gantry_seams::store::From::Start, 9)
            .await
            .unwrap();
    let again = moved.into_iter().zip(stale).map(|(mut found, stale)| {
        found.value.due = stale.value.due;
        firing(found)
    });
    let again: Vec<_> = again.collect();
    assert!(timers::fire(store, &again, now).await.unwrap());
    assert_eq!(undecided(&gantry).await, ["reg/hello t 2023-11-14T22:14Z"]);
    assert_eq!(due_of(&gantry, &task).await, ["t 2023-11-15T22:14Z"]);
}
