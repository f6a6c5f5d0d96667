//! The records of reports that are on their way to code hosts.

use std::time::Duration;

use gantry_domain::id::LeaseNonce;
use gantry_domain::run::Run;
use gantry_seams::outbox::{self, Claimed, Outgoing};
use gantry_seams::{requests, runs};
use gantry_tests::pipeline::TestPipeline;

const A_MINUTE: Duration = Duration::from_secs(60);

/// Passes the state of a new run at commit `digit` on to the outbox.
async fn enqueued(gantry: &TestPipeline, task: &str, digit: &str) -> Run {
    let id = format!("reg/{task}").parse().unwrap();
    let found = gantry_seams::tasks::find(gantry.store.as_ref(), &id).await.unwrap();
    let mut task = match found {
        Some(task) => task,
        None => gantry.task(task, "hello:{{.Run.ID}}").await,
    };
    let source = format!("{}#{}", gantry.git.url("hello"), digit.repeat(40));
    task.recipe.source = source.parse().unwrap();
    let requests::AcceptedRequest::Started(run) = gantry.ask(&task, None).await else {
        panic!("it is new")
    };
    report(gantry, &run).await;
    *run
}

async fn report(gantry: &TestPipeline, run: &Run) {
    let context = format!("gantry/{}", run.task.as_ref().unwrap().name).parse().unwrap();
    runs::report(gantry.store.as_ref(), run.id, &context, "http://gantry.test").await.unwrap();
}

async fn due(gantry: &TestPipeline) -> Vec<Outgoing> {
    let store = gantry.store.as_ref();
    outbox::due(store, store.now().await.unwrap(), None, 100).await.unwrap()
}

async fn claim(gantry: &TestPipeline, outgoing: &Outgoing, digit: &str) -> Option<Claimed> {
    let nonce: LeaseNonce = digit.repeat(32).parse().unwrap();
    outbox::claim(gantry.store.as_ref(), outgoing, &nonce, A_MINUTE).await.unwrap()
}

#[tokio::test]
async fn a_commit_has_one_claim_at_a_time_which_expires() {
    let gantry = super::start().await;
    enqueued(&gantry, "web", "a").await;
    enqueued(&gantry, "api", "a").await;
    enqueued(&gantry, "web", "b").await;
    let due = due(&gantry).await;
    let [web, api, other] = due.as_slice() else { panic!("{due:?}") };
    let lost = claim(&gantry, web, "1").await.unwrap();
    assert!(claim(&gantry, web, "2").await.is_none());
    assert!(claim(&gantry, api, "2").await.is_none(), "it is the same commit");
    assert!(claim(&gantry, other, "2").await.is_some(), "it is another commit");

    gantry.clock.advance(A_MINUTE);
    let second = claim(&gantry, api, "3").await.unwrap();
    outbox::sent(gantry.store.as_ref(), &lost, None).await.unwrap();
    assert!(claim(&gantry, web, "4").await.is_none(), "whoever lost a claim ends no other");
    outbox::sent(gantry.store.as_ref(), &second, None).await.unwrap();
    assert!(claim(&gantry, api, "5").await.is_none(), "it is sent");
    assert!(claim(&gantry, web, "6").await.is_some(), "it is sent again rather than never");
}

#[tokio::test]
async fn what_replaces_a_report_while_it_is_sent_stays_due() {
    let gantry = super::start().await;
    let run = enqueued(&gantry, "web", "a").await;
    let claimed = claim(&gantry, &due(&gantry).await[0], "1").await.unwrap();
    let store = gantry.store.as_ref();
    runs::cancel(store, run.id, &TestPipeline::canceler()).await.unwrap();
    report(&gantry, &run).await;
    outbox::sent(store, &claimed, None).await.unwrap();
    let due = due(&gantry).await;
    assert_eq!(due.len(), 1);
    assert_eq!(due[0].report.description, "Canceled");
}

#[tokio::test]
async fn what_replaces_a_report_that_fails_keeps_its_pause() {
    let gantry = super::start().await;
    let run = enqueued(&gantry, "web", "a").await;
    let store = gantry.store.as_ref();
    let claimed = claim(&gantry, &due(&gantry).await[0], "1").await.unwrap();
    outbox::failed(store, &claimed, A_MINUTE, "away".to_owned()).await.unwrap();
    runs::cancel(store, run.id, &TestPipeline::canceler()).await.unwrap();
    report(&gantry, &run).await;
    assert!(due(&gantry).await.is_empty());
    gantry.clock.advance(A_MINUTE);
    assert_eq!(due(&gantry).await[0].report.description, "Canceled");
}

#[tokio::test]
async fn an_older_run_replaces_nothing_also_after_the_newer_one_was_sent() {
    let gantry = super::start().await;
    let older = enqueued(&gantry, "web", "a").await;
    let newer = enqueued(&gantry, "web", "a").await;
    assert_eq!(due(&gantry).await.iter().map(|due| due.run).collect::<Vec<_>>(), [newer.id]);
    let claimed = claim(&gantry, &due(&gantry).await[0], "1").await.unwrap();
    let store = gantry.store.as_ref();
    outbox::sent(store, &claimed, None).await.unwrap();
    runs::cancel(store, older.id, &TestPipeline::canceler()).await.unwrap();
    report(&gantry, &older).await;
    assert!(due(&gantry).await.is_empty());
    assert!(runs::unreported(store, 10).await.unwrap().is_empty(), "the older run owes nothing");
}

#[tokio::test]
async fn a_report_that_was_sent_is_forgotten_with_the_runs_of_its_time() {
    let gantry = super::start().await;
    enqueued(&gantry, "web", "a").await;
    let claimed = claim(&gantry, &due(&gantry).await[0], "1").await.unwrap();
    let store = gantry.store.as_ref();
    outbox::sent(store, &claimed, None).await.unwrap();
    let sent = store.now().await.unwrap();
    assert_eq!(outbox::forget(store, sent, 10).await.unwrap(), 0);
    gantry.clock.advance(A_MINUTE);
    assert_eq!(outbox::forget(store, store.now().await.unwrap(), 10).await.unwrap(), 1);
    assert_eq!(outbox::forget(store, store.now().await.unwrap(), 10).await.unwrap(), 0);
}
