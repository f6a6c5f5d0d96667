//! A process that a test starts, and ends in whatever way the test is about.
//!
//! Dropped, also by a panic, it is killed. What it says goes to a file, whose end is shown when it fails.

use std::fs::File;
use std::future::Future;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

/// How often is looked whether something holds.
const LOOK: Duration = Duration::from_millis(25);

/// How many of its last lines are shown.
const LAST_LINES: usize = 40;

/// A process.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a command. What it says is added to the file `log`.
    ///
    /// # Errors
    /// What the system says.
    pub fn spawn(mut command: Command, log: &Path) -> Result<Self> {
        let file = File::options().create(true).append(true).open(log)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).kill_on_drop(true);
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {:?}", command.as_std().get_program()))?;
        Ok(Self { child, log: log.to_owned() })
    }

    /// Its id, for as long as it lives.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// It has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self.pid().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        Ok(kill_process(pid.context("it has ended")?, signal)?)
    }

    /// Kills it as the kernel does, with no chance to say or write anything more.
    ///
    /// # Errors
    /// It had ended by itself.
    pub async fn kill(mut self) -> Result<()> {
        self.lives()?;
        Ok(self.child.kill().await?)
    }

    /// Waits until it is killed.
    ///
    /// # Errors
    /// It takes longer than `within`, or ends otherwise.
    pub async fn killed(mut self, within: Duration) -> Result<()> {
        match tokio::time::timeout(within, self.child.wait()).await {
            Ok(ended) => was_killed(ended?).with_context(|| self.last_words()),
            Err(_) => bail!("it is not killed within {within:?}\n{}", self.last_words()),
        }
    }

    /// Asks it to end, as an init system does, and waits until it has.
    ///
    /// # Errors
    /// It had ended by itself, or takes longer than `within`.
    pub async fn terminate(mut self, within: Duration) -> Result<ExitStatus> {
        self.lives()?;
        self.signal(Signal::TERM)?;
        match tokio::time::timeout(within, self.child.wait()).await {
            Ok(ended) => Ok(ended?),
            Err(_) => bail!("it does not end within {within:?}\n{}", self.last_words()),
        }
    }

    /// Waits until `holds`, for as long as it lives.
    ///
    /// # Errors
    /// It ended, or it takes longer than `within`.
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

    /// Says so if it has ended by itself.
    ///
    /// # Errors
    /// It has, with its last words.
    pub fn lives(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("it ended by itself: {status}\n{}", self.last_words()),
        }
    }

    /// The end of what it said.
    #[must_use]
    pub fn last_words(&self) -> String {
        last_lines(&self.log)
    }
}

/// Whether it ended by `kill -9`.
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
