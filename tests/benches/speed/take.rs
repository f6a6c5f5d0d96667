//! How many runs per second are taken and finished by several takers, and how many worker processes build.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use gantry_domain::id::{LeaseNonce, PoolName, WorkerId};
use gantry_domain::platform::Platform;
use gantry_domain::run::{Outcome, Product, Run, RunStatus};
use gantry_domain::step::Steps;
use gantry_seams::runs::{self, Finish};
use gantry_seams::store::{SharedStore, Store};
use gantry_tests::doubles::store::{Conflicts, HookedStore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::Effort;
use crate::backend::Backend;
use crate::composition::{Parts, REGISTRY};
use crate::process;
use crate::report::{Details, Report, say};
use crate::role::Role;
use crate::samples::{Samples, milliseconds};
use crate::servers::Servers;
use crate::stored;

const TAKERS: [usize; 3] = [1, 8, 50];

const WORKERS: [usize; 2] = [1, 4];

const LEASE: Duration = Duration::from_secs(30);

/// The time limit for the worker processes.
const PATIENCE: Duration = Duration::from_secs(300);

/// The results of takers.
#[derive(Debug)]
pub(crate) struct Taken {
    /// Runs taken and finished per second.
    rate: f64,
    /// The time for taking a run, in milliseconds.
    take_p50_ms: f64,
    take_p99_ms: f64,
    /// The number of conflicts per run.
    conflicts: f64,
}

/// Measures both stores in turn, and then the worker processes.
pub(crate) fn measure(effort: Effort, report: &mut Report) -> Result<()> {
    let mut rows: Vec<(String, Vec<Taken>)> = Vec::new();
    for store in ["Redis, a store for each taker", "SQLite, one store"] {
        rows.extend(TAKERS.iter().map(|takers| (format!("{takers} × {store}"), Vec::new())));
    }
    for round in 1..=effort.rounds {
        let servers = Servers::start()?;
        for (place, backend) in [servers.backend(), Backend::Embedded].into_iter().enumerate() {
            let folder = process::folder()?;
            let taken = tokio::runtime::Runtime::new()?.block_on(take_in_turn(
                &backend,
                folder.path(),
                effort.takes,
            ))?;
            for (row, taken) in rows[place * TAKERS.len()..].iter_mut().zip(taken) {
                say(format_args!("  round {round}, {}: {:.0} a second", row.0, taken.rate));
                row.1.push(taken);
            }
        }
    }
    let cells = rows.iter().map(|(name, rounds)| {
        let all = |of: fn(&Taken) -> f64| Samples::of(rounds.iter().map(of));
        vec![
            name.clone(),
            all(|one| one.rate).show(0),
            all(|one| one.take_p50_ms).show(1),
            all(|one| one.take_p99_ms).show(1),
            all(|one| one.conflicts).show(2),
        ]
    });
    let columns =
        ["takers", "runs a second", "take p50, ms", "take p99, ms", "conflicts for each run"];
    report.details(Details {
        title: format!("take: taken and finished, {} runs ready", effort.takes[0]),
        columns: columns.map(str::to_owned).into(),
        rows: cells.collect(),
    });
    measure_workers(effort, report)
}

/// Lets groups of takers take runs from the same store, one group after the other.
async fn take_in_turn(
    backend: &Backend,
    folder: &Path,
    [ready, taken]: [usize; 2],
) -> Result<Vec<Taken>> {
    let store = backend.store(folder).await?;
    stored::create_ready(&store, ready).await?;
    let mut measured = Vec::new();
    for takers in TAKERS {
        let mut stores = Vec::new();
        for _ in 0..takers {
            stores.push(match backend {
                // Only one process can have the store open.
                Backend::Embedded => Arc::clone(&store),
                Backend::Scaled { .. } => backend.store(folder).await?,
            });
        }
        measured.push(take_at_once(stores, taken).await?);
    }
    Ok(measured)
}

/// Takes and finishes `count` runs, with one taker per store.
pub(crate) async fn take_at_once(stores: Vec<SharedStore>, count: usize) -> Result<Taken> {
    let (conflicts, taken) = (Arc::new(Conflicts::default()), Arc::new(AtomicUsize::new(0)));
    let began = Instant::now();
    let mut takers = JoinSet::new();
    for (number, store) in stores.into_iter().enumerate() {
        let store = HookedStore::shared(store, Arc::clone(&conflicts));
        let worker = format!("worker-{number}").parse()?;
        takers.spawn(take_some(store, worker, Arc::clone(&taken), count));
    }
    let mut times = Vec::new();
    while let Some(some) = takers.join_next().await {
        times.append(&mut some??);
    }
    let rate = f64::from(u32::try_from(times.len())?) / began.elapsed().as_secs_f64();
    let conflicts = f64::from(u32::try_from(conflicts.count())?);
    let runs = f64::from(u32::try_from(times.len())?);
    let times = Samples::of(times);
    Ok(Taken {
        rate,
        take_p50_ms: times.median(),
        take_p99_ms: times.quantile(0.99),
        conflicts: conflicts / runs,
    })
}

/// Takes and finishes runs until all takers together have `count`. Returns the duration of each take, in milliseconds.
async fn take_some(
    store: SharedStore,
    worker: WorkerId,
    taken: Arc<AtomicUsize>,
    count: usize,
) -> Result<Vec<f64>> {
    let nonce: LeaseNonce = "1".repeat(32).parse()?;
    let pool = Platform::default().pool();
    let mut times = Vec::new();
    while taken.fetch_add(1, Ordering::Relaxed) < count {
        let began = Instant::now();
        let (run, holder) = take_one(store.as_ref(), &pool, &worker, &nonce).await?;
        times.push(milliseconds(began.elapsed()));
        let finish = Finish::Outcome(Outcome::Succeeded(Product {
            outputs: Vec::new(),
            superseded: Vec::new(),
            bases: Vec::new(),
            commit: None,
        }));
        runs::finish(store.as_ref(), run.id, &holder, finish, &Steps::default()).await?;
    }
    Ok(times)
}

/// Tries until it takes a run, because other takers may take all runs that it looked at.
pub(crate) async fn take_one(
    store: &dyn Store,
    pool: &PoolName,
    worker: &WorkerId,
    nonce: &LeaseNonce,
) -> Result<(Run, gantry_domain::attempt::Holder)> {
    loop {
        if let Some(taken) = runs::take(store, pool, worker, nonce, LEASE).await? {
            return Ok((taken.run, taken.holder));
        }
    }
}

/// Measures complete runs: source, build and log, by worker processes with an engine that takes no time.
fn measure_workers(effort: Effort, report: &mut Report) -> Result<()> {
    let mut rows = WORKERS.map(|workers| (workers, Vec::new()));
    for round in 1..=effort.rounds {
        for (workers, rates) in &mut rows {
            let rate = build_all(*workers, effort.built_runs)?;
            say(format_args!("  round {round}, {workers} worker processes: {rate:.0} a second"));
            rates.push(rate);
        }
    }
    report.details(Details {
        title: "take: whole runs a second on a scripted engine, over Redis".to_owned(),
        columns: ["worker processes, 2 slots each", "runs a second"].map(str::to_owned).into(),
        rows: rows
            .into_iter()
            .map(|(workers, rates)| vec![workers.to_string(), Samples::of(rates).show(1)])
            .collect(),
    });
    Ok(())
}

fn build_all(workers: usize, count: usize) -> Result<f64> {
    let servers = Servers::start()?;
    let folder = process::folder()?;
    let runtime = tokio::runtime::Runtime::new()?;
    let stop = CancellationToken::new();
    let parts = runtime.block_on(async {
        let parts = Parts::open_on(&servers.backend(), folder.path(), &stop).await?;
        parts.set_up("registry.test").await?;
        stored::create_buildable(&parts, &REGISTRY.parse()?, count).await?;
        anyhow::Ok(parts)
    })?;
    let start = |_| Role::Worker.start_on(folder.path(), &servers.backend());
    let _workers = (0..workers).map(start).collect::<Result<Vec<_>>>()?;
    runtime.block_on(until_idle(&parts))?;
    let ended = runtime.block_on(runs::ended(parts.store.as_ref(), 2 * count))?;
    rate_of(&ended)
}

/// Waits until no run is waiting, ready or leased.
pub(crate) async fn until_idle(parts: &Parts) -> Result<()> {
    let store = parts.store.as_ref();
    let idle = async {
        loop {
            // Checked in the order of a run's states, so that no run is missed.
            if runs::waiting(store, None, 1).await?.is_empty()
                && runs::all_ready(store, 1).await?.is_empty()
                && runs::count_leased(store, 1).await? == 0
            {
                return anyhow::Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, idle).await.context("runs are not built")?
}

/// The rate by the store's clock, from the first lease to the last end.
fn rate_of(ended: &[Run]) -> Result<f64> {
    for run in ended {
        let succeeded = run.status() == RunStatus::Succeeded;
        ensure!(succeeded, "{} ended otherwise: {:?}", run.id, run.state);
    }
    let leased = ended.iter().filter_map(|run| Some(run.attempts.first()?.since.as_millis()));
    let done = ended.iter().filter_map(|run| Some(run.state.done()?.at.as_millis()));
    let (first, last) = leased.min().zip(done.max()).context("runs were built")?;
    let took = f64::from(i32::try_from(last - first)?) / 1e3;
    Ok(f64::from(u32::try_from(ended.len())?) / took)
}
