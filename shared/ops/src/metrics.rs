//! The metrics of the process for Prometheus: each with its name, unit and labels, in one table.
//!
//! In: events, as typed calls. Out: [`render`], the text of `/metrics`. Metrics are named `gantry_<what>_<unit>`. Names
//! of registries, tasks and repositories are not labels, because anybody can create new ones.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gantry_domain::hook::Provider;
use gantry_domain::id::PoolName;
use gantry_domain::run::{Purpose, Run, RunStatus, RunType};
use gantry_domain::timestamp::Timestamp;

mod family;
mod labels;

pub use family::Description;
pub use labels::{
    Answer, BuildEnd, Decided, Doorbell, EngineOperation, HookVerdict, Label, Labels, Misfired,
    QueueFailure, QueueOperation, Repair, Slot, Stage, StoreFailure, StoreOperation, Waiting,
};

use family::{ByPool, ByPoolAndReason, Counter, Gauge, Histogram, Table};

/// Buckets for answers that somebody waits for.
const ANSWERS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Buckets for work that takes from moments to hours.
const WORK: &[f64] = &[
    0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 3600.0, 14400.0,
];

static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::list);

struct Metrics {
    table: Table,
    hooks: Counter<(Provider, HookVerdict)>,
    hook_answers: Histogram<Provider>,
    api_answers: Histogram<Answer>,
    decisions: Counter<Decided>,
    timer_lateness: Histogram<()>,
    timer_misfires: Counter<Misfired>,
    waiting: ByPoolAndReason,
    ready: ByPool,
    oldest_ready: ByPool,
    leased: Gauge<()>,
    workers: ByPool,
    pool_slots: ByPool,
    last_sweep: Gauge<()>,
    repairs: Counter<Repair>,
    quarantined: Gauge<()>,
    store_used: Gauge<()>,
    store_limit: Gauge<()>,
    runs: Counter<(RunType, RunStatus)>,
    scans: Counter<RunStatus>,
    run_queued: Histogram<RunType>,
    run_took: Histogram<RunStatus>,
    attempts: Counter<()>,
    lapses: Counter<()>,
    stages: Histogram<Stage>,
    builds: Counter<BuildEnd>,
    pushed: Counter<()>,
    slots: Gauge<Slot>,
    free_disk: Gauge<()>,
    takes_runs: Gauge<()>,
    store: Histogram<StoreOperation>,
    store_failures: Counter<(StoreOperation, StoreFailure)>,
    queue: Histogram<(Doorbell, QueueOperation)>,
    queue_failures: Counter<(Doorbell, QueueFailure)>,
    doorbells: Counter<Doorbell>,
    engine: Histogram<EngineOperation>,
    engine_failures: Counter<EngineOperation>,
    started: Gauge<()>,
    build_info: Gauge<Version>,
}

impl Metrics {
    fn list() -> Self {
        let mut table = Table::new();
        let t = &mut table;
        Self {
            hooks: t.counter("gantry_hooks_total", "Requests to hooks, by verdict."),
            hook_answers: t.histogram(
                "gantry_hook_answer_seconds",
                "Time from a hook's request to its response, including the transfer of the body.",
                ANSWERS,
            ),
            api_answers: t.histogram(
                "gantry_api_answer_seconds",
                "Time from an API request to its response; for a stream, to its start.",
                ANSWERS,
            ),
            decisions: t.counter(
                "gantry_decisions_total",
                "Candidates of events, by decision: a run, or the first rule that said no.",
            ),
            timer_lateness: t.histogram(
                "gantry_timer_lateness_seconds",
                "Time from the instant at which a timer was due to the commit of its event.",
                ANSWERS,
            ),
            timer_misfires: t.counter(
                "gantry_timer_misfires_total",
                "Instants that timers missed by more than a minute; those before a timer's window count as one.",
            ),
            waiting: t.by_pool_and_reason(
                "gantry_waiting_runs",
                "Runs that are not yet admitted, by what they wait for (scheduler; counted up to 1024).",
            ),
            ready: t.by_pool(
                "gantry_ready_runs",
                "Runs that any worker of their pool may take (scheduler; counted up to 4096).",
            ),
            oldest_ready: t.by_pool(
                "gantry_oldest_ready_run_seconds",
                "How long the oldest ready run of a pool has been ready (scheduler).",
            ),
            leased: t.gauge(
                "gantry_leased_runs",
                "Runs that a worker holds (scheduler; counted up to 4096).",
            ),
            workers: t.by_pool("gantry_pool_workers", "Workers that were seen recently (scheduler)."),
            pool_slots: t.by_pool(
                "gantry_pool_slots",
                "Slots of the pool's workers that take runs (scheduler).",
            ),
            last_sweep: t.gauge(
                "gantry_last_sweep_timestamp_seconds",
                "When the sweeper of this scheduler last completed a pass, by the store's clock.",
            ),
            repairs: t.counter(
                "gantry_sweeper_repairs_total",
                "Missed work that the sweeper found, because a doorbell was lost or had no receiver.",
            ),
            quarantined: t.gauge(
                "gantry_quarantined_records",
                "How many stored records do not decode: `gantry status` names them (scheduler).",
            ),
            store_used: t.gauge("gantry_store_used_bytes", "The size of the store's data (scheduler)."),
            store_limit: t.gauge(
                "gantry_store_limit_bytes",
                "The limit for the store's data; absent if none is set (scheduler).",
            ),
            runs: t.counter("gantry_runs_total", "Ended runs, by status."),
            scans: t.counter("gantry_scans_total", "Ended scans of tasks, by status."),
            run_queued: t.histogram(
                "gantry_run_queued_seconds",
                "Time from a run's creation to its first lease.",
                WORK,
            ),
            run_took: t.histogram(
                "gantry_run_duration_seconds",
                "Time from the lease of a run's last attempt to its end.",
                WORK,
            ),
            attempts: t.counter("gantry_attempts_total", "Attempts that this worker began."),
            lapses: t.counter(
                "gantry_lease_lapses_total",
                "Leases that expired because their worker did not renew them.",
            ),
            stages: t.histogram(
                "gantry_attempt_stage_seconds",
                "Duration of each completed stage of an attempt.",
                WORK,
            ),
            builds: t.counter("gantry_builds_total", "Builds on the engine, by result."),
            pushed: t.counter(
                "gantry_pushed_bytes_total",
                "Size of the pushed images, including layers that the registry already had.",
            ),
            slots: t.gauge("gantry_worker_slots", "Slots of this worker."),
            free_disk: t.gauge(
                "gantry_worker_free_disk_bytes",
                "The smaller free space of the disks for images and for sources.",
            ),
            takes_runs: t.gauge(
                "gantry_worker_takes_runs",
                "1 while this worker takes runs; 0 while its engine is unavailable, its disk is low or it is drained.",
            ),
            store: t.histogram(
                "gantry_store_operation_seconds",
                "Duration of the store's operations, including failures.",
                ANSWERS,
            ),
            store_failures: t.counter(
                "gantry_store_failures_total",
                "Failed operations of the store. A conflict is retried and harmless.",
            ),
            queue: t.histogram(
                "gantry_queue_operation_seconds",
                "Duration of the queue's operations, including failures.",
                ANSWERS,
            ),
            queue_failures: t.counter(
                "gantry_queue_failures_total",
                "Failed operations of the queue. Polling makes up for a lost doorbell.",
            ),
            doorbells: t.counter("gantry_doorbells_claimed_total", "Doorbells that were claimed."),
            engine: t.histogram(
                "gantry_engine_operation_seconds",
                "Duration of the container engine's operations, including failures.",
                WORK,
            ),
            engine_failures: t.counter(
                "gantry_engine_failures_total",
                "Failed operations of the container engine, including failed builds.",
            ),
            started: t.gauge(
                "gantry_start_timestamp_seconds",
                "When the process started, by the machine's clock.",
            ),
            build_info: t.gauge("gantry_build_info", "Always 1; the label is the version."),
            table,
        }
    }
}

/// The label with gantry's version.
#[derive(Clone, Copy, PartialEq)]
struct Version;

impl Label for Version {
    const NAME: &'static str = "version";
    const ALL: &'static [Self] = &[Self];

    fn word(self) -> &'static str {
        env!("CARGO_PKG_VERSION")
    }
}

/// Sets the metrics of the process itself; called once at its start.
#[expect(
    clippy::disallowed_methods,
    reason = "a process starts by its machine's clock, without a store"
)]
pub fn install() {
    let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    METRICS.started.set((), started.as_secs_f64());
    METRICS.build_info.set(Version, 1.0);
}

/// All metrics in Prometheus' text format 0.0.4.
#[must_use]
pub fn render() -> String {
    let mut text = String::new();
    let written =
        prometheus::TextEncoder::new().encode_utf8(&METRICS.table.registry.gather(), &mut text);
    if let Err(error) = written {
        tracing::error!("the metrics cannot be encoded: {error}");
    }
    text
}

/// The descriptions of all metrics.
#[must_use]
pub fn table() -> &'static [Description] {
    &METRICS.table.descriptions
}

/// Counts a request to a hook.
pub fn hook(provider: Provider, verdict: HookVerdict, took: Duration) {
    METRICS.hooks.add((provider, verdict), 1);
    METRICS.hook_answers.observe(provider, took);
}

/// Counts a request to the API.
pub fn api(answer: Answer, took: Duration) {
    METRICS.api_answers.observe(answer, took);
}

/// Counts a decision on a candidate, or on an event without candidates.
pub fn decided(outcome: Decided) {
    METRICS.decisions.add(outcome, 1);
}

/// Counts the events of a timer: how late each was committed, and how many missed instants fired or were dropped.
pub fn timer_fired(lateness: impl IntoIterator<Item = Duration>, late: usize, dropped: usize) {
    lateness.into_iter().for_each(|late| METRICS.timer_lateness.observe((), late));
    METRICS.timer_misfires.add(Misfired::Fired, late as u64);
    METRICS.timer_misfires.add(Misfired::Dropped, dropped as u64);
}

/// The state of the store as a scheduler found it.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Waiting runs.
    pub waiting: BTreeMap<(PoolName, Waiting), u64>,
    /// Ready runs.
    pub ready: BTreeMap<PoolName, u64>,
    /// How long the oldest ready run has been ready.
    pub oldest_ready: BTreeMap<PoolName, Duration>,
    /// Leased runs.
    pub leased: u64,
    /// The number of workers.
    pub workers: BTreeMap<PoolName, u64>,
    /// The slots of workers that take runs.
    pub slots: BTreeMap<PoolName, u64>,
    /// Records in quarantine.
    pub quarantined: u64,
    /// Bytes in use.
    pub store_used: u64,
    /// The capacity in bytes, if known.
    pub store_limit: Option<u64>,
}

/// Sets the gauges of the store's state.
pub fn seen(seen: &Seen) {
    let counts = |counts: &BTreeMap<PoolName, u64>| {
        counts.iter().map(|(pool, count)| (pool.clone(), number(*count))).collect()
    };
    let waiting = seen.waiting.iter().map(|(place, count)| (place.clone(), number(*count)));
    let oldest = seen.oldest_ready.iter().map(|(pool, age)| (pool.clone(), age.as_secs_f64()));
    METRICS.waiting.set(&waiting.collect());
    METRICS.ready.set(&counts(&seen.ready));
    METRICS.oldest_ready.set(&oldest.collect());
    METRICS.leased.set((), number(seen.leased));
    METRICS.workers.set(&counts(&seen.workers));
    METRICS.pool_slots.set(&counts(&seen.slots));
    METRICS.quarantined.set((), number(seen.quarantined));
    METRICS.store_used.set((), number(seen.store_used));
    if let Some(limit) = seen.store_limit {
        METRICS.store_limit.set((), number(limit));
    }
}

/// Sets the time of the last complete sweep, by the store's clock.
pub fn swept(at: Timestamp) {
    METRICS.last_sweep.set((), seconds(at));
}

/// Counts repairs of the sweeper.
pub fn repaired(what: Repair, how_many: usize) {
    METRICS.repairs.add(what, how_many as u64);
}

/// Counts an expired lease.
pub fn lease_lapsed() {
    METRICS.lapses.add((), 1);
}

/// Counts an attempt that this worker began, unless the run is hidden.
pub fn run_taken(run: &Run) {
    if run.is_hidden() {
        return;
    }
    METRICS.attempts.add((), 1);
    if let Some(lease) = run.state.lease().filter(|lease| lease.attempt == 1) {
        METRICS.run_queued.observe(run.run_type, between(run.created, lease.since));
    }
}

/// Counts a run or scan that this process ended. One that has not ended is ignored.
pub fn run_ended(run: &Run) {
    let Some(done) = run.state.done() else { return };
    let status = done.outcome.status();
    if run.purpose == Purpose::Scan {
        METRICS.scans.add(status, 1);
        return;
    }
    if run.purpose != Purpose::Execute {
        return;
    }
    METRICS.runs.add((run.run_type, status), 1);
    if let Some(started) = done.started {
        METRICS.run_took.observe(status, between(started, done.at));
    }
}

/// Records the duration of a completed stage of an attempt.
pub fn stage(stage: Stage, took: Duration) {
    METRICS.stages.observe(stage, took);
}

/// Counts a build on the engine.
pub fn build_ended(end: BuildEnd) {
    METRICS.builds.add(end, 1);
}

/// Counts the bytes of a pushed image.
pub fn pushed(bytes: u64) {
    METRICS.pushed.add((), bytes);
}

/// Sets the gauges of this worker.
pub fn worker(slots: u32, busy: usize, takes_runs: bool, free_disk: Option<u64>) {
    let busy = number(busy as u64);
    METRICS.slots.set(Slot::Busy, busy);
    METRICS.slots.set(Slot::Free, (f64::from(slots) - busy).max(0.0));
    METRICS.takes_runs.set((), f64::from(u8::from(takes_runs)));
    if let Some(free) = free_disk {
        METRICS.free_disk.set((), number(free));
    }
}

/// Records an operation of the store.
pub fn store(operation: StoreOperation, took: Duration, failure: Option<StoreFailure>) {
    METRICS.store.observe(operation, took);
    if let Some(failure) = failure {
        METRICS.store_failures.add((operation, failure), 1);
    }
}

/// Records an operation of the queue.
pub fn queue(doorbell: Doorbell, operation: QueueOperation, took: Duration, failed: bool) {
    METRICS.queue.observe((doorbell, operation), took);
    if failed {
        METRICS.queue_failures.add((doorbell, operation.into()), 1);
    }
}

/// Counts a claimed doorbell, or a failed claim.
pub fn claimed(doorbell: Doorbell, failed: bool) {
    if failed {
        METRICS.queue_failures.add((doorbell, QueueFailure::Claim), 1);
    } else {
        METRICS.doorbells.add(doorbell, 1);
    }
}

/// Records an operation of the engine.
pub fn engine(operation: EngineOperation, took: Duration, failed: bool) {
    METRICS.engine.observe(operation, took);
    if failed {
        METRICS.engine_failures.add(operation, 1);
    }
}

fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::from_millis(u64::try_from(to.as_millis() - from.as_millis()).unwrap_or_default())
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds of our time fit 53 bits")]
fn seconds(at: Timestamp) -> f64 {
    at.as_millis() as f64 / 1000.0
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is rounded anyway")]
fn number(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metric_names_follow_the_rule_and_labels_are_bounded() {
        for metric in table() {
            let name = metric.name;
            assert!(name.starts_with("gantry_"), "{name}");
            assert_eq!(metric.kind == "counter", name.ends_with("_total"), "{name}");
            assert_eq!(
                metric.kind == "histogram",
                name.ends_with("_seconds") && metric.kind != "gauge",
                "{name}"
            );
            assert!(
                metric.help.ends_with('.') || metric.help.ends_with(')'),
                "{name}: {}",
                metric.help
            );
            for (label, values) in &metric.labels {
                assert_eq!(values.is_empty(), *label == "pool", "{name}: {label} is open");
            }
            let series: usize =
                metric.labels.iter().map(|(_, values)| values.len().max(1)).product();
            assert!(series <= 128, "{name} has {series} series");
        }
    }

    #[test]
    fn metric_names_are_unique() {
        let mut names: Vec<&str> = table().iter().map(|metric| metric.name).collect();
        names.sort_unstable();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all);
    }

    #[test]
    fn uncounted_series_are_rendered_as_zero() {
        install();
        hook(Provider::GitHub, HookVerdict::Repeat, Duration::from_millis(3));
        let text = render();
        for line in [
            "# TYPE gantry_hooks_total counter",
            r#"gantry_hooks_total{provider="github",verdict="repeat"} 1"#,
            r#"gantry_hooks_total{provider="github",verdict="too_large"} 0"#,
            r#"gantry_hook_answer_seconds_bucket{provider="github",le="0.005"} 1"#,
            concat!(r#"gantry_build_info{version=""#, env!("CARGO_PKG_VERSION"), r#""} 1"#),
        ] {
            assert!(text.lines().any(|other| other == line), "{line} is not in:\n{text}");
        }
    }

    #[test]
    fn removed_pools_are_not_rendered_and_pools_are_limited() {
        let pool = |number: usize| format!("pool-{number}").parse::<PoolName>().unwrap();
        let shown =
            || render().lines().filter(|line| line.starts_with("gantry_waiting_runs{")).count();
        let waiting = |pools: usize| {
            (0..pools).map(|number| ((pool(number), Waiting::TaskLimit), 1)).collect()
        };
        seen(&Seen { waiting: waiting(1000), ..Seen::default() });
        assert_eq!(shown(), 32 * Waiting::ALL.len());
        seen(&Seen { waiting: waiting(1), ..Seen::default() });
        assert_eq!(shown(), Waiting::ALL.len());
        assert!(render().contains(r#"gantry_waiting_runs{pool="pool-0",reason="task_limit"} 1"#));
    }
}
