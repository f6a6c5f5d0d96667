//! `gantry worker`.

use anyhow::Result;
use clap::Subcommand;
use gantry_ingress::api::types::Worker;

use super::Client;
use super::table::{Table, instant, size};
use crate::exit::Exit;

/// See the workers
#[derive(Debug, Subcommand)]
pub(crate) enum Workers {
    /// List workers with their engines, free disk and runs
    #[command(visible_alias = "ls")]
    List,
}

impl Workers {
    pub(crate) async fn run(self, client: &Client) -> Result<Exit> {
        match self {
            Self::List => {
                let workers: Vec<Worker> = client.api.list(&["workers"], &[], usize::MAX).await?;
                client.output.print(&workers, table(&workers))?;
                Ok(Exit::Ok)
            }
        }
    }
}

fn table(workers: &[Worker]) -> Table<8> {
    let mut table = Table::new(
        ["WORKER", "POOL", "PLATFORMS", "SLOTS", "RUNS", "FREE DISK", "LAST SEEN", "ENGINE"],
        "no workers: `gantry up` has one, unless `worker.enabled` is false",
    );
    for worker in workers {
        table.row([
            worker.id.clone(),
            worker.pool.clone(),
            worker.platforms.join(","),
            worker.slots.to_string(),
            worker.runs.join(","),
            worker.free_disk.map(size).unwrap_or_default(),
            instant(&worker.last_seen),
            engine(worker),
        ]);
    }
    table
}

/// What a worker builds with, or why it builds nothing.
pub(crate) fn engine(worker: &Worker) -> String {
    let engine = &worker.engine.message;
    match (worker.engine.ok, &worker.idle_because) {
        (true, None) => engine.clone(),
        (true, Some(why)) => format!("{engine}; takes nothing: {why}"),
        (false, _) => format!("no engine: {engine}"),
    }
}
