//! A store that goes away while it is asked: what was asked may have been done, and whoever asked does not know.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use gantry_domain::run::RunStatus;
use gantry_domain::timestamp::Timestamp;
use gantry_seams::store::{
    Batch, CommitError, Entry, From, Index, Key, Kind, Record, Room, SharedStore, Store,
    StoreError, Watch,
};

const DOCKERFILE: &[(&str, &str)] = &[("Dockerfile", "FROM registry.test/busybox:1\nRUN true\n")];

/// The states that an attempt brings its run to.
const STATES: [&str; 3] = ["running", "tagging", "done"];

#[tokio::test]
async fn an_attempt_outlasts_answers_that_are_lost() {
    attempt_outlasts(Loss::OfAnswer).await;
}

#[tokio::test]
async fn an_attempt_outlasts_questions_that_are_lost() {
    attempt_outlasts(Loss::OfQuestion).await;
}

async fn attempt_outlasts(loss: Loss) {
    let mut gantry = super::start().await;
    let hello = gantry.git.repository("hello").unwrap();
    let first = hello.commit("main", DOCKERFILE).unwrap();
    gantry.task("hello", "hello:{{.Run.ID}}").await;
    gantry.deliver("d1", "hello", None, Some(&first)).await;
    gantry.schedule().await;

    let store = Arc::new(Lossy { store: Arc::clone(&gantry.store), loss, lost: Mutex::default() });
    gantry.store = Arc::clone(&store) as SharedStore;
    assert!(gantry.worker("worker-1").turn(&gantry.stop).await.unwrap());

    assert_eq!(store.lost.lock().unwrap().len(), STATES.len());
    let run = gantry.run("ca1").await;
    assert_eq!((run.status(), run.attempts.len()), (RunStatus::Succeeded, 1));
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loss {
    OfQuestion,
    OfAnswer,
}

/// A store that loses the first commit that brings a run to a state, or its answer.
struct Lossy {
    store: SharedStore,
    loss: Loss,
    lost: Mutex<BTreeSet<&'static str>>,
}

impl Lossy {
    fn is_lost(&self, batch: &Batch) -> bool {
        let runs = batch.put.iter().filter(|(key, _)| key.kind == Kind::Run);
        let texts: Vec<String> =
            runs.map(|(_, bytes)| String::from_utf8(bytes.to_vec()).unwrap()).collect();
        STATES.into_iter().any(|state| {
            let said = format!("\"state\":\"{state}\"");
            texts.iter().any(|text| text.contains(&said)) && self.lost.lock().unwrap().insert(state)
        })
    }
}

#[async_trait]
impl Store for Lossy {
    async fn load(&self, keys: &[Key]) -> Result<Vec<Option<Record>>, StoreError> {
        self.store.load(keys).await
    }

    async fn range(
        &self,
        index: &Index,
        from: From,
        most: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        self.store.range(index, from, most).await
    }

    async fn commit(&self, batch: Batch) -> Result<(), CommitError> {
        let is_lost = self.is_lost(&batch);
        if !is_lost || self.loss == Loss::OfAnswer {
            self.store.commit(batch).await?;
        }
        if is_lost {
            return Err(StoreError::Unavailable { message: "the line is dead".to_owned() }.into());
        }
        Ok(())
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        self.store.now().await
    }

    async fn room(&self) -> Result<Room, StoreError> {
        self.store.room().await
    }

    fn watch(&self, key: &Key) -> Watch {
        self.store.watch(key)
    }
}
