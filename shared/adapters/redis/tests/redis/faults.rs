//! A server that is killed, is full, or forgets its scripts.

use std::time::Duration;

use futures_util::future::join_all;
use gantry_redis::{RedisOptions, RedisStore};
use gantry_seams::store::{Batch, CommitError, Expect, From, Index, Store, StoreError};

use crate::batches::{key, load, put};
use crate::server::{Server, eventually};

#[tokio::test]
async fn acknowledged_commits_survive_kill_9() {
    let mut server = Server::durable().await;
    let store = server.store().await;
    let mut acknowledged = Vec::new();
    for id in 0..50 {
        store.commit(put(&id.to_string(), "there")).await.unwrap();
        acknowledged.push(key(&id.to_string()));
    }
    server.kill();
    server.start_again().await;
    let found = eventually("reads succeed", async || store.load(&acknowledged).await.ok()).await;
    assert!(found.iter().all(Option::is_some));
}

#[tokio::test]
async fn requests_fail_at_once_only_during_a_restart() {
    let mut server = Server::durable().await;
    let store = server.store().await;
    store.commit(put("before", "1")).await.unwrap();

    server.kill();
    for _ in 0..20 {
        let refused = store.commit(put("during", "1")).await;
        assert!(matches!(refused, Err(CommitError::Store(StoreError::Unavailable { .. }))));
        let refused = load(&store, "before").await;
        assert!(matches!(refused, Err(StoreError::Unavailable { .. })));
    }

    server.start_again().await;
    eventually("reads succeed", async || load(&store, "before").await.ok()).await;
    // After the first success, no request uses a connection to the former process.
    for _ in 0..20 {
        assert!(load(&store, "before").await.unwrap().is_some());
        store.commit(put("after", "1")).await.unwrap();
    }
}

#[tokio::test]
async fn losing_an_idle_connection_fails_no_request() {
    let server = Server::durable().await;
    let store = server.store().await;
    store.commit(put("a", "1")).await.unwrap();
    let former = clients(&server).await;
    server.call::<()>(&["CLIENT", "KILL", "TYPE", "normal"]).await;
    server.call::<()>(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
    eventually("the connections are made anew", async || {
        let now = clients(&server).await;
        (now.len() == former.len() && now.iter().all(|id| !former.contains(id))).then_some(())
    })
    .await;
    for _ in 0..20 {
        store.commit(put("a", "2")).await.unwrap();
    }
}

/// The ids of the stores' connections: they use RESP3, and the connection of this query RESP2.
async fn clients(server: &Server) -> Vec<String> {
    let list: String = server.call(&["CLIENT", "LIST"]).await;
    list.lines()
        .filter(|line| line.contains("resp=3"))
        .filter_map(|line| line.split(' ').next().map(str::to_owned))
        .collect()
}

#[tokio::test]
async fn watches_fire_again_after_a_restart() {
    let mut server = Server::durable().await;
    let (one, another) = (server.store().await, server.store().await);
    let mut watch = one.watch(&key("watched"));
    another.commit(put("watched", "1")).await.unwrap();
    watch.changed().await;

    server.kill();
    server.start_again().await;
    // A change without a listener is reported once the watch is back.
    eventually("commits succeed", async || another.commit(put("watched", "2")).await.ok()).await;
    eventually("it is read", async || {
        watch_once(&one).await;
        load(&one, "watched").await.ok().flatten().filter(|record| record.bytes == "2")
    })
    .await;
    let told = tokio::time::timeout(crate::server::SOON, watch.changed()).await;
    told.expect("the watch is told of what came meanwhile");
    another.commit(put("watched", "3")).await.unwrap();
    let told = tokio::time::timeout(crate::server::SOON, watch.changed()).await;
    told.expect("the watch is told again");
}

/// Any request, because the connections are open once it succeeds.
async fn watch_once(store: &RedisStore) {
    let _asked = store.now().await;
}

#[tokio::test]
async fn a_hanging_server_is_unavailable_within_the_time_limit() {
    let server = Server::durable().await;
    let patience = Duration::from_millis(300);
    let store = RedisStore::connect(RedisOptions { patience, ..server.options() }).await.unwrap();
    let (paused, refused) =
        futures_util::join!(server.call::<()>(&["CLIENT", "PAUSE", "2000", "ALL"]), async {
            eventually("the server hangs", async || load(&store, "any").await.err()).await
        });
    let () = paused;
    assert!(matches!(refused, StoreError::Unavailable { .. }));
    eventually("it answers again", async || load(&store, "any").await.ok()).await;
}

#[tokio::test]
async fn a_full_store_says_so_and_still_reads_and_deletes() {
    let server = Server::with(&["--maxmemory", "16mb"]).await;
    let store = server.store().await;
    let mut stored = 0;
    let index = Index::new("full");
    let full = loop {
        let mut batch = put(&stored.to_string(), vec![7; 1 << 20]);
        batch.index(index.clone(), stored, stored);
        match store.commit(batch).await {
            Ok(()) => stored += 1,
            Err(CommitError::Store(error)) => break error,
            Err(CommitError::Conflict { key }) => panic!("{key}"),
        }
    };
    assert!(matches!(full, StoreError::Full { .. }), "{full}");
    assert!(stored > 2, "{stored} were stored");

    // Nothing of the refused batch was stored.
    assert_eq!(load(&store, &stored.to_string()).await.unwrap(), None);
    let entries = store.range(&index, From::Start, 100).await.unwrap();
    assert_eq!(i64::try_from(entries.len()).unwrap(), stored);

    let mut remove = Batch::default();
    for id in 0..stored {
        remove.expect.push((key("absent"), Expect::Absent));
        remove.delete.push(key(&id.to_string()));
        remove.unindex(index.clone(), id);
    }
    store.commit(remove).await.unwrap();
    assert_eq!(store.range(&index, From::Start, 100).await.unwrap(), []);
    store.commit(put("again", vec![7; 1 << 20])).await.unwrap();
}

#[tokio::test]
async fn flushed_scripts_are_loaded_again() {
    let server = Server::durable().await;
    let store = server.store().await;
    for id in ["a", "b", "c"] {
        server.call::<()>(&["SCRIPT", "FLUSH"]).await;
        store.commit(put(id, "1")).await.unwrap();
        assert!(load(&store, id).await.unwrap().is_some());
    }
}

#[tokio::test]
async fn the_largest_batch_is_committed() {
    let server = Server::durable().await;
    let store = server.store().await;
    let index = Index::new("largest");
    let ids: Vec<_> = (0..2_048).map(|id| format!("{id:04}")).collect();
    let mut batch = Batch::default();
    for (score, id) in (0..).zip(&ids) {
        batch.create(key(id), vec![7; if score % 500 == 0 { 100 << 10 } else { 10 }]);
        batch.index(index.clone(), score, id);
    }
    store.commit(batch).await.unwrap();
    let keys: Vec<_> = ids.iter().map(|id| key(id)).collect();
    let found = store.load(&keys).await.unwrap();
    assert!(found.iter().flatten().all(|record| record.version == 1 && record.bytes[0] == 7));
    assert_eq!(found.iter().flatten().map(|record| record.bytes.len()).max(), Some(100 << 10));
    let entries = store.range(&index, From::Start, 5_000).await.unwrap();
    assert!(entries.iter().map(|entry| &entry.member).eq(&ids));

    let mut batch = Batch::default();
    for id in &ids {
        batch.delete.push(key(id));
        batch.unindex(index.clone(), id);
    }
    store.commit(batch).await.unwrap();
    assert!(store.load(&keys).await.unwrap().iter().all(Option::is_none));
    assert_eq!(server.call::<Vec<String>>(&["KEYS", "*"]).await, ["gantry:version"]);
}

#[tokio::test]
async fn a_batch_that_would_block_the_server_is_refused() {
    let server = Server::durable().await;
    let store = server.store().await;
    let mut batch = Batch::default();
    for id in 0..5_000 {
        batch.put(key(&id.to_string()), "1");
    }
    assert!(store.commit(batch).await.is_err());
    assert_eq!(load(&store, "0").await.unwrap(), None);
}

#[tokio::test]
async fn a_hundred_clients_share_a_few_connections() {
    let server = Server::durable().await;
    let store = server.store().await;
    let commits = (0..100).map(|id| store.commit(put(&id.to_string(), "1")));
    assert!(join_all(commits).await.iter().all(Result::is_ok));
    let reads = (0..100).map(async |id: u32| load(&store, &id.to_string()).await);
    assert!(join_all(reads).await.iter().all(|found| matches!(found, Ok(Some(_)))));
    assert_eq!(clients(&server).await.len(), 7);
}
