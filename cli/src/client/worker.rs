//! `gantry worker list`, `drain` and `resume`.

use anyhow::Result;
use clap::Subcommand;
use gantry_api::Worker;

use super::Client;
use super::table::{Table, instant, size};
use crate::exit::Exit;

/// List, drain and resume workers
#[derive(Debug, Subcommand)]
pub(crate) enum Workers {
    /// List workers with their engines, free disk and runs
    #[command(visible_alias = "ls")]
    List,
    /// Let a worker finish its runs and take no more
    #[command(after_long_help = "\
It stays so until `gantry worker resume`. A worker with a name of its own (`gantry worker --name W`) is still drained \
when it starts again.

Example:
  gantry worker drain w1    then wait until `gantry worker list` shows no runs of it")]
    Drain(Named),
    /// Let a drained worker take runs again
    Resume(Named),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Named {
    /// The worker, as `gantry worker list` names it
    #[arg(value_name = "WORKER")]
    worker: String,
}

impl Workers {
    pub(crate) async fn run(self, client: &Client) -> Result<Exit> {
        match self {
            Self::List => {
                let workers: Vec<Worker> = client.api.list(&["workers"], &[], usize::MAX).await?;
                client.output.print(&workers, table(&workers))?;
            }
            Self::Drain(Named { worker }) => {
                let drained: Worker = client.api.post(&["workers", &worker, "drain"], &()).await?;
                client.output.print(&drained, drained_words(&drained))?;
            }
            Self::Resume(Named { worker }) => {
                let resumed: Worker = client.api.post(&["workers", &worker, "resume"], &()).await?;
                client
                    .output
                    .print(&resumed, format_args!("worker {worker} takes runs again\n"))?;
            }
        }
        Ok(Exit::Ok)
    }
}

fn drained_words(worker: &Worker) -> String {
    let id = &worker.id;
    match worker.runs.as_slice() {
        [] => format!("worker {id} takes nothing more and has no run\n"),
        runs => format!("worker {id} takes nothing more and finishes {}\n", runs.join(", ")),
    }
}

fn table(workers: &[Worker]) -> Table<9> {
    let mut table = Table::new(
        [
            "WORKER",
            "POOL",
            "PLATFORMS",
            "SLOTS",
            "RUNS",
            "FREE DISK",
            "LAST SEEN",
            "DRAINED",
            "ENGINE",
        ],
        "no workers: start one with `gantry worker`; `gantry up` has one, unless `worker.enabled` is false",
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
            worker.drained.as_ref().map(|drained| instant(&drained.since)).unwrap_or_default(),
            engine(worker),
        ]);
    }
    table
}

/// A worker's engine, or why the worker does not build.
pub(crate) fn engine(worker: &Worker) -> String {
    let engine = &worker.engine.message;
    match (worker.engine.ok, &worker.idle_because) {
        (true, None) => engine.clone(),
        (true, Some(why)) => format!("{engine}; takes nothing: {why}"),
        (false, _) => format!("no engine: {engine}"),
    }
}
