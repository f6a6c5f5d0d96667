//! A store that becomes unavailable during a request: the request may have been applied, and the caller cannot know.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use gantry_domain::run::RunStatus;
use gantry_seams::store::{Batch, CommitError, Kind, StoreError};
use gantry_tests::doubles::store::{CommitHook, HookedStore};
use gantry_tests::pipeline::DOCKERFILE;

/// The commits of an attempt, in order: the first step begins, tags are moved, the image was pushed, the attempt ended.
const COMMITS: [fn(&Batch) -> bool; 4] = [
    |batch| brings_run_to(batch, "running"),
    |batch| puts(batch, Kind::Tag),
    |batch| puts(batch, Kind::Lineage),
    |batch| brings_run_to(batch, "done"),
];

fn brings_run_to(batch: &Batch, state: &str) -> bool {
    let runs = batch.put.iter().filter(|(key, _)| key.kind == Kind::Run);
    let said = format!("\"state\":\"{state}\"");
    runs.into_iter().any(|(_, bytes)| String::from_utf8_lossy(bytes).contains(&said))
}

fn puts(batch: &Batch, kind: Kind) -> bool {
    batch.put.iter().any(|(key, _)| key.kind == kind)
}

#[tokio::test]
async fn an_attempt_survives_lost_answers_of_the_store() {
    attempt_outlasts(Loss::OfAnswer).await;
}

#[tokio::test]
async fn an_attempt_survives_lost_requests_to_the_store() {
    attempt_outlasts(Loss::OfQuestion).await;
}

async fn attempt_outlasts(loss: Loss) {
    let mut gantry = super::start().await;
    let hello = gantry.git.repository("hello").unwrap();
    let first = hello.commit("main", DOCKERFILE).unwrap();
    gantry.task("hello", "hello:{{.Run.ID}}").await;
    gantry.deliver("d1", "hello", None, Some(&first)).await;
    gantry.schedule().await;

    let lossy = Arc::new(Lossy { loss, lost: Mutex::default() });
    gantry.store = HookedStore::shared(Arc::clone(&gantry.store), Arc::clone(&lossy));
    assert!(gantry.worker("worker-1").turn(&gantry.stop).await.unwrap());

    assert_eq!(lossy.lost.lock().unwrap().len(), COMMITS.len());
    let run = gantry.run("ca1").await;
    assert_eq!((run.status(), run.attempts.len()), (RunStatus::Succeeded, 1));
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loss {
    OfQuestion,
    OfAnswer,
}

/// Loses the first commit of each kind, or its answer.
struct Lossy {
    loss: Loss,
    lost: Mutex<BTreeSet<usize>>,
}

impl Lossy {
    fn lose(&self, batch: &Batch) -> Result<(), CommitError> {
        let is_first = |(number, is_it): (usize, fn(&Batch) -> bool)| {
            is_it(batch) && self.lost.lock().unwrap().insert(number)
        };
        if COMMITS.into_iter().enumerate().any(is_first) {
            return Err(StoreError::Unavailable { message: "the line is dead".to_owned() }.into());
        }
        Ok(())
    }
}

#[async_trait]
impl CommitHook for Lossy {
    async fn before(&self, batch: &Batch) -> Result<(), CommitError> {
        if self.loss == Loss::OfQuestion { self.lose(batch) } else { Ok(()) }
    }

    async fn after(
        &self,
        batch: &Batch,
        answer: Result<(), CommitError>,
    ) -> Result<(), CommitError> {
        answer?;
        if self.loss == Loss::OfAnswer { self.lose(batch) } else { Ok(()) }
    }
}
