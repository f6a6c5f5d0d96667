//! Whether frequent operations take as long in a full store as in a small one, and what a full store costs when idle.

use std::fmt;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use gantry_domain::id::{LeaseNonce, RunId, WorkerId};
use gantry_domain::platform::Platform;
use gantry_domain::run::{Outcome, Product};
use gantry_domain::step::Steps;
use gantry_scheduler::Scheduler;
use gantry_seams::runs::{self, Finish};
use http_body_util::Full;
use hyper::Request;
use hyper::header::{AUTHORIZATION, HOST};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::Effort;
use crate::accept;
use crate::backend::Backend;
use crate::composition::Parts;
use crate::exchange::exchange;
use crate::filled::{self, HEAD, OLDEST, RARE, Size};
use crate::github;
use crate::load::{self, Webhook};
use crate::process;
use crate::reads::{Reads, Watched};
use crate::report::{Details, Report, Row, say};
use crate::role::Role;
use crate::samples::{Samples, milliseconds};
use crate::servers::Servers;
use crate::start;
use crate::take;

/// How long a process needs to become idle.
const SETTLE: Duration = Duration::from_secs(10);

/// How long the idle scheduler is watched.
const REST: Duration = Duration::from_secs(10);

/// How often each operation is measured.
const TIMES: usize = 9;

/// The allowed ratio of the full store to the small one, and the allowed absolute difference: for one more page of an
/// index, or a slow disk access.
const RATIO: f64 = 1.5;
const SLACK_MS: f64 = 1.0;
const SLACK_THINGS: u64 = 60;

/// The operations, in the order of the table.
const DEEDS: [&str; 14] = [
    "first page of runs",
    "runs with `status=Succeeded`, which only the oldest have",
    "runs with `image=`, which only the oldest pushed",
    "runs of a task",
    "last page of runs",
    "show a run",
    "first page of tasks",
    "`gantry status`",
    "accept a push",
    "decide it and admit its 10 runs",
    "take a run",
    "finish it",
    "a retention pass",
    "a second of the scheduler at rest",
];

/// The measurements of one operation.
#[derive(Debug, Default)]
struct Deed {
    took_ms: Vec<f64>,
    questions: u64,
    things: u64,
}

/// Measures both stores, each small and full.
pub(crate) fn measure(effort: Effort, report: &mut Report) -> Result<()> {
    for is_scaled in [false, true] {
        let name = if is_scaled { "scaled" } else { "embedded" };
        let mut measured = Vec::new();
        for size in effort.scale {
            say(format_args!("  {name}, {size}"));
            let servers = is_scaled.then(Servers::start).transpose()?;
            let backend = servers.as_ref().map_or(Backend::Embedded, Servers::backend);
            let folder = process::folder()?;
            let runtime = tokio::runtime::Runtime::new()?;
            measured.push(runtime.block_on(do_all(&backend, folder.path(), size))?);
            runtime.shutdown_timeout(Duration::from_secs(1));
            if size.runs == effort.scale[1].runs {
                rest(name, size, &backend, folder.path(), servers.as_ref(), report)?;
            }
        }
        tell(name, effort.scale, &measured, report);
    }
    Ok(())
}

fn tell(name: &str, [small, full]: [Size; 2], measured: &[Vec<Deed>], report: &mut Report) {
    let (mut rows, mut risen) = (Vec::new(), Vec::new());
    let mut most = 0.0_f64;
    for (place, what) in DEEDS.iter().enumerate() {
        let [before, after] = [0, 1].map(|size| &measured[size][place]);
        let [slow, slower] = [before, after].map(|deed| Samples::of(deed.took_ms.iter().copied()));
        let ratio = slower.median() / slow.median();
        most = most.max(ratio);
        let is_slower = ratio > RATIO && slower.median() - slow.median() > SLACK_MS;
        if is_slower || after.things > before.things + SLACK_THINGS {
            risen.push(*what);
        }
        rows.push(vec![
            (*what).to_owned(),
            slow.show(2),
            slower.show(2),
            format!("{ratio:.2}"),
            format!("{} → {}", before.questions, after.questions),
            format!("{} → {}", before.things, after.things),
        ]);
    }
    let shown = if risen.is_empty() {
        "none rises".to_owned()
    } else {
        format!("rise: {}", risen.join(", "))
    };
    report.row(Row {
        what: format!("{} deeds with {full}, beside {small}, {name}", DEEDS.len()),
        reach: "flat: each ≤ 1.5 × or + 1 ms, and reads no more",
        measured: format!("{shown}; at most {most:.2} ×"),
        reached: risen.is_empty(),
    });
    let small = format!("{small}, ms");
    let full = format!("{full}, ms");
    report.details(Details {
        title: format!("scale, {name}"),
        columns: ["what", &small, &full, "ratio", "questions to the store", "things read"]
            .map(str::to_owned)
            .into(),
        rows,
    });
}

/// Fills an installation in this process, and measures all operations in it.
async fn do_all(backend: &Backend, folder: &Path, size: Size) -> Result<Vec<Deed>> {
    let stop = CancellationToken::new();
    let (store, reads) = Watched::shared(backend.store(folder).await?);
    let parts = Parts::on(store, backend.queues(&stop).await?, folder).await?;
    let began = Instant::now();
    let ids = filled::fill(&parts, size).await?;
    say(format_args!("  filled in {:.0} s", began.elapsed().as_secs_f64()));

    let token = gantry_ingress::bootstrap_admin_token(parts.store.as_ref()).await?;
    let token = token.context("it is new")?.to_string();
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let serving = tokio::spawn(parts.serve(listener, stop.clone()));
    let scheduler = parts.scheduler();
    let mut bench = Bench { parts, scheduler, address, token, reads, pushed: 0 };
    let mut deeds: Vec<Deed> = DEEDS.iter().map(|_| Deed::default()).collect();
    for _ in 0..TIMES {
        bench.do_each_once(&ids, &mut deeds).await?;
    }
    stop.cancel();
    serving.await??;
    let last = DEEDS.len() - 1;
    deeds[last] = bench.watch_rest().await?;
    Ok(deeds)
}

struct Bench {
    parts: Parts,
    scheduler: Scheduler,
    address: SocketAddr,
    token: String,
    reads: Arc<Reads>,
    pushed: usize,
}

impl Bench {
    async fn do_each_once(&mut self, ids: &[RunId], deeds: &mut [Deed]) -> Result<()> {
        let some = ids.get(ids.len() / 2).context("there are runs")?;
        // Fewer runs than a page follow it.
        let near_the_end = ids.get(OLDEST + 20).context("there are runs")?;
        let pages = [
            "/runs".to_owned(),
            "/runs?status=Succeeded".to_owned(),
            format!("/runs?image={RARE}"),
            "/runs?registry=bench&task=task-1".to_owned(),
            format!("/runs?after={near_the_end}"),
            format!("/runs/{some}"),
            "/tasks".to_owned(),
            "/status".to_owned(),
        ];
        for (page, deed) in pages.iter().zip(&mut *deeds) {
            let began = self.begin();
            let answer = self.ask(page).await?;
            self.end(began, deed);
            ensure!(answer.len() > 100, "{page} shows little: {answer:?}");
        }
        let [.., accept, decide, taking, finish, retention, _rest] = deeds else {
            anyhow::bail!("there are more deeds than pages");
        };
        let hook = self.next_push()?;
        let began = self.begin();
        let status = load::send_one(self.address, &hook).await?;
        self.end(began, accept);
        ensure!(status == 202, "a push was answered {status}");

        let began = self.begin();
        while self.scheduler.tick().await? {}
        self.end(began, decide);
        self.take_all(taking, finish).await?;

        let began = self.begin();
        self.scheduler.keeper().forget_old().await?;
        self.end(began, retention);
        Ok(())
    }

    /// A push to a different repository than the previous one.
    fn next_push(&mut self) -> Result<Webhook> {
        let body = github::push(&filled::repository(self.pushed), HEAD, &"b".repeat(40))?;
        self.pushed += 1;
        Ok(Webhook::push(&accept::path(), &github::signature(&body)?, &body))
    }

    /// Leases and ends every run, including those that wait for a limit at first.
    async fn take_all(&self, taking: &mut Deed, finish: &mut Deed) -> Result<()> {
        let store = self.parts.store.as_ref();
        let (worker, nonce): (WorkerId, LeaseNonce) =
            ("worker-0".parse()?, "1".repeat(32).parse()?);
        let pool = Platform::default().pool();
        loop {
            while !runs::all_ready(store, 1).await?.is_empty() {
                let began = self.begin();
                let (run, holder) = take::take_one(store, &pool, &worker, &nonce).await?;
                self.end(began, taking);
                let began = self.begin();
                let succeeded = Finish::Outcome(Outcome::Succeeded(Product::default()));
                runs::finish(store, run.id, &holder, succeeded, &Steps::default()).await?;
                self.end(began, finish);
            }
            if !self.scheduler.tick().await? {
                return Ok(());
            }
        }
    }

    async fn watch_rest(&self) -> Result<Deed> {
        let stop = CancellationToken::new();
        let (questions, things) = self.reads.so_far();
        let running = tokio::spawn(self.scheduler.clone().run(stop.clone()));
        tokio::time::sleep(REST).await;
        let (questions_now, things_now) = self.reads.so_far();
        stop.cancel();
        running.await?;
        let seconds = REST.as_secs();
        Ok(Deed {
            took_ms: vec![1000.0],
            questions: (questions_now - questions) / seconds,
            things: (things_now - things) / seconds,
        })
    }

    async fn ask(&self, path: &str) -> Result<Bytes> {
        let request = Request::get(format!("/api/v1{path}"))
            .header(HOST, "gantry")
            .header(AUTHORIZATION, format!("Bearer {}", self.token))
            .body(Full::<Bytes>::default())?;
        exchange(TcpStream::connect(self.address).await?, request).await
    }

    fn begin(&self) -> (Instant, (u64, u64)) {
        (Instant::now(), self.reads.so_far())
    }

    fn end(&self, (began, (questions, things)): (Instant, (u64, u64)), deed: &mut Deed) {
        deed.took_ms.push(milliseconds(began.elapsed()));
        let now = self.reads.so_far();
        deed.questions = deed.questions.max(now.0 - questions);
        deed.things = deed.things.max(now.1 - things);
    }
}

/// Starts gantry on a full store, and measures its idle memory.
fn rest(
    name: &str,
    size: Size,
    backend: &Backend,
    folder: &Path,
    servers: Option<&Servers>,
    report: &mut Report,
) -> Result<()> {
    let roles: &[(Role, &str)] = match backend {
        Backend::Embedded => &[(Role::Up, "gantry up")],
        Backend::Scaled { .. } => {
            &[(Role::Ingress, "ingress"), (Role::Scheduler, "scheduler"), (Role::Worker, "worker")]
        }
    };
    let (mut started, mut rows) = (Vec::new(), Vec::new());
    for (role, _) in roles {
        let began = Instant::now();
        let server = role.start_on(folder, backend)?;
        if matches!(role, Role::Up | Role::Ingress) {
            start::answers(server.address)?;
        }
        started.push((server, milliseconds(began.elapsed())));
    }
    std::thread::sleep(SETTLE);
    let (mut slowest, mut largest) = (0.0_f64, 0.0_f64);
    for ((_, role), (server, ready)) in roles.iter().zip(&started) {
        let idle = process::memory(server.pid())?.resident;
        (slowest, largest) = (slowest.max(*ready), largest.max(idle));
        rows.push(vec![(*role).to_owned(), format!("{ready:.0}"), format!("{idle:.0}")]);
    }
    if let Some(servers) = servers {
        let used: f64 = servers.redis_info("memory", "used_memory")?.parse()?;
        rows.push(vec![
            "Redis".to_owned(),
            String::new(),
            format!("{:.0}", used / f64::from(1 << 20)),
        ]);
    }
    report.row(Row {
        what: format!("start with {size}, {name}"),
        reach: "≤ 1 s; idle ≤ 100 MiB",
        measured: format!("{slowest:.0} ms; idle {largest:.0} MiB"),
        reached: slowest <= 1000.0 && largest <= 100.0,
    });
    report.details(Details {
        title: format!("scale, {name}: {size}"),
        columns: ["who", "ready after, ms", "idle, MiB"].map(str::to_owned).into(),
        rows,
    });
    Ok(())
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} runs, {} tasks, {} repositories", self.runs, self.tasks, self.repositories)
    }
}
