//! How soon gantry is ready with many runs in its store, and how much memory it takes when idle.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use gantry_domain::run::CanceledBy;
use gantry_seams::runs;
use tokio_util::sync::CancellationToken;

use crate::Effort;
use crate::backend::Backend;
use crate::composition::{Parts, REGISTRY};
use crate::process;
use crate::report::{Report, Row};
use crate::role::Role;
use crate::samples::{Samples, milliseconds};
use crate::stored;

/// The number of runs cancelled concurrently, which the store commits together.
const AT_ONCE: usize = 256;

/// How long a process needs to become idle.
const SETTLE: Duration = Duration::from_secs(10);

/// Starts gantry several times on a store that is full of runs.
pub(crate) fn measure(effort: Effort, report: &mut Report) -> Result<()> {
    let folder = process::folder()?;
    tokio::runtime::Runtime::new()?.block_on(store_runs(folder.path(), effort.stored_runs))?;
    let (mut ready, mut idle) = (Vec::new(), Vec::new());
    for _ in 0..effort.rounds {
        let began = Instant::now();
        let server = Role::Up.start_on(folder.path(), &Backend::Embedded)?;
        answers(server.address)?;
        ready.push(milliseconds(began.elapsed()));
        std::thread::sleep(SETTLE);
        idle.push(process::memory(server.pid())?.resident);
    }
    let (ready, idle) = (Samples::of(ready), Samples::of(idle));
    report.row(Row {
        what: format!("ready after start with {} runs stored", effort.stored_runs),
        reach: "≤ 1 s; idle ≤ 100 MiB",
        measured: format!("{} ms; idle {} MiB", ready.show(0), idle.show(0)),
        reached: ready.median() <= 1000.0 && idle.median() <= 100.0,
    });
    Ok(())
}

/// Checks that `/readyz` reports success.
pub(crate) fn answers(address: std::net::SocketAddr) -> Result<()> {
    use std::io::{Read as _, Write as _};

    let mut stream = std::net::TcpStream::connect(address)?;
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: gantry\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    anyhow::ensure!(answer.starts_with("HTTP/1.1 200"), "it is not ready: {answer}");
    Ok(())
}

/// Creates runs that were cancelled before they began.
async fn store_runs(folder: &std::path::Path, count: usize) -> Result<()> {
    let stop = CancellationToken::new();
    let parts = Parts::open(folder, &stop).await?;
    parts.set_up("registry.test").await?;
    let by = CanceledBy::Token { token: stored::BY.parse()? };
    let build = stored::build("https://github.com/example/hello.git#main".parse()?)?;
    let created = stored::create(&parts.store, &REGISTRY.parse()?, &build, count).await?;
    let cancels = created.into_iter().map(|run| {
        let (store, by) = (Arc::clone(&parts.store), &by);
        async move { runs::cancel(store.as_ref(), run, by).await }
    });
    stream::iter(cancels).buffer_unordered(AT_ONCE).try_for_each(|_| async { Ok(()) }).await?;
    Ok(())
}
