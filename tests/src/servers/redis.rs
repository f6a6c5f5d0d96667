//! A Redis of a test's own, as durable as gantry asks for.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Command;

use super::{free_port, loopback};
use crate::process::Process;
use crate::small_disk::SmallDisk;

const START_WITHIN: Duration = Duration::from_secs(30);

/// A server.
#[derive(Debug)]
pub struct Redis {
    port: u16,
    process: Option<Process>,
    folder: TempDir,
    data: PathBuf,
    /// What runs it, before its own name.
    enter: Vec<String>,
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
        let mut redis = Self::new(folder);
        redis.start_again().await?;
        Ok(redis)
    }

    /// Starts one with its data on a disk that may be full.
    ///
    /// # Errors
    /// It is not installed, or does not start.
    pub async fn start_on(disk: &SmallDisk) -> Result<Self> {
        let mut redis = Self::new(tempfile::tempdir()?);
        (redis.data, redis.enter) = (disk.path(), disk.enter());
        redis.start_again().await?;
        Ok(redis)
    }

    fn new(folder: TempDir) -> Self {
        let data = folder.path().to_owned();
        Self { port: free_port(), process: None, folder, data, enter: Vec::new() }
    }

    /// Waits until it has ended by itself.
    ///
    /// # Errors
    /// It does not run, or goes on for longer than `within`.
    pub async fn ends(&mut self, within: Duration) -> Result<()> {
        let mut process = self.process.take().context("it runs")?;
        let began = Instant::now();
        while process.lives().is_ok() {
            ensure!(began.elapsed() < within, "it goes on");
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        Ok(())
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
        let mut words = self.enter.iter().map(String::as_str).chain(["redis-server"]);
        let mut command = Command::new(words.next().unwrap_or_default());
        command
            .args(words)
            .args(["--bind", "127.0.0.1", "--port", &self.port.to_string()])
            .arg("--dir")
            .arg(&self.data)
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
