//! How long one of gantry's commands keeps Redis busy, so that it serves no other client.
//!
//! In: Redis's own measurement, from the first to the last instruction of a command. The sync of the append-only file
//! happens later, for all commands of an event-loop iteration together, and is not included. Time for which the system
//! runs other processes would be included, so Redis gets priority, which needs root; one workload also runs without
//! priority, to show the difference. The report also includes the longest stall of a process that never waits on this
//! machine.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use gantry_objects::ObjectBlobs;
use gantry_seams::archive;
use gantry_seams::runs::{self, RunFilter};
use gantry_sqlite::{Options, SqliteStore};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::Effort;
use crate::accept;
use crate::composition::{Parts, REGISTRY};
use crate::github;
use crate::load::{self, Volley, Webhook};
use crate::process::{self, Server};
use crate::pusher::Pusher;
use crate::report::{Details, Report, Row, say};
use crate::role::Role;
use crate::samples::Samples;
use crate::servers::Servers;
use crate::stored;

/// The limit for a commit, in milliseconds.
const MOST: f64 = 5.0;

/// The number of tasks that watch the repository: more than one commit decides.
const CANDIDATES: usize = 64;

/// How often a rare commit is made.
const TIMES: usize = 20;

/// The largest body that GitHub sends.
const LARGEST_HOOK: usize = (25 << 20) - 1024;

/// The time limit for deciding events.
const PATIENCE: Duration = Duration::from_secs(120);

/// Durations of commands in milliseconds.
struct Busy {
    commit_p50: f64,
    commit_p99: f64,
    commit_most: f64,
    other: String,
    other_most: f64,
    waited_for_core: f64,
}

/// The priority of Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CpuShare {
    /// Before all other processes.
    First,
    /// The system's default.
    Fair,
}

/// What gantry does during a measurement.
type Work = (&'static str, CpuShare, fn(Effort, &Servers, &Path) -> Result<()>);

const WORKS: [Work; 6] = [
    ("hooks of 8 KiB by 256 connections, decided", CpuShare::First, send_hooks),
    ("the same, Redis no sooner than others", CpuShare::Fair, send_hooks),
    ("a push that 64 tasks watch, decided", CpuShare::First, decide_many),
    ("an import, 200 changes in one commit", CpuShare::First, import),
    ("hooks of 1 MiB, one after the other", CpuShare::First, |_, servers, folder| {
        send_one_by_one(1 << 20, servers, folder)
    }),
    ("hooks of 25 MiB, one after the other", CpuShare::First, |_, servers, folder| {
        send_one_by_one(LARGEST_HOOK, servers, folder)
    }),
];

/// Measures each workload on a separate Redis, in each round.
pub(crate) fn measure(effort: Effort, report: &mut Report) -> Result<()> {
    let mut all = WORKS.map(|_| Vec::new());
    let mut stalls = Vec::new();
    for round in 1..=effort.rounds {
        stalls.push(longest_stall()?);
        for ((name, share, work), measured) in WORKS.iter().zip(&mut all) {
            let servers = start_servers(*share)?;
            let percentiles = ["latency-tracking-info-percentiles", "50 99 100"];
            servers.ask_redis(&["CONFIG", "SET", percentiles[0], percentiles[1]])?;
            let folder = process::folder()?;
            work(effort, &servers, folder.path()).with_context(|| (*name).to_owned())?;
            let busy = Busy::of(&servers)?;
            say(format_args!("  round {round}: at most {:.1} ms, {name}", busy.commit_most));
            measured.push(busy);
        }
    }
    let most = |rounds: &[Busy]| Samples::of(rounds.iter().map(|busy| busy.commit_most));
    let judged = WORKS.iter().zip(&all).filter(|((_, share, _), _)| *share == CpuShare::First);
    for ((name, ..), rounds) in judged {
        let most = most(rounds);
        report.row(Row {
            what: format!("the longest commit in Redis: {name}"),
            reach: "≤ 5 ms",
            measured: format!("{} ms", most.show(1)),
            reached: most.most() <= MOST,
        });
    }
    let stalls = vec!["a process that only runs".to_owned(), String::new(), String::new()]
        .into_iter()
        .chain([Samples::of(stalls).show(2), String::new(), String::new()]);
    let columns = [
        "",
        "commit p50",
        "commit p99",
        "commit, most",
        "the longest other command",
        "waited for a core, %",
    ];
    report.details(Details {
        title: "blocking: how long Redis was busy with one command, in ms".to_owned(),
        columns: columns.map(str::to_owned).into(),
        rows: WORKS
            .iter()
            .zip(&all)
            .map(|((name, ..), rounds)| {
                let of = |value: fn(&Busy) -> f64| Samples::of(rounds.iter().map(value)).show(2);
                let other = rounds.iter().max_by(|a, b| a.other_most.total_cmp(&b.other_most));
                let other = other.map(|busy| format!("`{}` {:.2}", busy.other, busy.other_most));
                let (p50, p99) = (of(|busy| busy.commit_p50), of(|busy| busy.commit_p99));
                let most = of(|busy| busy.commit_most);
                let waited = of(|busy| busy.waited_for_core * 100.0);
                vec![(*name).to_owned(), p50, p99, most, other.unwrap_or_default(), waited]
            })
            .chain([stalls.collect()])
            .collect(),
    });
    Ok(())
}

impl Busy {
    /// Reads what Redis measured since the last call of `forget`.
    fn of(servers: &Servers) -> Result<Self> {
        let text = servers.ask_redis(&["INFO", "latencystats"])?;
        let (mut commit, mut other) = (None, (String::new(), 0.0));
        for line in text.lines() {
            let Some((name, values)) = line
                .trim_end()
                .strip_prefix("latency_percentiles_usec_")
                .and_then(|line| line.split_once(':'))
            else {
                continue;
            };
            let values =
                values.split(',').filter_map(|value| value.split_once('=')?.1.parse().ok());
            let values: Vec<f64> = values.map(|micros: f64| micros / 1e3).collect();
            let [p50, p99, most] = *values.as_slice() else { continue };
            if name == "evalsha" {
                commit = Some((p50, p99, most));
            } else if most > other.1 {
                other = (name.to_owned(), most);
            }
        }
        let (commit_p50, commit_p99, commit_most) = commit.context("commits were made")?;
        let waited_for_core = process::waited_for_core(servers.redis_pid()?)?;
        let (other, other_most) = other;
        Ok(Self { commit_p50, commit_p99, commit_most, other, other_most, waited_for_core })
    }
}

fn start_servers(share: CpuShare) -> Result<Servers> {
    let servers = Servers::start()?;
    if share == CpuShare::First {
        process::put_first(servers.redis_pid()?)?;
    }
    Ok(servers)
}

/// The longest stall of a process that never waits, in milliseconds.
fn longest_stall() -> Result<f64> {
    let said = Command::new("redis-cli").args(["--intrinsic-latency", "2"]).output()?;
    let text = String::from_utf8(said.stdout)?;
    let mut so_far = text.lines().filter_map(|line| line.strip_prefix("Max latency so far: "));
    let longest = so_far.next_back().and_then(|words| words.split(' ').next()?.parse::<f64>().ok());
    Ok(longest.with_context(|| format!("no latency was told: {text}"))? / 1e3)
}

/// Resets Redis's statistics.
fn forget(servers: &Servers) -> Result<()> {
    servers.ask_redis(&["CONFIG", "RESETSTAT"]).map(drop)
}

fn start(servers: &Servers, folder: &Path) -> Result<[Server; 2]> {
    let start = |role: Role| role.start_on(folder, &servers.backend());
    Ok([start(Role::Ingress)?, start(Role::Scheduler)?])
}

fn send_hooks(effort: Effort, servers: &Servers, folder: &Path) -> Result<()> {
    let [ingress, _scheduler] = start(servers, folder)?;
    forget(servers)?;
    let volley = Volley { connections: 256, seconds: effort.seconds * 2.0, expected: 202 };
    load::fire(ingress.address, &[], &accept::signed_push()?, volley)?;
    Ok(())
}

fn send_one_by_one(bytes: usize, servers: &Servers, folder: &Path) -> Result<()> {
    let ingress = Role::Ingress.start_on(folder, &servers.backend())?;
    let body = github::push_of(bytes)?;
    let hook = Webhook::push(&accept::path(), &github::signature(&body)?, &body);
    forget(servers)?;
    Runtime::new()?.block_on(async {
        for _ in 0..TIMES {
            let status = load::send_one(ingress.address, &hook).await?;
            ensure!(status == 202, "a push was answered {status}");
        }
        Ok(())
    })
}

/// Pushes to a repository that more tasks watch than one commit decides.
fn decide_many(_: Effort, servers: &Servers, folder: &Path) -> Result<()> {
    let [ingress, _scheduler] = start(servers, folder)?;
    let stop = CancellationToken::new();
    Runtime::new()?.block_on(async {
        let parts = Parts::open_on(&servers.backend(), folder, &stop).await?;
        let mut pusher = Pusher::begin(&parts, ingress.address, CANDIDATES).await?;
        forget(servers)?;
        for number in 1..=TIMES {
            pusher.push().await?;
            until_created(&parts, number * CANDIDATES).await?;
        }
        Ok(())
    })
}

async fn until_created(parts: &Parts, count: usize) -> Result<()> {
    let created = async {
        loop {
            let filter = RunFilter::default();
            if runs::list(parts.store.as_ref(), &filter, None, count).await?.len() == count {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, created).await.context("events are not decided")?
}

/// Imports an archive into Redis, with as many runs as [`Effort`] specifies.
fn import(effort: Effort, servers: &Servers, folder: &Path) -> Result<()> {
    let (data, moved) = (folder.join("data"), folder.join("moved"));
    let stop = CancellationToken::new();
    Runtime::new()?.block_on(async {
        let parts = Parts::open(&data, &stop).await?;
        let build = stored::build("https://github.com/example/hello.git#main".parse()?)?;
        let registry = REGISTRY.parse()?;
        stored::create(&parts.store, &registry, &build, effort.runs_in_memory).await?;
        drop(parts);
        let store = SqliteStore::open(data.join("gantry.db"), Options::default())?;
        let blobs = ObjectBlobs::local(data.join("objects"))?;
        archive::export(&store, &blobs, &moved, "bench").await?;
        let into = servers.backend().store(folder).await?;
        forget(servers)?;
        archive::import(into.as_ref(), &blobs, &moved).await?;
        Ok(())
    })
}
