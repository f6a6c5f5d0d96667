//! A process that a test starts, and ends in any way.
//!
//! Dropping it kills it, also during a panic. Its output goes to a file, whose end is shown on failure.

use std::fs::File;
use std::future::Future;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

/// The interval of polling a condition.
const LOOK: Duration = Duration::from_millis(25);

/// How many of the last lines are shown.
const LAST_LINES: usize = 40;

/// A process.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a command. Its output is appended to the file `log`.
    ///
    /// # Errors
    /// The system's error.
    pub fn spawn(mut command: Command, log: &Path) -> Result<Self> {
        let file = File::options().create(true).append(true).open(log)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).kill_on_drop(true);
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {:?}", command.as_std().get_program()))?;
        Ok(Self { child, log: log.to_owned() })
    }

    /// The process id, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// The process has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self.pid().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        Ok(kill_process(pid.context("it has ended")?, signal)?)
    }

    /// Kills the process with SIGKILL, so that it cannot write anything more.
    ///
    /// # Errors
    /// The process had already ended.
    pub async fn kill(mut self) -> Result<()> {
        self.lives()?;
        Ok(self.child.kill().await?)
    }

    /// Waits until the process is killed.
    ///
    /// # Errors
    /// It takes longer than `within`, or ends in another way.
    pub async fn killed(mut self, within: Duration) -> Result<()> {
        match tokio::time::timeout(within, self.child.wait()).await {
            Ok(ended) => was_killed(ended?).with_context(|| self.last_words()),
            Err(_) => bail!("it is not killed within {within:?}\n{}", self.last_words()),
        }
    }

    /// Sends SIGTERM, as an init system does, and waits for the end.
    ///
    /// # Errors
    /// The process had already ended, or takes longer than `within`.
    pub async fn terminate(mut self, within: Duration) -> Result<ExitStatus> {
        self.lives()?;
        self.signal(Signal::TERM)?;
        match tokio::time::timeout(within, self.child.wait()).await {
            Ok(ended) => Ok(ended?),
            Err(_) => bail!("it does not end within {within:?}\n{}", self.last_words()),
        }
    }

    /// Waits until `holds` returns true, while the process runs.
    ///
    /// # Errors
    /// The process ended, or it takes longer than `within`.
    pub async fn until<F: Future<Output = bool>>(
        &mut self,
        what: &str,
        within: Duration,
        mut holds: impl FnMut() -> F,
    ) -> Result<()> {
        let began = Instant::now();
        while !holds().await {
            self.lives()?;
            if began.elapsed() > within {
                bail!("it does not {what} within {within:?}\n{}", self.last_words());
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// Checks that the process is still running.
    ///
    /// # Errors
    /// It has ended; with the end of its output.
    pub fn lives(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("it ended by itself: {status}\n{}", self.last_words()),
        }
    }

    /// The end of its output.
    #[must_use]
    pub fn last_words(&self) -> String {
        last_lines(&self.log)
    }
}

/// Checks that it was ended by SIGKILL.
pub(crate) fn was_killed(status: ExitStatus) -> Result<()> {
    ensure!(status.signal() == Some(Signal::KILL.as_raw()), "it was not killed: {status}");
    Ok(())
}

/// The end of a log.
pub(crate) fn last_lines(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
}
