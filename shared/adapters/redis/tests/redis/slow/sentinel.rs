//! Sentinels replace a master.

use std::fmt::Write as _;
use std::time::Duration;

use gantry_redis::{ConnectError, RedisOptions, RedisStore};
use gantry_seams::store::{CommitError, Store, StoreError};

use crate::batches::{load, put};
use crate::server::{Server, eventually, free_port};

#[tokio::test]
async fn a_failover_keeps_acknowledged_commits() {
    let replicated = ["--min-replicas-to-write", "1", "--repl-diskless-sync-delay", "0"];
    let mut master = Server::with(&replicated).await;
    let of = format!("127.0.0.1 {}", master.port);
    let replica = Server::with(&[&["--replicaof", &of], &replicated[2..]].concat()).await;
    eventually("the replica has its data", async || {
        let info: String = replica.call(&["INFO", "replication"]).await;
        info.contains("master_link_status:up").then_some(())
    })
    .await;
    let sentinel = sentinel(&master).await;
    eventually("the sentinel knows the replica", async || {
        let info: String = sentinel.call(&["INFO", "sentinel"]).await;
        info.contains("slaves=1").then_some(())
    })
    .await;

    let store = RedisStore::connect(options(&sentinel, "main")).await.unwrap();
    // The master counts a replica only after it has received an acknowledgement from it.
    eventually("a commit is acknowledged", async || store.commit(put("before", "1")).await.ok())
        .await;
    let error = RedisStore::connect(options(&sentinel, "other")).await.unwrap_err();
    assert!(matches!(error, ConnectError::NoMaster { .. }), "{error:?}");

    master.kill();
    // The promoted server has no replica, and a commit would wait for one. A server closes all connections when it is
    // promoted.
    eventually("the replica is the master", async || {
        let info: String = replica.ask(&["INFO", "replication"]).await.ok()?;
        info.contains("role:master").then_some(())
    })
    .await;
    let record = eventually("the store reads from it", async || load(&store, "before").await.ok());
    assert_eq!(record.await.unwrap().bytes, "1");
    // The server stored this commit, but no replica has a copy, so it is not acknowledged.
    let alone = store.commit(put("alone", "1")).await;
    assert!(matches!(alone, Err(CommitError::Store(StoreError::Unavailable { .. }))), "{alone:?}");

    // The former master returns as a replica, and commits are acknowledged again.
    master.start_again().await;
    eventually("commits are acknowledged", async || store.commit(put("after", "1")).await.ok())
        .await;
}

#[tokio::test]
async fn a_master_that_writes_without_replicas_is_refused() {
    let master = Server::durable().await;
    let sentinel = sentinel(&master).await;
    let error = RedisStore::connect(options(&sentinel, "main")).await.unwrap_err();
    assert!(
        matches!(&error, ConnectError::WeakDurability { line: "min-replicas-to-write 1", .. }),
        "{error:?}"
    );
}

/// A sentinel that watches `master` as `main`, with short timeouts.
async fn sentinel(master: &Server) -> Server {
    let port = free_port();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sentinel.conf");
    let mut config = format!("port {port}\nsentinel monitor main 127.0.0.1 {} 1\n", master.port);
    config.push_str("sentinel down-after-milliseconds main 500\n");
    writeln!(config, "sentinel failover-timeout main 3000").unwrap();
    std::fs::write(&file, config).unwrap();
    let file = file.display().to_string();
    // A sentinel writes its state into its configuration file, so the folder must be kept.
    let mut sentinel = Server::run(port, [file.as_str(), "--sentinel"].into_iter()).await;
    sentinel.keep(folder);
    sentinel
}

fn options(sentinel: &Server, master: &str) -> RedisOptions {
    let url = format!("redis+sentinel://127.0.0.1:{}/{master}", sentinel.port);
    RedisOptions { patience: Duration::from_secs(2), ..RedisOptions::parse(&url).unwrap() }
}
