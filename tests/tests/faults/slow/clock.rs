//! After a step of the machine's clock no lease ends, no run is lost or built twice, and later events have later times.

use gantry_api::{DeliveryDetails, Run};
use gantry_tests::stepped_clock::SteppedClock;
use reqwest::StatusCode;

use crate::ledger::Delivery;
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
