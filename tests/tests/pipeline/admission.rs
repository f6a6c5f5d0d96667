//! Admission keeps its limits, with any number of concurrent schedulers.

use std::num::NonZeroU32;

use futures_util::future::join_all;
use gantry_domain::run::{Outcome, Run};
use gantry_domain::source::Source;
use gantry_domain::step::Steps;
use gantry_domain::task::Task;
use gantry_seams::runs::{self, Finish, Limits, RunFilter};
use gantry_tests::pipeline::{DOCKERFILE, LEASE, TestPipeline};

/// The test registry has 8 places.
const REGISTRY_LIMIT: usize = 8;
const TASK_LIMIT: usize = 3;

async fn placed(gantry: &TestPipeline) -> Vec<Run> {
    let all = runs::list(gantry.store.as_ref(), &RunFilter::default(), None, 100).await.unwrap();
    all.into_iter().filter(|run| run.state.holds_a_place()).collect()
}

/// Takes and ends every ready run.
async fn run_all_ready(gantry: &TestPipeline) -> usize {
    let pool = "linux-amd64".parse().unwrap();
    let nonce = "1".repeat(32).parse().unwrap();
    let (store, worker) = (gantry.store.as_ref(), "w".parse().unwrap());
    let mut ended = 0;
    while let Some(taken) = runs::take(store, &pool, &worker, &nonce, LEASE).await.unwrap() {
        let outcome = Finish::Outcome(Outcome::Canceled { by: TestPipeline::canceler() });
        runs::finish(store, taken.run.id, &taken.holder, outcome, &Steps::default()).await.unwrap();
        ended += 1;
    }
    ended
}

async fn a_task(gantry: &TestPipeline, name: &str, limit: Option<usize>) -> Task {
    let source: Source = format!("{}#main", gantry.git.url("hello")).parse().unwrap();
    let limit = limit.and_then(|limit| NonZeroU32::new(u32::try_from(limit).unwrap()));
    gantry
        .task_with(name, "hello:{{.Run.ID}}", |task| {
            task.recipe.source = source;
            task.run_limit = limit;
        })
        .await
}

/// 15 runs of a task with its own limit, and 15 of a task without one.
async fn with_30_waiting_runs() -> (TestPipeline, Task) {
    let gantry = super::start().await;
    gantry.git.repository("hello").unwrap().commit("main", DOCKERFILE).unwrap();
    let narrow = a_task(&gantry, "narrow", Some(TASK_LIMIT)).await;
    let wide = a_task(&gantry, "wide", None).await;
    gantry.schedule().await;
    for _ in 0..15 {
        gantry.ask(&narrow, None).await;
        gantry.ask(&wide, None).await;
    }
    (gantry, narrow)
}

/// Passes all runs through `admit`, and checks each time that no limit is exceeded.
async fn run_all_through<T>(admit: impl AsyncFn(&TestPipeline, &Task) -> T) {
    let (gantry, narrow) = with_30_waiting_runs().await;
    let mut ended = 0;
    let mut most_at_once = 0;
    while ended < 30 {
        admit(&gantry, &narrow).await;
        let placed = placed(&gantry).await;
        let of_narrow = placed.iter().filter(|run| run.task_id().as_ref() == Some(&narrow.id));
        assert!(of_narrow.count() <= TASK_LIMIT);
        assert!(placed.len() <= REGISTRY_LIMIT, "{} are placed", placed.len());
        most_at_once = most_at_once.max(placed.len());
        let now = run_all_ready(&gantry).await;
        assert!(now > 0, "what waits is admitted once there is a place");
        ended += now;
    }
    assert_eq!(most_at_once, REGISTRY_LIMIT, "every place is used");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn several_schedulers_at_once_keep_the_limits_and_admit_all_in_the_end() {
    run_all_through(async |gantry, _| {
        let looks = (0..6).map(|_| {
            let scheduler = gantry.scheduler();
            tokio::spawn(async move { scheduler.tick().await.unwrap() })
        });
        assert!(join_all(looks).await.into_iter().all(|looked| looked.is_ok()));
    })
    .await;
}

/// Each run is admitted by a separate scheduler, so that they compete only for places.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_admissions_of_different_runs_keep_the_limits() {
    run_all_through(async |gantry, narrow| {
        let waiting = runs::waiting(gantry.store.as_ref(), None, 100).await.unwrap();
        let admissions = waiting.into_iter().map(|run| {
            let store = gantry.store.clone();
            let has_limit = run.task_id().as_ref() == Some(&narrow.id);
            let limits = Limits {
                registry: u32::try_from(REGISTRY_LIMIT).unwrap(),
                task: has_limit.then_some(u32::try_from(TASK_LIMIT).unwrap()),
            };
            tokio::spawn(async move {
                runs::ready(store.as_ref(), run.id, &"linux-amd64".parse().unwrap(), None, limits)
                    .await
                    .unwrap()
            })
        });
        assert!(join_all(admissions).await.into_iter().all(|admitted| admitted.is_ok()));
    })
    .await;
}
