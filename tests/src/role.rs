//! A process of one role, as an operator runs it, with a program, a settings file, and signals.
//!
//! It may be killed, paused, terminated, and restarted with the same settings, folder and addresses.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use tokio::process::Command;

use crate::crash::{self, CrashPoint};
use crate::installation::Program;
use crate::process::Process;
use crate::servers::{free_port, loopback};

/// The time limit for a start on a busy machine.
const START_WITHIN: Duration = Duration::from_secs(400);

/// The time limit for a graceful end.
const END_WITHIN: Duration = Duration::from_secs(30);

/// A setting: its dotted key, and its value as TOML.
pub type Setting = (&'static str, String);

/// A process of a role, running or not.
#[derive(Debug)]
pub struct Role {
    program: Program,
    folder: PathBuf,
    telemetry: SocketAddr,
    process: Option<Process>,
}

impl Role {
    /// A role that is not running yet. Creates `folder` for its settings and output.
    ///
    /// # Errors
    /// The system's error.
    pub fn new(folder: PathBuf, mut program: Program, settings: &[Setting]) -> Result<Self> {
        std::fs::create_dir(&folder)?;
        let telemetry = loopback(free_port());
        let mut lines = vec![
            format!("data = {:?}\n", folder.join("data")),
            format!("telemetry.listen = \"{telemetry}\"\n"),
        ];
        lines.extend(settings.iter().map(|(key, value)| format!("{key} = {value}\n")));
        let config = folder.join("gantry.toml");
        std::fs::write(&config, lines.concat())?;
        program.arguments.extend(["--config".to_owned(), config.display().to_string()]);
        Ok(Self { program, folder, telemetry, process: None })
    }

    /// Starts it without waiting for readiness.
    ///
    /// # Errors
    /// It is already running, or the system's error.
    pub fn spawn(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "it runs");
        let mut command = Command::new(&self.program.path);
        command
            .args(&self.program.arguments)
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", &self.folder)
            .envs(self.program.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(&self.folder);
        self.process = Some(Process::spawn(command, &self.folder.join("log"))?);
        Ok(())
    }

    /// Waits until it is ready.
    ///
    /// # Errors
    /// It is not running, ended, or takes too long.
    pub async fn until_ready(&mut self) -> Result<()> {
        let http = http()?;
        let url = format!("http://{}/readyz", self.telemetry);
        let process = self.process.as_mut().context("it runs")?;
        let asked = || {
            let request = http.get(&url).send();
            async move { request.await.is_ok_and(|answer| answer.status().is_success()) }
        };
        process.until("get ready", START_WITHIN, asked).await
    }

    /// Kills it with SIGKILL.
    ///
    /// # Errors
    /// It is not running.
    pub async fn kill(&mut self) -> Result<()> {
        self.process.take().context("it runs")?.kill().await
    }

    /// Waits until it has killed itself at a crash point.
    ///
    /// # Errors
    /// It is not running, does not reach the point, or ends in another way.
    pub async fn crashes_at(&mut self, point: CrashPoint, within: Duration) -> Result<()> {
        let process = self.process.take().context("it runs")?;
        process.killed(within).await?;
        crash::said(&self.last_words(), point)
    }

    /// Terminates it, and waits for a graceful end.
    ///
    /// # Errors
    /// It is not running, takes too long, or ends in another way.
    pub async fn terminate(&mut self) -> Result<()> {
        let status = self.process.take().context("it runs")?.terminate(END_WITHIN).await?;
        ensure!(status.success(), "asked to end, it ended with {status}\n{}", self.last_words());
        Ok(())
    }

    /// Sends a signal, such as `STOP` or `CONT`.
    ///
    /// # Errors
    /// It is not running.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.as_ref().context("it runs")?.signal(signal)
    }

    /// Checks that it is still running.
    ///
    /// # Errors
    /// It has ended; with the end of its output.
    pub fn lives(&mut self) -> Result<()> {
        self.process.as_mut().context("it runs")?.lives()
    }

    /// The end of its processes' output.
    #[must_use]
    pub fn last_words(&self) -> String {
        crate::process::last_lines(&self.folder.join("log"))
    }

    /// The address of `/metrics`, `/healthz` and `/readyz`.
    #[must_use]
    pub fn telemetry(&self) -> SocketAddr {
        self.telemetry
    }
}

fn http() -> Result<reqwest::Client> {
    let _already = rustls::crypto::ring::default_provider().install_default();
    Ok(reqwest::Client::builder().timeout(Duration::from_secs(5)).build()?)
}

/// The `gantry` program of this build, which is built if it does not exist.
///
/// # Panics
/// If it does not build.
#[must_use]
pub fn gantry() -> PathBuf {
    let path = program("gantry");
    if !path.exists() {
        build_gantry(&path);
    }
    path
}

/// A program that was built together with this test. Both may have been copied, so that a long run is not disturbed by
/// a build.
///
/// # Panics
/// If the test is not a file.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test is a file");
    let folder = test.ancestors().nth(2).expect("a test lies in target/PROFILE/deps");
    folder.join(name)
}

fn build_gantry(path: &Path) {
    let cargo = std::process::Command::new(env!("CARGO")).args(["build", "-p", "gantry"]).status();
    let built = cargo.is_ok_and(|status| status.success());
    assert!(built && path.exists(), "{} is not built: `cargo build -p gantry`", path.display());
}
