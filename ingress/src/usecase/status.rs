//! The status of the installation.

use std::collections::BTreeMap;
use std::time::Instant;

use gantry_api as types;
use gantry_domain::id::PoolName;
use gantry_domain::run::{Run as RunRecord, RunState, RunStatus};
use gantry_domain::worker::Workforce;
use gantry_ops::health::Report;
use gantry_seams::runs::RunFilter;
use gantry_seams::store::{Room, StoreError};
use gantry_seams::{hooks, installation, runs};

use super::refused_credentials::refused;
use super::runs::explain_wait;
use super::workers::visible;
use crate::access::{Allowed, Read};
use crate::refusal::Refusal;
use crate::state::State;
use crate::view;

const COUNTED: usize = 1000;
const MOST_QUARANTINED: usize = 100;

/// How many recent runs are checked for refused credentials.
const LOOKED_BACK: usize = 200;

/// The status of the installation, and what needs attention.
pub(crate) async fn status(
    state: &State,
    allowed: &Allowed<Read>,
) -> Result<types::Status, Refusal> {
    let store = state.store.as_ref();
    let began = Instant::now();
    let workforce = visible(state, allowed).await?;
    let latency_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let now = workforce.now;
    let room = store.room().await?;
    let report = state.health.check().await;
    let (queued, leased) = runs_under_way(state, allowed).await?;
    let oldest = queued.iter().min_by_key(|run| run.created);
    let oldest_waiting = match oldest {
        None => None,
        Some(run) => Some(types::OldestWaiting {
            run: run.id.to_string(),
            created: run.created.to_string(),
            waits_for: explain_wait(store, run).await?.unwrap_or_default(),
        }),
    };
    // Their keys name objects of any registry.
    let quarantined = match allowed.bound_to() {
        None => installation::quarantined(store, MOST_QUARANTINED).await?,
        Some(_) => Vec::new(),
    };
    let mut status = types::Status {
        ok: true,
        troubles: Vec::new(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        store: types::StoreStatus {
            ok: true,
            latency_ms,
            now: Some(now.to_string()),
            used: room.used,
            budget: room.most,
        },
        queue: queue(state, &report),
        queued_runs: queued.len(),
        leased_runs: leased,
        oldest_waiting,
        failing_hooks: failing_hooks(state, allowed).await?,
        failing_credentials: failing_credentials(state, allowed).await?,
        unknown_hook_requests: state.tally.unknown(),
        quarantined: quarantined
            .into_iter()
            .map(|(key, since)| types::QuarantinedRecord { key, since: since.to_string() })
            .collect(),
        workers: view::workers(&workforce),
    };
    status.troubles = troubles(&status, room, &workforce, &queued);
    if let Some(Err(why)) = report.part("objects") {
        status
            .troubles
            .push(format!("the object store is missing, so logs and uploads wait: {why}"));
    }
    status.ok = status.troubles.is_empty();
    Ok(status)
}

/// The queued runs that the token may see, and how many runs are leased.
async fn runs_under_way(
    state: &State,
    allowed: &Allowed<Read>,
) -> Result<(Vec<RunRecord>, usize), StoreError> {
    let store = state.store.as_ref();
    let Some(registries) = allowed.bound_to() else {
        let mut queued = runs::waiting(store, None, COUNTED).await?;
        queued.retain(|run| !run.is_hidden());
        queued.extend(runs::all_ready(store, COUNTED).await?);
        return Ok((queued, runs::count_leased(store, COUNTED).await?));
    };
    let (mut queued, mut leased) = (Vec::new(), 0);
    for registry in registries.values() {
        let in_status = async |status| {
            let registry = Some(*registry);
            let filter = RunFilter { registry, status: Some(status), ..RunFilter::default() };
            runs::list(store, &filter, None, COUNTED).await
        };
        queued.extend(in_status(RunStatus::Queued).await?);
        leased += in_status(RunStatus::Started).await?.len();
        leased += in_status(RunStatus::Running).await?.len();
    }
    Ok((queued, leased))
}

fn queue(state: &State, report: &Report) -> types::QueueStatus {
    let health = state.doorbells.health();
    // The last doorbell only tells how the broker was then; the health check tells how it is now.
    let last_error = match report.part("queue") {
        Some(now) => now.err().map(str::to_owned),
        None => health.last_error(),
    };
    types::QueueStatus { ok: last_error.is_none(), failed: health.failed(), last_error }
}

async fn failing_hooks(
    state: &State,
    allowed: &Allowed<Read>,
) -> Result<Vec<types::FailingHook>, StoreError> {
    let mut failing = Vec::new();
    for (id, counts) in state.tally.failing() {
        let hook = hooks::find(state.store.as_ref(), &id).await?;
        if let Some(hook) = hook.filter(|hook| allowed.sees(hook)) {
            failing.push(types::FailingHook {
                hook: id.to_string(),
                registry: hook.registry.to_string(),
                counts,
            });
        }
    }
    Ok(failing)
}

async fn failing_credentials(
    state: &State,
    allowed: &Allowed<Read>,
) -> Result<Vec<types::FailingCredentials>, StoreError> {
    let store = state.store.as_ref();
    let mut newest = Vec::new();
    match allowed.bound_to() {
        None => newest = runs::list(store, &RunFilter::default(), None, LOOKED_BACK).await?,
        Some(registries) => {
            for registry in registries.values() {
                let registry = Some(*registry);
                let filter = RunFilter { registry, ..RunFilter::default() };
                newest.extend(runs::list(store, &filter, None, LOOKED_BACK).await?);
            }
        }
    }
    Ok(refused(&newest)
        .into_iter()
        .map(|(run, error)| types::FailingCredentials {
            registry: run.registry.to_string(),
            task: run.task.as_ref().map(|task| task.name.to_string()),
            run: run.id.to_string(),
            message: error.to_string(),
        })
        .collect())
}

/// What needs attention, each with its remedy.
fn troubles(
    status: &types::Status,
    room: Room,
    workforce: &Workforce,
    queued: &[RunRecord],
) -> Vec<String> {
    let mut troubles = Vec::new();
    if room.is_closed() {
        troubles.push(
            "the store is nearly full, so hooks, uploads and new runs are answered 503: raise `store.budget`, or shorten what `retention` keeps"
                .to_owned(),
        );
    } else if room.is_tight() {
        troubles.push(
            "the store fills up, so bodies of deliveries move to the object store early: raise `store.budget`, or shorten what `retention` keeps"
                .to_owned(),
        );
    }
    if let Some(error) = &status.queue.last_error {
        troubles.push(format!("the queue does not take doorbells, so things go slower: {error}"));
    }
    if status.workers.is_empty() {
        troubles.push("there is no worker: runs wait until one starts".to_owned());
    }
    for (pool, runs) in ready_by_pool(queued) {
        if let Some(lack) = workforce.lacks(pool) {
            troubles.push(format!("{runs} ready: {lack}"));
        }
    }
    for worker in &status.workers {
        if !worker.engine.ok {
            let why = &worker.engine.message;
            troubles.push(format!("the engine of worker {} is away: {why}", worker.id));
        } else if let Some(why) = &worker.idle_because {
            troubles.push(format!("worker {} takes no runs: {why}", worker.id));
        }
    }
    for worker in workforce.workers.iter().filter(|worker| worker.is_silent(workforce.now)) {
        troubles.push(format!("worker {} was last seen at {}", worker.id, worker.last_seen));
    }
    for failing in &status.failing_hooks {
        let counts = failing.counts;
        troubles.push(format!(
            "hook {}: {} deliveries with a wrong secret, {} unreadable, {} not taken in time since the start",
            failing.hook, counts.unauthorized, counts.unreadable, counts.unavailable
        ));
    }
    for failing in &status.failing_credentials {
        troubles.push(format!("run {}: {}", failing.run, failing.message));
    }
    if !status.quarantined.is_empty() {
        troubles.push(format!(
            "{} stored records do not decode: was an older gantry started on newer data?",
            status.quarantined.len()
        ));
    }
    troubles
}

/// How many runs are ready in each pool, in words.
fn ready_by_pool(queued: &[RunRecord]) -> BTreeMap<&PoolName, String> {
    let mut counts = BTreeMap::new();
    for run in queued {
        if let RunState::Ready { pool, .. } = &run.state {
            *counts.entry(pool).or_insert(0_usize) += 1;
        }
    }
    let words =
        |count| if count == 1 { "1 run is".to_owned() } else { format!("{count} runs are") };
    counts.into_iter().map(|(pool, count)| (pool, words(count))).collect()
}
