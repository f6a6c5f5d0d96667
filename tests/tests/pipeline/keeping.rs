//! Retention: what is kept, and for how long.

use std::time::Duration;

use gantry_domain::run::RunStatus;
use gantry_seams::deliveries::{self, MOST_READ};
use gantry_seams::logs::{LogId, LogPart, LogReader};
use gantry_seams::registries::{self, Deleted};
use gantry_seams::store::{Batch, Index};
use gantry_seams::{events, hooks, lineages, runs, tasks};
use gantry_tests::pipeline::{DOCKERFILE, TestPipeline};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// An installation with one delivery that started one run, `ca1`, which succeeded.
async fn with_a_finished_run() -> (TestPipeline, gantry_domain::id::EventId) {
    let gantry = super::start().await;
    let hello = gantry.git.repository("hello").unwrap();
    let first = hello.commit("main", DOCKERFILE).unwrap();
    gantry.task("hello", "hello:{{.Run.ID}}").await;
    gantry.schedule().await;
    let (event, _) = gantry.deliver("d1", "hello", None, Some(&first)).await;
    gantry.settle().await;
    (gantry, event)
}

async fn delivery(gantry: &TestPipeline) -> Option<gantry_domain::delivery::Delivery> {
    let (hook, id) = ("hook".parse().unwrap(), "d1".parse().unwrap());
    deliveries::find(gantry.store.as_ref(), &hook, &id).await.unwrap()
}

#[tokio::test]
async fn a_body_moves_to_the_object_store_after_a_day() {
    let (gantry, _) = with_a_finished_run().await;
    gantry.scheduler().keeper().forget_old().await.unwrap();
    let before = delivery(&gantry).await.unwrap();
    assert!(deliveries::find_body(gantry.store.as_ref(), &before).await.unwrap().is_some());

    gantry.clock.advance(DAY * 2);
    gantry.scheduler().keeper().forget_old().await.unwrap();
    let after = delivery(&gantry).await.unwrap();
    assert!(deliveries::find_body(gantry.store.as_ref(), &after).await.unwrap().is_none());
    let moved = gantry.blobs.get(&deliveries::body_blob_path(&after).unwrap()).await.unwrap();
    assert_eq!(&moved[..2], [0x1f, 0x8b], "it is compressed");
}

#[tokio::test]
async fn after_thirty_days_only_lineage_is_left() {
    let (gantry, event) = with_a_finished_run().await;
    let run = gantry.run("ca1").await;
    let digest = run.state.done().unwrap().outcome.product().unwrap().outputs[0].digest.clone();
    assert!(gantry.log("ca1", 1).await.contains("pushed registry.test/hello:ca1"));

    gantry.clock.advance(DAY * 31);
    gantry.scheduler().keeper().forget_old().await.unwrap();
    let store = gantry.store.as_ref();
    assert_eq!(runs::find(store, run.id).await.unwrap(), None);
    assert!(events::find(store, &event).await.unwrap().is_none());
    assert_eq!(delivery(&gantry).await, None);
    let mut reader = LogReader::at(LogId { run: run.id, attempt: 1 }, 0);
    assert_eq!(reader.next(store, gantry.blobs.as_ref()).await.unwrap(), LogPart::End);
    assert!(lineages::find(store, &digest).await.unwrap().is_some());

    gantry.clock.advance(DAY * 400);
    gantry.scheduler().keeper().forget_old().await.unwrap();
    assert!(lineages::find(store, &digest).await.unwrap().is_none());
}

#[tokio::test]
async fn a_delivery_that_is_not_decided_stays_however_old_it_is() {
    let gantry = super::start().await;
    let head = gantry.git.repository("hello").unwrap().commit("main", DOCKERFILE).unwrap();
    gantry.task("hello", "hello:{{.Run.ID}}").await;
    gantry.schedule().await;
    gantry.deliver("d1", "hello", None, Some(&head)).await;

    gantry.clock.advance(DAY * 31);
    gantry.scheduler().keeper().forget_old().await.unwrap();
    let kept = delivery(&gantry).await.unwrap();
    let body = deliveries::find_packed_body(gantry.blobs.as_ref(), &kept).await.unwrap();
    assert!(body.is_some(), "with its body");
    gantry.settle().await;
    assert_eq!(gantry.run("ca1").await.status(), RunStatus::Succeeded);
    gantry.scheduler().keeper().forget_old().await.unwrap();
    assert_eq!(delivery(&gantry).await, None);
}

#[tokio::test]
async fn the_ledger_of_a_deleted_registry_goes_with_its_last_delivery() {
    let (gantry, _) = with_a_finished_run().await;
    let store = gantry.store.as_ref();
    let name = "reg".parse().unwrap();
    let task = "reg/hello".parse().unwrap();
    tasks::delete(store, &task).await.unwrap();
    let hook = hooks::find(store, &"hook".parse().unwrap()).await.unwrap().unwrap();
    hooks::delete(store, &hook).await.unwrap();
    let deleted = registries::delete(store, &name, TestPipeline::prefix()).await.unwrap();
    assert_eq!(deleted, Deleted::Gone);
    let ledgers = async || {
        let ledgers = deliveries::ledgers(store).await.unwrap();
        ledgers.iter().map(|ledger| ledger.registry).collect::<Vec<_>>()
    };

    gantry.clock.advance(DAY * 29);
    gantry.scheduler().keeper().forget_old().await.unwrap();
    let listed = deliveries::list(store, &ledgers().await, None, None, 10).await.unwrap();
    assert_eq!(listed.items.len(), 1, "what the registry was told is still to be seen");

    gantry.clock.advance(DAY * 31);
    gantry.scheduler().keeper().forget_old().await.unwrap();
    assert_eq!(ledgers().await, []);
}

#[tokio::test]
async fn a_list_of_a_quiet_hook_goes_on_where_one_page_has_read_enough() {
    let (gantry, _) = with_a_finished_run().await;
    let store = gantry.store.as_ref();
    let index = Index::new(format!("deliveries/{}/with-body", TestPipeline::prefix()));
    // As the deliveries of a busy hook would be, all of them newer.
    for some in 0..MOST_READ / 500 {
        let mut batch = Batch::default();
        for number in 0..500 {
            let received = 9_000_000_000_000_i64;
            batch.index(index.clone(), -received, format!("{received}/busy/d{some}-{number}"));
        }
        store.commit(batch).await.unwrap();
    }
    let (registries, hook) = ([TestPipeline::prefix()], "hook".parse().unwrap());
    let first = deliveries::list(store, &registries, Some(&hook), None, 10).await.unwrap();
    assert_eq!(first.items, []);
    let second = deliveries::list(store, &registries, Some(&hook), first.next, 10).await.unwrap();
    assert_eq!(second.items.len(), 1);
    assert_eq!(second.next, None);
}

#[tokio::test]
async fn an_archived_run_and_its_log_are_kept_for_good() {
    let (gantry, _) = with_a_finished_run().await;
    runs::archive(gantry.store.as_ref(), "ca1".parse().unwrap(), true).await.unwrap();
    gantry.clock.advance(DAY * 1000);
    gantry.scheduler().keeper().forget_old().await.unwrap();
    assert!(gantry.run("ca1").await.archived);
    assert!(gantry.log("ca1", 1).await.contains("pushed registry.test/hello:ca1"));
}
