//! The time from an accepted push until a worker has leased the run, with three processes on Redis: with a broker, and
//! without one, when processes only poll every few seconds.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use gantry_domain::attempt::Lease;
use gantry_domain::run::Run;
use gantry_seams::runs::{self, RunFilter};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::Effort;
use crate::backend::Backend;
use crate::composition::Parts;
use crate::process::{self, Server};
use crate::pusher::Pusher;
use crate::report::{Details, Report};
use crate::role::Role;
use crate::samples::Samples;
use crate::servers::Servers;

/// The interval between two pushes.
const PACE: Duration = Duration::from_millis(200);

/// The number of warm-up pushes.
const FIRST: usize = 5;

/// The time limit until the last run is leased.
const PATIENCE: Duration = Duration::from_secs(120);

/// Measures with the broker, and then without it.
pub(crate) fn measure(effort: Effort, report: &mut Report) -> Result<()> {
    let mut servers = Servers::with_own_broker()?;
    let folder = process::folder()?;
    let roles = start(folder.path(), &servers.backend())?;
    let runtime = tokio::runtime::Runtime::new()?;
    let stop = CancellationToken::new();
    let (parts, mut pusher) = runtime.block_on(async {
        let parts = Parts::open_on(&servers.backend(), folder.path(), &stop).await?;
        let pusher = Pusher::begin(&parts, roles[0].address, 1).await?;
        anyhow::Ok((parts, pusher))
    })?;
    let ringing = runtime.block_on(push_often(&parts, &mut pusher, effort.leases))?;
    servers.kill_broker()?;
    let polling = runtime.block_on(push_often(&parts, &mut pusher, effort.leases))?;

    let row = |what: &str, samples: &Samples| {
        let quantiles = [0.5, 0.9, 0.99, 1.0].map(|part| format!("{:.0}", samples.quantile(part)));
        std::iter::once(what.to_owned()).chain(quantiles).collect()
    };
    report.details(Details {
        title: format!(
            "leased: from the answer to the lease, {} pushes, 5 a second, in ms",
            effort.leases
        ),
        columns: ["", "p50", "p90", "p99", "most"].map(str::to_owned).into(),
        rows: vec![row("with the broker", &ringing), row("the broker killed", &polling)],
    });
    Ok(())
}

fn start(folder: &Path, backend: &Backend) -> Result<Vec<Server>> {
    let roles = [Role::Ingress, Role::Scheduler, Role::Worker, Role::Worker];
    roles.into_iter().map(|role| role.start_on(folder, backend)).collect()
}

/// Pushes at a steady pace. Returns the time from each response to the lease, in milliseconds.
async fn push_often(parts: &Parts, pusher: &mut Pusher, pushes: usize) -> Result<Samples> {
    let mut answered = HashMap::new();
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for number in 0..FIRST + pushes {
        pace.tick().await;
        let commit = pusher.push().await?.to_owned();
        if number >= FIRST {
            answered.insert(commit, parts.store.now().await?.as_millis());
        }
    }
    let began = Instant::now();
    loop {
        let leased = leased(parts, FIRST + pushes).await?;
        let times = answered.iter().map(|(commit, at)| Some(leased.get(commit)? - at));
        if let Some(times) = times.collect::<Option<Vec<_>>>() {
            let times = times.into_iter().map(|time| i32::try_from(time).map(f64::from));
            return Ok(Samples::of(times.collect::<Result<Vec<_>, _>>()?));
        }
        ensure!(began.elapsed() < PATIENCE, "{} runs are not all leased", answered.len());
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

/// When each commit's run was first leased, by the store's clock.
async fn leased(parts: &Parts, limit: usize) -> Result<HashMap<String, i64>> {
    let runs = runs::list(parts.store.as_ref(), &RunFilter::default(), None, limit).await?;
    Ok(runs.iter().filter_map(|run| Some((commit(run)?, first_lease(run)?))).collect())
}

fn commit(run: &Run) -> Option<String> {
    run.cause.commit().map(ToString::to_string)
}

fn first_lease(run: &Run) -> Option<i64> {
    let ended = run.attempts.first().map(|attempt| attempt.since);
    let since = ended.or(run.state.lease().map(|Lease { since, .. }| *since));
    since.map(gantry_domain::timestamp::Timestamp::as_millis)
}
