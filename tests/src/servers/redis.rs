//! A private Redis, as durable as gantry requires.

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
    /// The command prefix that runs it.
    enter: Vec<String>,
}

impl Redis {
    /// Starts a server and waits until it answers.
    ///
    /// # Errors
    /// Redis is not installed, or does not start.
    pub async fn start() -> Result<Self> {
        Self::start_in(tempfile::tempdir()?).await
    }

    /// Like [`Self::start`], with its data in `folder`.
    ///
    /// # Errors
    /// Redis is not installed, or does not start.
    pub async fn start_in(folder: TempDir) -> Result<Self> {
        let mut redis = Self::new(folder);
        redis.start_again().await?;
        Ok(redis)
    }

    /// Starts a server with its data on a small disk.
    ///
    /// # Errors
    /// Redis is not installed, or does not start.
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
    /// It is not running, or keeps running for longer than `within`.
    pub async fn ends(&mut self, within: Duration) -> Result<()> {
        let mut process = self.process.take().context("it runs")?;
        let began = Instant::now();
        while process.lives().is_ok() {
            ensure!(began.elapsed() < within, "it goes on");
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        Ok(())
    }

    /// Starts it with its former port and data.
    ///
    /// # Errors
    /// It is already running, or does not start.
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

    /// Kills it with SIGKILL. What it acknowledged is on disk.
    ///
    /// # Errors
    /// It is not running.
    pub async fn kill(&mut self) -> Result<()> {
        self.process.take().context("it runs")?.kill().await
    }

    /// Pauses the process.
    ///
    /// # Errors
    /// It is not running.
    pub fn pause(&self) -> Result<()> {
        self.process.as_ref().context("it runs")?.signal(Signal::STOP)
    }

    /// Resumes the process.
    ///
    /// # Errors
    /// It is not running.
    pub fn resume(&self) -> Result<()> {
        self.process.as_ref().context("it runs")?.signal(Signal::CONT)
    }

    /// The process id, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().and_then(Process::pid)
    }

    /// The address.
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

/// The URL of a Redis at `address`, directly or through a proxy.
#[must_use]
pub fn url(address: SocketAddr) -> String {
    format!("redis://{address}/0")
}

/// Whether it serves requests; while it loads its data it only listens.
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
