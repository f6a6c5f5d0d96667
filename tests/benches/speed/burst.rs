//! A burst: many hooks over many connections at once. Each is answered 202 or 503, memory is bounded, and everything
//! that was answered 202 is decided.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use gantry_domain::delivery::Verdict;
use gantry_domain::id::RunPrefix;
use gantry_seams::deliveries;
use http_body_util::Full;
use hyper::Request;
use hyper::header::{AUTHORIZATION, HOST};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::Effort;
use crate::accept;
use crate::backend::Backend;
use crate::composition::Parts;
use crate::exchange::exchange;
use crate::github;
use crate::load::{Connection, Webhook};
use crate::process;
use crate::report::{Details, Report, Row, say};
use crate::role::Role;
use crate::samples::Samples;
use crate::servers::Servers;

const CONNECTIONS: usize = 512;

/// The limit for the growth of the server's memory, in MiB: the budget for bodies is 256 MiB.
const MOST_MIB: f64 = 256.0;

/// More deliveries than are accepted in a millisecond.
const NEWEST: usize = 50;

/// The time limit for deciding events.
const PATIENCE: Duration = Duration::from_secs(300);

/// The result of one burst.
#[derive(Debug)]
struct Burst {
    answers: BTreeMap<u16, usize>,
    answered_s: f64,
    decided_s: f64,
    memory_before: f64,
    memory_most: f64,
}

/// Measures bursts in both modes.
pub(crate) fn measure(effort: Effort, report: &mut Report) -> Result<()> {
    let mut rows = Vec::new();
    for is_scaled in [false, true] {
        let name = if is_scaled { "scaled" } else { "embedded" };
        let bursts = (0..effort.rounds).map(|_| burst(is_scaled, effort.burst));
        let bursts = bursts.collect::<Result<Vec<_>>>()?;
        let all = |of: fn(&Burst) -> f64| Samples::of(bursts.iter().map(of));
        let rise = all(|burst| burst.memory_most - burst.memory_before);
        let mut answers = BTreeMap::new();
        for (status, count) in bursts.iter().flat_map(|burst| &burst.answers) {
            *answers.entry(*status).or_insert(0) += count;
        }
        let shown: Vec<String> =
            answers.iter().map(|(status, count)| format!("{count} × {status}")).collect();
        let decided = all(|burst| burst.decided_s);
        report.row(Row {
            what: format!(
                "{} hooks of 8 KiB at once by {CONNECTIONS} connections, {name}",
                effort.burst
            ),
            reach: "202 or 503, all 202 decided; memory rises ≤ 256 MiB",
            measured: format!(
                "{}; decided after {} s; +{} MiB",
                shown.join(", "),
                decided.show(1),
                rise.show(0)
            ),
            reached: answers.keys().all(|status| [202, 503].contains(status))
                && rise.most() <= MOST_MIB,
        });
        rows.push(vec![
            name.to_owned(),
            all(|burst| burst.answered_s).show(1),
            decided.show(1),
            all(|burst| burst.memory_before).show(0),
            all(|burst| burst.memory_most).show(0),
        ]);
    }
    report.details(Details {
        title: format!("burst: {} hooks at once", effort.burst),
        columns: [
            "mode",
            "all answered after, s",
            "all decided after, s",
            "MiB before",
            "MiB at most",
        ]
        .map(str::to_owned)
        .into(),
        rows,
    });
    Ok(())
}

fn burst(is_scaled: bool, count: usize) -> Result<Burst> {
    let servers = is_scaled.then(Servers::start).transpose()?;
    let backend = servers.as_ref().map_or(Backend::Embedded, Servers::backend);
    let folder = process::folder()?;
    let runtime = tokio::runtime::Runtime::new()?;
    let token = runtime.block_on(begin(&backend, folder.path()))?;
    let server =
        if is_scaled { Role::Ingress } else { Role::Up }.start_on(folder.path(), &backend)?;
    let deciding = is_scaled.then(|| Role::Scheduler.start_on(folder.path(), &backend));
    let deciding = deciding.transpose()?;

    process::forget_peak(server.pid())?;
    let memory_before = process::memory(server.pid())?.resident;
    let began = Instant::now();
    let answers = runtime.block_on(send(server.address, count))?;
    let answered_s = began.elapsed().as_secs_f64();
    runtime.block_on(until_decided(server.address, &token))?;
    let decided_s = began.elapsed().as_secs_f64();
    let memory_most = process::memory(server.pid())?.peak;
    say(format_args!(
        "  {answers:?}: answered after {answered_s:.1} s, decided after {decided_s:.1} s"
    ));

    // Only one process can have the store open.
    drop((server, deciding));
    let accepted = answers.get(&202).copied().unwrap_or(0);
    runtime.block_on(ensure_kept(&backend, folder.path(), accepted))?;
    Ok(Burst { answers, answered_s, decided_s, memory_before, memory_most })
}

/// Creates the installation and a token.
async fn begin(backend: &Backend, folder: &std::path::Path) -> Result<String> {
    let parts = Parts::open_on(backend, folder, &CancellationToken::new()).await?;
    parts.set_up("registry.test").await?;
    let token = gantry_ingress::bootstrap_admin_token(parts.store.as_ref()).await?;
    Ok(token.context("it is new")?.to_string())
}

/// Sends the hooks, distributed over the connections, after all have connected. Returns how often each status was
/// answered.
async fn send(address: SocketAddr, count: usize) -> Result<BTreeMap<u16, usize>> {
    let hook = accept::signed_push()?;
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(Connection::open(address).await?);
    }
    let mut senders = JoinSet::new();
    for (place, connection) in connections.into_iter().enumerate() {
        let part = count / CONNECTIONS + usize::from(place < count % CONNECTIONS);
        senders.spawn(send_some(connection, hook.clone(), place, part));
    }
    let mut answers = BTreeMap::new();
    while let Some(sent) = senders.join_next().await {
        for status in sent?? {
            *answers.entry(status).or_insert(0) += 1;
        }
    }
    Ok(answers)
}

async fn send_some(
    mut connection: Connection,
    mut hook: Webhook,
    place: usize,
    count: usize,
) -> Result<Vec<u16>> {
    let mut answers = Vec::new();
    for number in 0..count {
        hook.rename(place as u64, number as u64);
        answers.push(connection.exchange(hook.bytes()).await?);
    }
    Ok(answers)
}

/// Waits until the newest deliveries are decided: earlier ones are decided before them, except those of the same
/// millisecond.
async fn until_decided(address: SocketAddr, token: &str) -> Result<()> {
    let decided = async {
        loop {
            let path = format!("/deliveries?hook={}&limit={NEWEST}", github::HOOK);
            let newest = ask(address, token, &path).await?;
            let mut undecided = 0;
            for delivery in newest["items"].as_array().context("a list")? {
                let id = delivery["id"].as_str().context("an id")?;
                let path = format!("/hooks/{}/deliveries/{id}", github::HOOK);
                let shown = ask(address, token, &path).await?;
                undecided += usize::from(!shown["events"][0]["decision"].is_object());
            }
            if undecided == 0 {
                return anyhow::Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(PATIENCE, decided).await.context("events are not decided")?
}

async fn ask(address: SocketAddr, token: &str, path: &str) -> Result<Value> {
    let request = Request::get(format!("/api/v1{path}"))
        .header(HOST, "gantry")
        .header(AUTHORIZATION, format!("Bearer {token}"))
        .body(Full::<Bytes>::default())?;
    Ok(serde_json::from_slice(&exchange(TcpStream::connect(address).await?, request).await?)?)
}

/// Checks that everything that was answered 202 is stored, and nothing is undecided.
async fn ensure_kept(backend: &Backend, folder: &std::path::Path, accepted: usize) -> Result<()> {
    let store = backend.store(folder).await?;
    let ledger = [RunPrefix::nth(0)];
    let kept = deliveries::list(store.as_ref(), &ledger, None, None, accepted + 1).await?;
    let with_events =
        kept.items.iter().filter(|delivery| delivery.verdict == Verdict::Events).count();
    // A delivery that was answered 503 may still have been stored.
    ensure!(with_events >= accepted, "{accepted} were answered 202, {with_events} are kept");
    let now = store.now().await?;
    let undecided = gantry_seams::due::undecided(store.as_ref(), now, 1).await?;
    ensure!(undecided.is_empty(), "{undecided:?} is not decided");
    Ok(())
}
