//! How long a commit blocks the server for everybody else.

use gantry_seams::store::{Batch, Index, Store};

use crate::batches::key;
use crate::server::Server;

#[tokio::test]
async fn the_largest_batch_blocks_the_server_less_than_five_milliseconds() {
    let server = Server::with(&["--slowlog-log-slower-than", "0"]).await;
    let store = server.store().await;
    let mut slowest = 0;
    for round in 0..20 {
        server.call::<()>(&["SLOWLOG", "RESET"]).await;
        store.commit(largest(round)).await.unwrap();
        let log: Vec<(u64, u64, u64, Vec<String>, String, String)> =
            server.call(&["SLOWLOG", "GET", "10"]).await;
        let commit = log.iter().find(|entry| entry.3[0] == "EVALSHA").expect("the commit");
        slowest = slowest.max(commit.2);
    }
    println!("the slowest commit of 300 puts, 1 MiB and 300 index changes took {slowest} µs");
    assert!(slowest < 5_000, "{slowest} µs");
}

/// 300 puts of records that have to be absent the first time, one of them of 1 MiB, and 300 members that move.
fn largest(round: i64) -> Batch {
    let mut batch = Batch::default();
    for id in 0..300 {
        let bytes = if id == 0 { vec![b'x'; 1 << 20] } else { vec![b'x'; 512] };
        batch.put(key(&id.to_string()), bytes);
        batch.expect.push((key(&format!("none-{id}")), gantry_seams::store::Expect::Absent));
        batch.index(Index::new("runs/ready"), id * 1_000 + round, format!("run-{id}"));
    }
    batch
}
