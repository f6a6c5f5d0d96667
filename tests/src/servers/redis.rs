//! A Redis of a test's own, as durable as gantry asks for.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Command;

use super::{free_port, loopback};
use crate::process::Process;

const START_WITHIN: Duration = Duration::from_secs(30);

/// A server.
#[derive(Debug)]
pub struct Redis {
    port: u16,
    process: Option<Process>,
    folder: TempDir,
}

impl Redis {
    /// Starts one and waits until it answers.
    ///
    /// # Errors
    /// It is not installed, or does not start.
    pub async fn start() -> Result<Self> {
        Self::start_in(tempfile::tempdir()?).await
    }

    /// The same, with its data in `folder`.
    ///
    /// # Errors
    /// It is not installed, or does not start.
    pub async fn start_in(folder: TempDir) -> Result<Self> {
        let mut redis = Self { port: free_port(), process: None, folder };
        redis.start_again().await?;
        Ok(redis)
    }

    /// Starts it on the port and the data that it had.
    ///
    /// # Errors
    /// It runs, or does not start.
    pub async fn start_again(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "it runs");
        let process = Process::spawn(self.command(), &self.folder.path().join("log"))?;
        let (process, port) = (self.process.insert(process), self.port);
        process.until("answer", START_WITHIN, || async move { answers(port).await }).await
    }

    fn command(&self) -> Command {
        let mut command = Command::new("redis-server");
        command
            .args(["--bind", "127.0.0.1", "--port", &self.port.to_string()])
            .arg("--dir")
            .arg(self.folder())
            .args(["--appendonly", "yes", "--appendfsync", "always", "--save", ""])
            .args(["--maxmemory-policy", "noeviction"]);
        command
    }

    /// Kills it: what it acknowledged is on the disk.
    ///
    /// # Errors
    /// It does not run.
    pub async fn kill(&mut self) -> Result<()> {
        self.process.take().context("it runs")?.kill().await
    }

    /// Lets it stand still.
    ///
    /// # Errors
    /// It does not run.
    pub fn pause(&self) -> Result<()> {
        self.process.as_ref().context("it runs")?.signal(Signal::STOP)
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// It does not run.
    pub fn resume(&self) -> Result<()> {
        self.process.as_ref().context("it runs")?.signal(Signal::CONT)
    }

    /// Its process, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().and_then(Process::pid)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        loopback(self.port)
    }

    /// `redis://127.0.0.1:PORT/0`
    #[must_use]
    pub fn url(&self) -> String {
        url(self.address())
    }

    fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// The address of a Redis that is reached at `address`, itself or by way of a proxy.
#[must_use]
pub fn url(address: SocketAddr) -> String {
    format!("redis://{address}/0")
}

/// Whether it serves; while it reads its data it only listens.
async fn answers(port: u16) -> bool {
    let ping = async {
        let mut stream = TcpStream::connect(loopback(port)).await?;
        stream.write_all(b"PING\r\n").await?;
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).await?;
        std::io::Result::Ok(&answer == b"+PONG")
    };
    matches!(tokio::time::timeout(Duration::from_secs(1), ping).await, Ok(Ok(true)))
}
