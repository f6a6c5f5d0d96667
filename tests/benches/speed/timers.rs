//! How late the events of timers are that are due at once, among many others, and what these cost meanwhile.
//!
//! A timer's lateness is the time from its instant to the return of the commit that has its event, while the whole
//! scheduler runs. It is measured beside commits of as many records, of which nothing is read or decided, and beside
//! APScheduler's jobs.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use async_trait::async_trait;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use gantry_domain::run::Run;
use gantry_domain::task::Status;
use gantry_domain::timer::{CatchUp, Misfire, Overlap, Timer, Timers};
use gantry_domain::timestamp::Timestamp;
use gantry_seams::runs::{self, RunFilter};
use gantry_seams::store::{
    Batch, CommitError, Entry, From, Index, Key, Kind, Record, Room, SharedStore, Store,
    StoreError, Watch,
};
use tokio_util::sync::CancellationToken;

use crate::Effort;
use crate::backend::Backend;
use crate::composition::Parts;
use crate::filled;
use crate::process;
use crate::report::{Details, Report, Row, say};
use crate::role::Role;
use crate::samples::{Samples, milliseconds};
use crate::servers::Servers;

/// The number of timers of each task, which is the most.
const EACH: usize = 20;

/// The least time between saving the last timer and its instant: the scheduler starts in between.
const AHEAD: Duration = Duration::from_secs(3);

/// The time for saving one task, on a busy machine.
const SAVED_WITHIN: Duration = Duration::from_millis(20);

/// The time limit for firing all timers, and how long it is watched how many of their runs are queued.
const WITHIN: Duration = Duration::from_secs(180);
const QUEUED_WITHIN: Duration = Duration::from_secs(120);

/// How long a process needs to become idle, and how long it is watched then.
const SETTLE: Duration = Duration::from_secs(10);
const REST: Duration = Duration::from_secs(60);

/// The 99th percentile of the lateness of the fewer timers, and that of the more ones in each mode, in ms.
const REACH_FEW: f64 = 250.0;
const REACH_MANY: [f64; 2] = [1_000.0, 2_000.0];

/// What one timer writes: its record and its event, of about these many bytes, and its places in three indexes. A commit
/// of the limit has so many of them.
const RECORDS: [usize; 2] = [350, 300];
const INDEXES: [&str; 3] = ["bench/due", "bench/age", "bench/undecided"];
const A_COMMIT: usize = 48;
const AT_ONCE: usize = 4;

/// The peer, from Python's package index, and what its store on disk needs.
const PEER: [&str; 2] = ["apscheduler==3.11.3", "sqlalchemy==2.0.44"];

/// Measures both stores, and the peer.
pub(crate) fn measure(effort: Effort, report: &mut Report) -> Result<()> {
    let (stored, due) = effort.timers;
    let mut rows = Vec::new();
    let mut idle = Vec::new();
    for is_scaled in [false, true] {
        let name = if is_scaled { "scaled" } else { "embedded" };
        let mut measured: [Measured; 2] = Default::default();
        for round in 0..effort.rounds {
            let servers = is_scaled.then(Servers::start).transpose()?;
            let backend = servers.as_ref().map_or(Backend::Embedded, Servers::backend);
            let folder = process::folder()?;
            let watch = |timers| cost_of_rest(timers, &backend, folder.path(), servers.as_ref());
            if round == 0 {
                idle.push(watch(0)?);
            }
            on(&backend, folder.path(), async |parts, _| fill(parts, stored).await)?;
            if round == 0 {
                idle.push(watch(stored)?);
            }
            for (number, (count, measured)) in due.into_iter().zip(&mut measured).enumerate() {
                on(&backend, folder.path(), async |parts, seen| {
                    fire(parts, seen, number, count, measured).await
                })?;
            }
        }
        let reaches = [REACH_FEW, REACH_MANY[usize::from(is_scaled)]];
        for ((count, measured), reach) in due.into_iter().zip(&measured).zip(reaches) {
            let late = measured.p99();
            report.row(Row {
                what: format!("fire {count} of {stored} timers at once, {name}"),
                reach: match reach {
                    REACH_FEW => "p99 ≤ 250 ms after the instant; each once",
                    1_000.0 => "p99 ≤ 1 s after the instant; each once",
                    _ => "p99 ≤ 2 s after the instant; each once",
                },
                measured: format!("{} ms; each once", late.show(0)),
                reached: late.most() <= reach,
            });
            rows.push(measured.row(format!("gantry, {name}"), count));
        }
    }
    match Peer::install() {
        Ok(peer) => {
            for count in due {
                rows.push(peer.measure(count, effort.rounds)?.row("APScheduler".to_owned(), count));
            }
        }
        Err(error) => say(format_args!("  without the peer: {error:#}")),
    }
    report.details(Details {
        title: "timers: after the instant, in ms".to_owned(),
        columns: [
            "who",
            "timers due",
            "p50",
            "p99",
            "last",
            "limit: commits as large, with nothing read",
            "runs queued",
        ]
        .map(str::to_owned)
        .into(),
        rows,
    });
    report.details(Details {
        title: "timers: at rest, ms of processor in a minute".to_owned(),
        columns: ["who", "timers stored", "gantry", "Redis"].map(str::to_owned).into(),
        rows: idle,
    });
    Ok(())
}

/// The measurements of some rounds, in ms.
#[derive(Debug, Default)]
struct Measured {
    late: Vec<Samples>,
    /// How long commits of as many records take.
    limit: Vec<f64>,
    /// How many runs were queued, and when the last of them was.
    queued: Vec<String>,
}

impl Measured {
    fn p99(&self) -> Samples {
        Samples::of(self.late.iter().map(|late| late.quantile(0.99)))
    }

    fn row(&self, who: String, count: usize) -> Vec<String> {
        let of = |part| Samples::of(self.late.iter().map(|late| late.quantile(part))).show(0);
        let limit = match self.limit.as_slice() {
            [] => String::new(),
            limit => Samples::of(limit.iter().copied()).show(0),
        };
        vec![who, count.to_string(), of(0.5), of(0.99), of(1.0), limit, self.queued.join(" · ")]
    }
}

/// Opens an installation and does something in it.
fn on(
    backend: &Backend,
    folder: &Path,
    act: impl AsyncFnOnce(&Parts, &Seen) -> Result<()>,
) -> Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let (stop, seen) = (CancellationToken::new(), Arc::<Seen>::default());
        let store = backend.store(folder).await?;
        let store: SharedStore = Arc::new(Watched { store, seen: Arc::clone(&seen) });
        let parts = Parts::on(store, backend.queues(&stop).await?, folder).await?;
        parts.set_up("registry.test").await?;
        act(&parts, &seen).await?;
        stop.cancel();
        anyhow::Ok(())
    })?;
    runtime.shutdown_timeout(Duration::from_secs(5));
    Ok(())
}

/// Saves timers that are due in half a year.
async fn fill(parts: &Parts, timers: usize) -> Result<()> {
    let began = Instant::now();
    let month = (u8::from(parts.store.now().await?.to_utc().month()) + 5) % 12 + 1;
    save(parts, "idle", timers, &format!("0 0 1 {month} *")).await?;
    say(format_args!("  {timers} timers, saved in {:.0} s", began.elapsed().as_secs_f64()));
    Ok(())
}

async fn save(parts: &Parts, name: &str, timers: usize, schedule: &str) -> Result<()> {
    for number in 0..timers.div_ceil(EACH) {
        let mut task = filled::task(&format!("{name}-{number}"), 0, parts.store.now().await?)?;
        let timers = (0..EACH.min(timers - number * EACH)).map(|timer| {
            Ok(Timer {
                name: format!("t{timer}").parse()?,
                schedule: schedule.parse()?,
                timezone: Default::default(),
                status: Status::Enabled,
                misfire: Misfire::default(),
                catch_up: CatchUp::default(),
                overlap: Overlap::default(),
            })
        });
        task.timers = Timers::try_from(timers.collect::<Result<Vec<_>>>()?)?;
        filled::save(&parts.store, &task).await?;
    }
    Ok(())
}

/// Saves timers that are due at a full minute, and runs a scheduler until it has decided their events, or for two minutes.
async fn fire(
    parts: &Parts,
    seen: &Seen,
    number: usize,
    count: usize,
    measured: &mut Measured,
) -> Result<()> {
    measured.limit.push(commit_as_much(&parts.store, count).await?);
    let saving = AHEAD + SAVED_WITHIN * u32::try_from(count.div_ceil(EACH))?;
    let minute = 60_000;
    let due = (parts.store.now().await?.after(saving).as_millis() / minute + 1) * minute;
    let due = Timestamp::from_millis(due);
    let at = due.to_utc();
    save(parts, &format!("due-{number}"), count, &format!("{} {} * * *", at.minute(), at.hour()))
        .await?;
    ensure!(wall_clock() < due, "saving {count} timers took too long");

    let stop = CancellationToken::new();
    let running = tokio::spawn(parts.scheduler().run(stop.clone()));
    let began = Instant::now();
    while seen.fired() < count {
        ensure!(began.elapsed() < WITHIN, "{} of {count} timers fired", seen.fired());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let began = Instant::now();
    while seen.decided() < count && began.elapsed() < QUEUED_WITHIN {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stop.cancel();
    running.await?;

    let fired = seen.take();
    ensure!(fired.twice.is_empty(), "there are two events for {:?}", fired.twice);
    ensure!(fired.events.len() == count, "{} of {count} timers fired", fired.events.len());
    let keys: Vec<Key> = fired.events.keys().map(|id| Key::new(Kind::Event, id)).collect();
    for keys in keys.chunks(512) {
        let stored = parts.store.load(keys).await?;
        ensure!(stored.iter().all(Option::is_some), "an event is not stored");
    }
    let (runs, decided) = (runs_of(parts, number).await?, fired.decisions.len());
    ensure!(runs == decided, "there are {runs} runs for {decided} decisions");
    let after = |at: Timestamp| milliseconds(at.since(due));
    measured.late.push(Samples::of(fired.events.values().map(|at| after(*at))));
    let last = fired.decisions.values().map(|at| after(*at)).fold(0.0, f64::max);
    measured.queued.push(format!("{decided} after {:.1} s", last / 1e3));
    Ok(())
}

/// The number of runs of the timers of this round.
async fn runs_of(parts: &Parts, number: usize) -> Result<usize> {
    let (store, all, name) = (parts.store.as_ref(), RunFilter::default(), format!("due-{number}-"));
    let is_one =
        |run: &&Run| run.task.as_ref().is_some_and(|task| task.name.as_str().starts_with(&name));
    let (mut count, mut last) = (0, None);
    loop {
        let page = runs::list(store, &all, last.as_ref(), 512).await?;
        count += page.iter().filter(is_one).count();
        last = page.into_iter().next_back();
        if last.is_none() {
            return Ok(count);
        }
    }
}

/// What the store needs for the records of as many timers, if nobody reads or decides anything.
async fn commit_as_much(store: &SharedStore, count: usize) -> Result<f64> {
    let numbers: Vec<usize> = (0..count).collect();
    let batches = numbers.chunks(A_COMMIT).map(|numbers| {
        let mut batch = Batch::default();
        for number in numbers {
            for (place, size) in RECORDS.into_iter().enumerate() {
                let key = Key::new(Kind::Quarantine, format!("bench-{count}-{number}-{place}"));
                batch.put(key, vec![b'x'; size]);
            }
            for index in INDEXES {
                batch.index(Index::new(index), 0, format!("bench-{count}-{number}"));
            }
        }
        batch
    });
    let batches: Vec<Batch> = batches.collect();
    let began = Instant::now();
    let commits = batches.into_iter().map(|batch| store.commit(batch));
    stream::iter(commits).buffer_unordered(AT_ONCE).try_for_each(|()| async { Ok(()) }).await?;
    Ok(milliseconds(began.elapsed()))
}

/// The processor time that an idle gantry and its Redis use in a minute.
fn cost_of_rest(
    timers: usize,
    backend: &Backend,
    folder: &Path,
    servers: Option<&Servers>,
) -> Result<Vec<String>> {
    let (role, who) = match backend {
        Backend::Embedded => (Role::Up, "`gantry up`"),
        Backend::Scaled { .. } => (Role::Scheduler, "scheduler"),
    };
    let server = role.start_on(folder, backend)?;
    std::thread::sleep(SETTLE);
    let redis = servers.map(Servers::redis_pid).transpose()?;
    let used = || {
        let of_redis = redis.map(process::processor_time).transpose()?.unwrap_or_default();
        anyhow::Ok([process::processor_time(server.pid())?, of_redis])
    };
    let before = used()?;
    std::thread::sleep(REST);
    let [of_gantry, of_redis] = used()?;
    let shown = |used: Duration, before: Duration| format!("{:.0}", milliseconds(used - before));
    Ok(vec![
        who.to_owned(),
        timers.to_string(),
        shown(of_gantry, before[0]),
        redis.map_or(String::new(), |_| shown(of_redis, before[1])),
    ])
}

/// When the events of timers were committed, and the decisions on them.
#[derive(Debug, Default)]
struct Seen(Mutex<Commits>);

#[derive(Debug, Default)]
struct Commits {
    events: HashMap<String, Timestamp>,
    decisions: HashMap<String, Timestamp>,
    /// Events that were committed a second time.
    twice: Vec<String>,
}

impl Seen {
    fn fired(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).events.len()
    }

    fn decided(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).decisions.len()
    }

    fn take(&self) -> Commits {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn add(&self, committed: Vec<Key>, at: Timestamp) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for Key { kind, id } in committed {
            if kind == Kind::Decision {
                seen.decisions.insert(id, at);
            } else if seen.events.insert(id.clone(), at).is_some() {
                seen.twice.push(id);
            }
        }
    }
}

/// A store that observes the commits of timers' events.
struct Watched {
    store: SharedStore,
    seen: Arc<Seen>,
}

#[async_trait]
impl Store for Watched {
    async fn load(&self, keys: &[Key]) -> Result<Vec<Option<Record>>, StoreError> {
        self.store.load(keys).await
    }

    async fn range(
        &self,
        index: &Index,
        from: From,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        self.store.range(index, from, limit).await
    }

    async fn commit(&self, batch: Batch) -> Result<(), CommitError> {
        let of_timer = |key: &&Key| {
            matches!(key.kind, Kind::Event | Kind::Decision) && key.id.starts_with("timer:")
        };
        let keys: Vec<Key> =
            batch.put.iter().map(|(key, _)| key).filter(of_timer).cloned().collect();
        self.store.commit(batch).await?;
        self.seen.add(keys, wall_clock());
        Ok(())
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        self.store.now().await
    }

    async fn room(&self) -> Result<Room, StoreError> {
        self.store.room().await
    }

    fn watch(&self, key: &Key) -> Watch {
        self.store.watch(key)
    }
}

/// The clock that both stores follow.
#[allow(
    clippy::disallowed_methods,
    reason = "asking the store would be a part of what is measured"
)]
fn wall_clock() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// APScheduler, with jobs in SQLite.
struct Peer {
    python: std::path::PathBuf,
}

impl Peer {
    /// Installs it, unless it is installed.
    fn install() -> Result<Self> {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("apscheduler");
        let python = folder.join("bin/python");
        let said = Command::new("python3").args(["-m", "venv"]).arg(&folder).output()?;
        ensure!(
            said.status.success(),
            "there is no venv: {}",
            String::from_utf8_lossy(&said.stderr)
        );
        let said =
            Command::new(&python).args(["-m", "pip", "install", "--quiet"]).args(PEER).output()?;
        ensure!(said.status.success(), "pip: {}", String::from_utf8_lossy(&said.stderr).trim());
        Ok(Self { python })
    }

    fn measure(&self, count: usize, rounds: usize) -> Result<Measured> {
        let mut measured = Measured::default();
        for _ in 0..rounds {
            let folder = process::folder()?;
            let mut command = Command::new(&self.python);
            command.args(["-c", include_str!("apscheduler.py")]);
            let said =
                command.arg(folder.path().join("jobs.db")).arg(count.to_string()).output()?;
            let why = String::from_utf8_lossy(&said.stderr);
            ensure!(said.status.success(), "the peer ended with {}: {why}", said.status);
            let late = String::from_utf8(said.stdout)?;
            let late = late.lines().map(str::parse).collect::<Result<Vec<f64>, _>>();
            measured.late.push(Samples::of(late.context("the peer prints numbers")?));
        }
        Ok(measured)
    }
}
