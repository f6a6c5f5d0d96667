//! A run that crashes its worker each time it is built ends after three attempts, and no other run is lost with it
//! twice.

use gantry_api::{Attempt, Run};

use crate::up::{self, Up};

const SLOW: &str = "FROM BASE\nCOPY file /file\nRUN sleep 2; echo it is built\n";

/// The build of a run during which the process is killed.
const POISON: &str = "FROM BASE\nCOPY file /file\nRUN sleep 600\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_kills_its_worker_each_time_ends_after_three_and_takes_no_other_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let telemetry = up::free_address();
    let program =
        up::program(&folder.path().join("data"), telemetry, &["worker.slots=3".to_owned()]);
    let mut up = Up::start(&program, telemetry, SLOW).await.unwrap();
    let (client, hook) = (up.client.clone(), up.hook());
    let mut others = [up.push().unwrap(), up.push().unwrap()];
    let mut poison = up.push_of(POISON).unwrap();
    for push in &mut others {
        push.send(&client, &hook).await.unwrap();
    }
    poison.send(&client, &hook).await.unwrap();

    for attempt in 1..=3 {
        let running = up.until_run_is(&poison, "Running").await.unwrap();
        assert_eq!(running.attempts.len(), attempt, "{running:?}");
        up.installation.kill().await.unwrap();
        up.installation.start(&program).await.unwrap();
    }
    let ended = up.until_run_is(&poison, "Error").await.unwrap();
    let error = ended.error.as_ref().unwrap();
    assert!(error.message.contains("worker lost"), "{error:?}");
    assert_eq!(ended.attempts.len(), 3);
    for push in &others {
        let run = up.until_run_is(push, "Succeeded").await.unwrap();
        assert!(run.attempts.len() <= 2, "{run:?}");
        assert!(alone_from_the_second(&ended, &run), "{ended:?}\n{run:?}");
    }
}

/// Whether no attempt of one run after its first overlapped an attempt of the other.
fn alone_from_the_second(poison: &Run, other: &Run) -> bool {
    let overlaps = |a: &Attempt, b: &Attempt| {
        a.started < b.finished.clone().unwrap() && b.started < a.finished.clone().unwrap()
    };
    let mut later = poison.attempts.iter().filter(|attempt| attempt.attempt > 1);
    !later.any(|mine| other.attempts.iter().any(|theirs| overlaps(mine, theirs)))
}
