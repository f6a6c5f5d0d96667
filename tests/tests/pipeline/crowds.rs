//! Many runs and many workers at once: each run is taken once.

use std::sync::Arc;

use futures_util::future::join_all;
use gantry_domain::decide::order::Class;
use gantry_domain::id::{RunId, WorkerId};
use gantry_domain::platform::Platform;
use gantry_seams::runs::{self, Limits};
use gantry_seams::store::{Batch, Store};
use gantry_tests::doubles::store::{Conflicts, HookedStore};
use gantry_tests::pipeline::{LEASE, TestPipeline};

use super::fairness::{AT_ONCE, draft};

/// Creates ready runs, a few in each registry.
async fn ready(gantry: &TestPipeline, count: usize) -> Vec<RunId> {
    let (store, signer) = (&gantry.store, gantry.keyring.as_ref());
    let mut ids = Vec::with_capacity(count);
    while ids.len() < count {
        let some = AT_ONCE.min(count - ids.len());
        let draft = draft(&format!("reg{}", ids.len() / AT_ONCE), Class::Push, None);
        let (prefix, now) = ("ca".parse().unwrap(), store.now().await.unwrap());
        let creation = runs::Creation::begin(store.as_ref(), Batch::default(), prefix, signer, now);
        let mut creation = creation.await.unwrap();
        for _ in 0..some {
            ids.push(creation.add(draft.clone(), None).unwrap().id);
        }
        store.commit(creation.finish()).await.unwrap();
    }
    let limits = Limits { registry: u32::MAX, task: None };
    // Sequentially, because concurrent admissions would compete for the places of their registry.
    for run in &ids {
        runs::ready(store.as_ref(), *run, &"linux-amd64".parse().unwrap(), None, limits)
            .await
            .unwrap();
    }
    ids
}

async fn take(store: &dyn Store, worker: &WorkerId) -> Option<RunId> {
    let (pool, nonce) = (Platform::default().pool(), "1".repeat(32).parse().unwrap());
    let taken = runs::take(store, &pool, worker, &nonce, LEASE).await.unwrap();
    taken.map(|taken| taken.run.id)
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_workers_at_once_take_each_run_once() {
    let gantry = super::start().await;
    let expected = ready(&gantry, 300).await;
    let conflicts = Arc::new(Conflicts::default());
    let counted = HookedStore::shared(Arc::clone(&gantry.store), Arc::clone(&conflicts));
    let workers = (0..50).map(|number| {
        let store = Arc::clone(&counted);
        tokio::spawn(async move {
            let worker = format!("worker-{number}").parse().unwrap();
            let mut taken = Vec::new();
            // `None` means that other workers were faster with each run that it tried.
            while taken.len() < 300 {
                match take(store.as_ref(), &worker).await {
                    Some(run) => taken.push(run),
                    None if runs::all_ready(store.as_ref(), 1).await.unwrap().is_empty() => break,
                    None => {}
                }
            }
            taken
        })
    });
    let taken = join_all(workers).await.into_iter().flat_map(Result::unwrap);
    let mut taken: Vec<RunId> = taken.collect();
    taken.sort_unstable();
    assert_eq!(taken, expected);
    println!("{} conflicts for {} runs", conflicts.count(), taken.len());
}
