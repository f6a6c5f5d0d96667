//! The memory of each role, idle and under load, and the memory of a run in Redis.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use gantry_seams::due;
use tokio_util::sync::CancellationToken;

use crate::Effort;
use crate::accept;
use crate::composition::{Parts, REGISTRY};
use crate::load::{self, Volley};
use crate::process;
use crate::report::{Details, Report};
use crate::role::Role;
use crate::samples::Samples;
use crate::servers::Servers;
use crate::stored;
use crate::take;

/// How long a process needs to become idle.
const SETTLE: Duration = Duration::from_secs(10);

/// Connections that send hooks.
const CONNECTIONS: u64 = 64;

/// The time limit for deciding events.
const PATIENCE: Duration = Duration::from_secs(300);

/// Measures the roles, and then Redis.
pub(crate) fn measure(effort: Effort, report: &mut Report) -> Result<()> {
    measure_roles(effort, report)?;
    measure_redis(effort, report)
}

fn measure_roles(effort: Effort, report: &mut Report) -> Result<()> {
    let roles = [Role::Ingress, Role::Scheduler, Role::Worker];
    let mut all = [(); 3].map(|()| [Vec::new(), Vec::new(), Vec::new()]);
    for _ in 0..effort.rounds {
        let servers = Servers::start()?;
        let folder = process::folder()?;
        let start = |role: Role| role.start_on(folder.path(), &servers.backend());
        let started = roles.into_iter().map(start).collect::<Result<Vec<_>>>()?;
        std::thread::sleep(SETTLE);
        let mut note = |column: usize, peak: bool| {
            for (server, columns) in started.iter().zip(&mut all) {
                let memory = process::memory(server.pid())?;
                columns[column].push(if peak { memory.peak } else { memory.resident });
                process::forget_peak(server.pid())?;
            }
            anyhow::Ok(())
        };
        note(0, false)?;
        let seconds = effort.seconds * 3.0;
        let volley = Volley { connections: CONNECTIONS, seconds, expected: 202 };
        load::fire(started[0].address, &[], &accept::signed_push()?, volley)?;
        note(1, true)?;
        build_some(&servers, folder.path(), effort.built_runs)?;
        note(2, true)?;
    }
    let columns = [
        "role",
        "idle",
        "while 64 connections send hooks, at most",
        "while runs are built, at most",
    ];
    let names = ["ingress", "scheduler", "worker"];
    report.details(Details {
        title: "memory: resident MiB of each role".to_owned(),
        columns: columns.map(str::to_owned).into(),
        rows: names
            .iter()
            .zip(all)
            .map(|(name, columns)| {
                let cells = columns.map(|column| Samples::of(column).show(0));
                std::iter::once((*name).to_owned()).chain(cells).collect()
            })
            .collect(),
    });
    Ok(())
}

fn build_some(servers: &Servers, folder: &Path, count: usize) -> Result<()> {
    tokio::runtime::Runtime::new()?.block_on(async {
        let stop = CancellationToken::new();
        let parts = Parts::open_on(&servers.backend(), folder, &stop).await?;
        stored::create_buildable(&parts, &REGISTRY.parse()?, count).await?;
        take::until_idle(&parts).await
    })
}

/// Measures ended runs, and then deliveries with their events and decisions, in an initially empty Redis.
fn measure_redis(effort: Effort, report: &mut Report) -> Result<()> {
    let servers = Servers::start()?;
    let folder = process::folder()?;
    let runtime = tokio::runtime::Runtime::new()?;
    let stop = CancellationToken::new();
    let ingress = Role::Ingress.start_on(folder.path(), &servers.backend())?;
    let parts = runtime.block_on(Parts::open_on(&servers.backend(), folder.path(), &stop))?;

    let empty = used(&servers)?;
    runtime.block_on(async {
        stored::create_ready(&parts.store, effort.runs_in_memory).await?;
        take::take_at_once(vec![Arc::clone(&parts.store)], effort.runs_in_memory).await
    })?;
    let with_runs = used(&servers)?;
    let volley = Volley { connections: CONNECTIONS, seconds: effort.seconds, expected: 202 };
    load::fire(ingress.address, &[], &accept::signed_push()?, volley)?;
    let _scheduler = Role::Scheduler.start_on(folder.path(), &servers.backend())?;
    runtime.block_on(until_decided(&parts))?;
    let with_deliveries = used(&servers)?;
    let bodies = names(&servers, "delivery-body")?;
    let deliveries = f64::from(u32::try_from(bodies.len())?);
    let body: f64 = servers.ask_redis(&["MEMORY", "USAGE", &bodies[0]])?.trim().parse()?;

    let kibibytes = |bytes: f64| format!("{:.1}", bytes / 1024.0);
    let runs = f64::from(u32::try_from(effort.runs_in_memory)?);
    report.details(Details {
        title: format!(
            "memory: Redis, {runs:.0} ended runs and {deliveries:.0} deliveries, in KiB"
        ),
        columns: ["what", "of `used_memory`"].map(str::to_owned).into(),
        rows: vec![
            vec!["an ended run".to_owned(), kibibytes((with_runs - empty) / runs)],
            vec![
                "a decided delivery with its event, decision and body".to_owned(),
                kibibytes((with_deliveries - with_runs) / deliveries),
            ],
            vec!["of that the body of 8 KiB, for a day".to_owned(), kibibytes(body)],
        ],
    });
    Ok(())
}

fn used(servers: &Servers) -> Result<f64> {
    Ok(servers.redis_info("memory", "used_memory")?.parse()?)
}

/// The keys of all records of a kind.
fn names(servers: &Servers, kind: &str) -> Result<Vec<String>> {
    let pattern = format!("gantry:r:{kind}/*");
    let text = servers.ask_redis(&["--scan", "--pattern", &pattern])?;
    let names: Vec<String> = text.lines().map(str::to_owned).collect();
    anyhow::ensure!(!names.is_empty(), "there is no `{kind}`");
    Ok(names)
}

/// Waits until all events are decided.
pub(crate) async fn until_decided(parts: &Parts) -> Result<()> {
    let decided = async {
        let store = parts.store.as_ref();
        while !due::undecided(store, store.now().await?, 1).await?.is_empty() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(PATIENCE, decided).await.context("events are not decided")?
}
