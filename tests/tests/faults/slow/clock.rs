//! After a step of the machine's clock no lease ends, no run is lost or built twice, later events have later times, and no
//! timer fires twice.

use gantry_api::{DeliveryDetails, Page, Run, Task, TaskCreate, Timer};
use gantry_tests::stepped_clock::SteppedClock;
use reqwest::StatusCode;

use crate::ledger::Delivery;
use crate::round::quiet;
use crate::scaled::now;
use crate::up::{self, Up};

const HOUR: i64 = 3600;

/// The shortest leases that work with builds of a few seconds.
fn short_leases() -> Vec<String> {
    vec!["lease.duration=3s".to_owned(), "lease.renew=1s".to_owned()]
}

const SLOW: &str = "FROM BASE\nCOPY file /file\nRUN sleep 5; echo it is built\n";

/// The times at which pushes were received, as shown to people, in the order in which they were sent.
async fn received(up: &Up, sent: &[Delivery]) -> Vec<String> {
    let mut times = Vec::new();
    for push in sent {
        let path = format!("hooks/{}/deliveries/{}", up.hook().id, push.id);
        let details: DeliveryDetails = up.client.get(&path).await.unwrap();
        times.push(details.delivery.received);
    }
    times
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stepped_clock_of_the_machine_ends_no_lease_and_nothing_comes_before_what_was() {
    let clock = SteppedClock::new().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let telemetry = up::free_address();
    let mut program = up::program(&folder.path().join("data"), telemetry, &short_leases());
    program.environment.extend(clock.environment());
    let mut up = Up::start(&program, telemetry, SLOW).await.unwrap();
    let (client, hook) = (up.client.clone(), up.hook());
    let mut built = up.push().unwrap();
    built.send(&client, &hook).await.unwrap();
    up.until_run_is(&built, "Running").await.unwrap();

    let mut sent = vec![built];
    for step in [HOUR, -HOUR, -600] {
        clock.step(step).unwrap();
        up.until_swept(4).await.unwrap();
        let mut push = up.idle_push();
        assert_eq!(push.ask(&client, &hook).await.unwrap(), Some(StatusCode::ACCEPTED));
        sent.push(push);
    }
    let run = up.until_run_is(&sent[0], "Succeeded").await.unwrap();
    assert_eq!(run.attempts.len(), 1, "{run:?}");
    assert_eq!(up.metric("gantry_lease_lapses_total").await.unwrap(), 0.0);

    // A process whose clock is behind the stored times continues from these.
    let mut killed = up.push().unwrap();
    killed.send(&client, &hook).await.unwrap();
    up.until_run_is(&killed, "Running").await.unwrap();
    up.installation.kill().await.unwrap();
    clock.step(-HOUR).unwrap();
    up.installation.start(&program).await.unwrap();
    let mut last = up.push_of("FROM BASE\nCOPY file /file\nRUN echo it is built\n").unwrap();
    last.send(&client, &hook).await.unwrap();
    let runs = [
        up.until_run_is(&sent[0], "Succeeded").await.unwrap(),
        up.until_run_is(&killed, "Succeeded").await.unwrap(),
        up.until_run_is(&last, "Succeeded").await.unwrap(),
    ];
    sent.extend([killed, last]);
    let ids: Vec<&str> = runs.iter().map(|run: &Run| run.id.as_str()).collect();
    assert_eq!(ids, ["ca1", "ca2", "ca3"]);
    assert_eq!(runs[1].attempts.len(), 2);
    assert!(runs.is_sorted_by_key(|run| run.created.clone()), "{runs:?}");
    let times = received(&up, &sent).await;
    assert!(times.is_sorted(), "{times:?}");
}

const MINUTE: i64 = 60_000;

/// The instants of timers that have runs, in order, as `timer, minutes after the first`.
async fn timed(up: &Up, first: i64) -> Vec<(String, i64)> {
    let runs: Page<Run> = up.client.get("runs?registry=reg&task=timed").await.unwrap();
    let instants = runs.items.iter().map(|run| {
        // `timer:TASK:CREATED:NAME:DUE`
        let words: Vec<&str> = run.event.split(':').collect();
        (words[3].to_owned(), (words[4].parse::<i64>().unwrap() - first) / MINUTE)
    });
    let mut instants: Vec<_> = instants.collect();
    instants.sort();
    instants
}

#[tokio::test(flavor = "multi_thread")]
async fn timers_catch_up_with_a_clock_that_is_put_forward_and_fire_nothing_twice() {
    let clock = SteppedClock::new().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let telemetry = up::free_address();
    let mut program = up::program(&folder.path().join("data"), telemetry, &[]);
    program.environment.extend(clock.environment());
    let mut up = Up::start(&program, telemetry, SLOW).await.unwrap();

    // Every five minutes, the first time in one to two minutes.
    let first = (now().as_millis() / MINUTE + 2) * MINUTE;
    let schedule = format!("{}/5 * * * *", first / MINUTE % 5);
    let timer = |name: &str| Timer { misfire: name.to_owned(), ..Timer::new(name, &schedule) };
    let task = TaskCreate {
        name: "timed".to_owned(),
        context: format!("{}#main", up.clone_url()),
        push: false,
        // Nobody builds for it.
        platform: Some("linux/arm64".to_owned()),
        timers: ["all", "once", "skip"].map(timer).into(),
        ..TaskCreate::default()
    };
    let _: Task = up.client.post("registries/reg/tasks", &task).await.unwrap();
    up.installation.kill().await.unwrap();

    // Three minutes after the fourth instant.
    let ahead = (first + 18 * MINUTE - now().as_millis()) / 1000;
    clock.step(ahead).unwrap();
    up.installation.start(&program).await.unwrap();
    let caught_up = [("all", 0), ("all", 5), ("all", 10), ("all", 15), ("once", 15)];
    let caught_up = caught_up.map(|(timer, minutes)| (timer.to_owned(), minutes));
    quiet("catch up", up::WITHIN, async || {
        let found = timed(&up, first).await;
        Ok(if found.len() < caught_up.len() { vec![format!("{found:?}")] } else { Vec::new() })
    })
    .await
    .unwrap();
    assert_eq!(timed(&up, first).await, caught_up);
    let misfires = async |outcome| {
        let name = format!("gantry_timer_misfires_total{{outcome=\"{outcome}\"}}");
        up.metric(&name).await.unwrap()
    };
    assert_eq!((misfires("fired").await, misfires("dropped").await), (5.0, 7.0));

    // The clock of a running process follows slowly, and that of the next one is not behind what is stored.
    for step in [ahead + HOUR, ahead - HOUR] {
        clock.step(step).unwrap();
        up.until_swept(4).await.unwrap();
    }
    up.installation.kill().await.unwrap();
    clock.step(0).unwrap();
    up.installation.start(&program).await.unwrap();
    up.until_swept(4).await.unwrap();
    let mut found = timed(&up, first).await;
    // On a slow machine the next instant may have come.
    found.retain(|(_, minutes)| *minutes <= 15);
    assert_eq!(found, caught_up);
}
