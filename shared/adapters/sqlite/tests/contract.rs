//! SQLite fulfils the store's contract, and guarantees specific to SQLite.

#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use gantry_domain::timestamp::Timestamp;
use gantry_seams::clock::{Clock, ManualClock};
use gantry_seams::contract;
use gantry_seams::store::{
    Batch, CommitError, From, Index, Key, Kind, SharedStore, Store, StoreError,
};
use gantry_sqlite::{Options, SqliteStore};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_temporary_store_passes_the_contract() {
    let store = SqliteStore::in_memory(Options::default()).unwrap();
    contract::store::all(&store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_in_a_file_passes_the_contract() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory.path().join("gantry.db"));
    contract::store::all(&*store).await;
}

#[tokio::test]
async fn what_a_store_holds_is_shown() {
    let store = SqliteStore::in_memory(Options::default()).unwrap();
    contract::store::what_a_store_holds_is_shown(&store).await;
}

#[tokio::test]
async fn a_store_is_durable() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("below/gantry.db");
    contract::store::what_was_committed_is_there_after_opening_again(async || {
        open(&file) as SharedStore
    })
    .await;
}

#[tokio::test]
async fn the_clock_moves_when_the_test_moves_it() {
    let manual = ManualClock::new(Timestamp::from_millis(1_000));
    let clock = Clock::Manual(manual.clone());
    let store = SqliteStore::in_memory(Options { clock, ..Options::default() }).unwrap();
    assert_eq!(store.now().await.unwrap(), Timestamp::from_millis(1_000));
    manual.advance(Duration::from_secs(30));
    assert_eq!(store.now().await.unwrap(), Timestamp::from_millis(31_000));
}

#[tokio::test]
async fn a_full_store_says_so_and_still_reads_and_deletes() {
    let options = Options { max_bytes: Some(512 << 10), ..Options::default() };
    let store = SqliteStore::in_memory(options).unwrap();
    let large = Key::new(Kind::DeliveryBody, "large");
    let mut fits = Batch::default();
    fits.put(large.clone(), vec![7; 300 << 10]);
    store.commit(fits).await.unwrap();

    // Two commits that wait together: the one without room does not fail the other.
    let mut no_room = Batch::default();
    no_room.put(Key::new(Kind::DeliveryBody, "another"), vec![8; 300 << 10]);
    let (refused, done) = futures_util::join!(store.commit(no_room.clone()), store.commit(put(1)));
    assert!(matches!(refused, Err(CommitError::Store(StoreError::Full { .. }))), "{refused:?}");
    done.unwrap();

    assert!(store.load(std::slice::from_ref(&large)).await.unwrap()[0].is_some());
    let mut delete = Batch::default();
    delete.delete.push(large);
    store.commit(delete).await.unwrap();
    store.commit(no_room).await.unwrap();
}

#[tokio::test]
async fn a_stuck_store_is_unavailable_and_recovers() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("gantry.db");
    let patience = Duration::from_millis(50);
    let store = SqliteStore::open(&file, Options { patience, ..Options::default() }).unwrap();
    let other = rusqlite::Connection::open(&file).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();

    let stuck = store.commit(put(1)).await;
    assert!(matches!(stuck, Err(CommitError::Store(StoreError::Unavailable { .. }))), "{stuck:?}");
    assert_eq!(acknowledged(&store).await, [0; 0]);

    other.execute_batch("ROLLBACK").unwrap();
    while store.commit(put(2)).await.is_err() {}
    assert!(acknowledged(&store).await.contains(&2));
}

#[cfg(unix)]
#[tokio::test]
async fn only_the_owner_can_read_a_store() {
    use std::os::unix::fs::PermissionsExt;

    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("data");
    let store = open(&directory.join("gantry.db"));
    store.commit(put(1)).await.unwrap();
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&directory), 0o700);
    for file in ["gantry.db", "gantry.db-wal", "gantry.db-shm"] {
        assert_eq!(mode(&directory.join(file)), 0o600, "{file}");
    }
}

/// The variable with the path of the file in which a child process of this test commits.
const COMMIT_TO: &str = "GANTRY_TEST_COMMIT_TO";

#[tokio::test]
async fn what_a_killed_process_had_acknowledged_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("gantry.db");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "commits_until_killed", "--nocapture"])
        .env(COMMIT_TO, &file)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut told: Vec<u32> = lines.by_ref().filter_map(|line| number(&line)).take(300).collect();
    child.kill().unwrap();
    child.wait().unwrap();
    // Lines that the child wrote before it was killed, and that were not read yet.
    told.extend(lines.filter_map(|line| number(&line)));

    let stored = acknowledged(&*open(&file)).await;
    assert!(told.len() >= 300, "the child told of {}", told.len());
    for number in told {
        assert!(stored.contains(&number), "{number} was acknowledged and is lost");
    }
}

fn number(line: &str) -> Option<u32> {
    line.strip_prefix("acknowledged ")?.parse().ok()
}

/// The child process of the test above; without the variable it does nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_until_killed() {
    let Some(file) = std::env::var_os(COMMIT_TO) else {
        return;
    };
    let store = open(Path::new(&file));
    let committers = (0..8).map(async |committer| {
        for n in 0.. {
            let number = n * 8 + committer;
            store.commit(put(number)).await.unwrap();
            // In one write, otherwise two committers could mix their lines.
            println!("acknowledged {number}");
        }
    });
    futures_util::future::join_all(committers).await;
}

fn open(file: &Path) -> Arc<SqliteStore> {
    Arc::new(SqliteStore::open(file, Options::default()).unwrap())
}

fn put(number: u32) -> Batch {
    let mut batch = Batch::default();
    batch.put(Key::new(Kind::Fact, number), vec![1; 2_000]);
    batch.index(numbers(), i64::from(number), number);
    batch
}

fn numbers() -> Index {
    Index::new("numbers")
}

async fn acknowledged(store: &dyn Store) -> Vec<u32> {
    let entries = store.range(&numbers(), From::Start, usize::MAX).await.unwrap();
    entries.iter().map(|entry| entry.member.parse().unwrap()).collect()
}
