//! The store's contract, on the server that all tests share.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use gantry_domain::timestamp::Timestamp;
use gantry_redis::{RedisOptions, RedisStore};
use gantry_seams::clock::{Clock, ManualClock};
use gantry_seams::contract;
use gantry_seams::store::{Batch, Key, Kind, SharedStore, Store};

use crate::server::Server;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_store_passes_the_contract() {
    contract::store::all(&connect(shared()).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_are_visible_to_other_processes() {
    let options = shared();
    let (one, another) = (connect(options.clone()).await, connect(options).await);
    contract::store::what_one_commits_another_sees(&one, &another).await;
}

/// Next to other stores on the same server, one of which has a prefix that begins with this one's.
#[tokio::test]
async fn what_a_store_holds_is_shown() {
    let options = shared();
    let mut neighbour = options.clone();
    neighbour.prefix.push('*');
    let mut batch = Batch::default();
    batch.put(Key::new(Kind::Run, "theirs"), "x");
    connect(neighbour).await.commit(batch).await.unwrap();
    contract::store::what_a_store_holds_is_shown(&connect(options).await).await;
}

#[tokio::test]
async fn data_survives_a_new_connection() {
    let options = shared();
    contract::store::what_was_committed_is_there_after_opening_again(async || {
        std::sync::Arc::new(connect(options.clone()).await) as SharedStore
    })
    .await;
}

#[tokio::test]
async fn the_clock_moves_when_the_test_moves_it() {
    let manual = ManualClock::new(Timestamp::from_millis(1_000));
    let store = connect(RedisOptions { clock: Clock::Manual(manual.clone()), ..shared() }).await;
    assert_eq!(store.now().await.unwrap(), Timestamp::from_millis(1_000));
    manual.advance(Duration::from_secs(30));
    assert_eq!(store.now().await.unwrap(), Timestamp::from_millis(31_000));
}

#[tokio::test]
async fn the_capacity_is_the_lower_of_maxmemory_and_budget() {
    let server = Server::durable().await;
    let room = server.store().await.room().await.unwrap();
    assert!(room.used > 0);
    assert_eq!(room.most, None);

    let options = RedisOptions { budget: Some(64 << 20), ..server.options() };
    let store = connect(options).await;
    assert_eq!(store.room().await.unwrap().most, Some(64 << 20));
    server.call::<()>(&["CONFIG", "SET", "maxmemory", "32mb"]).await;
    assert_eq!(store.room().await.unwrap().most, Some(32 << 20));
}

/// The shared server, with a prefix for this test only.
fn shared() -> RedisOptions {
    static TESTS: AtomicU32 = AtomicU32::new(0);
    let url =
        std::env::var("GANTRY_TEST_REDIS").expect("GANTRY_TEST_REDIS, like redis://127.0.0.1:6379");
    let test = TESTS.fetch_add(1, Ordering::Relaxed);
    let prefix = format!("redis-{}-{test}", std::process::id());
    RedisOptions { prefix, ..RedisOptions::parse(&url).unwrap() }
}

async fn connect(options: RedisOptions) -> RedisStore {
    RedisStore::connect(options).await.unwrap()
}
