//! Makes a process kill itself at a named point, like `kill -9` at exactly that moment.
//!
//! In: the crash point in the environment, and every batch, doorbell and tag write passing through the seams. Out:
//! nothing, until the process reaches the point; then it logs that and dies. Production code is not involved.

mod point;
mod queue;
mod registries;

use std::io::Write as _;
use std::sync::Arc;

use anyhow::{Result, ensure};
use async_trait::async_trait;
use gantry_remote::registries::Registries;
use gantry_seams::queue::Queues;
use gantry_seams::store::{Batch, CommitError, SharedStore};
use gantry_worker::engine::scripted::Gate;
use rustix::process::{Signal, getpid, kill_process};

pub use point::CrashPoint;

use crate::doubles::store::{CommitHook, HookedStore};
use point::When;

/// The environment variable with the point.
pub const VARIABLE: &str = "GANTRY_TEST_CRASH_AT";

/// Checks that the log of a killed process says that it crashed at this point.
///
/// # Errors
/// It does not.
pub(crate) fn said(log: &str, point: CrashPoint) -> Result<()> {
    let words = last_words(point);
    ensure!(log.lines().any(|line| line == words), "it was killed elsewhere:\n{log}");
    Ok(())
}

/// The last line of a process that crashes.
fn last_words(point: CrashPoint) -> String {
    format!("crashes at {}", point.as_str())
}

/// The point at which this process crashes, if any.
#[derive(Debug, Clone, Copy)]
pub struct Crash(Option<CrashPoint>);

impl Crash {
    /// Reads the point from the environment.
    ///
    /// # Errors
    /// The point is unknown.
    #[allow(clippy::disallowed_methods, reason = "a test program has no settings but its own")]
    pub fn of_environment() -> Result<Self> {
        let named = std::env::var(VARIABLE).ok();
        Ok(Self(named.map(|name| name.parse()).transpose()?))
    }

    /// Wraps the store, so that commits can reach the point.
    #[must_use]
    pub fn store(self, store: SharedStore) -> SharedStore {
        HookedStore::shared(store, Arc::new(self))
    }

    /// Wraps the queues, so that doorbells can reach the point.
    #[must_use]
    pub fn queues(self, queues: Queues) -> Queues {
        queue::before(self, queues)
    }

    /// Wraps the registries, so that tag writes can reach the point.
    pub fn registries(self, registries: impl Registries + 'static) -> Arc<dyn Registries> {
        registries::before(self, registries)
    }

    /// The gate of a build that never ends, if the process is to crash during a build.
    #[must_use]
    pub fn in_build(self) -> Option<Gate> {
        let point = self.0.filter(|point| matches!(point.when(), When::InBuild))?;
        let gate = Gate::closed();
        let reached = gate.clone();
        tokio::spawn(async move {
            reached.reached().await;
            crash_at(point);
        });
        Some(gate)
    }

    fn crash_if(self, is_here: impl Fn(When) -> bool) {
        if let Some(point) = self.0.filter(|point| is_here(point.when())) {
            crash_at(point);
        }
    }
}

#[async_trait]
impl CommitHook for Crash {
    async fn before(&self, batch: &Batch) -> Result<(), CommitError> {
        self.crash_if(|when| matches!(when, When::BeforeCommit(is_it) if is_it(batch)));
        Ok(())
    }

    async fn after(
        &self,
        batch: &Batch,
        answer: Result<(), CommitError>,
    ) -> Result<(), CommitError> {
        if answer.is_ok() {
            self.crash_if(|when| matches!(when, When::AfterCommit(is_it) if is_it(batch)));
        }
        answer
    }
}

/// No destructor runs, and threads run no longer than the kernel needs.
fn crash_at(point: CrashPoint) -> ! {
    let _closed = writeln!(std::io::stderr(), "{}", last_words(point));
    let _killed = kill_process(getpid(), Signal::KILL);
    loop {
        std::thread::park();
    }
}
