//! A process that kills itself at one named point, as `kill -9` would at exactly that moment.
//!
//! In: the point that the environment names, and every batch, doorbell and write of a tag on its way through the seams.
//! Out: nothing, until the operation comes by that the point means; then a line that says so, and the end. Production code
//! knows nothing of it.

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

/// Names the point.
pub const VARIABLE: &str = "GANTRY_TEST_CRASH_AT";

/// Whether the log of a killed process says that it crashed at this point.
///
/// # Errors
/// It did not.
pub(crate) fn said(log: &str, point: CrashPoint) -> Result<()> {
    let words = last_words(point);
    ensure!(log.lines().any(|line| line == words), "it was killed elsewhere:\n{log}");
    Ok(())
}

/// What a process says last.
fn last_words(point: CrashPoint) -> String {
    format!("crashes at {}", point.as_str())
}

/// The point at which this process crashes, if any.
#[derive(Debug, Clone, Copy)]
pub struct Crash(Option<CrashPoint>);

impl Crash {
    /// What the environment says.
    ///
    /// # Errors
    /// There is no such point.
    #[allow(clippy::disallowed_methods, reason = "a test program has no settings but its own")]
    pub fn of_environment() -> Result<Self> {
        let named = std::env::var(VARIABLE).ok();
        Ok(Self(named.map(|name| name.parse()).transpose()?))
    }

    /// The store, whose commits pass the point.
    #[must_use]
    pub fn store(self, store: SharedStore) -> SharedStore {
        HookedStore::shared(store, Arc::new(self))
    }

    /// The doorbells, which pass it.
    #[must_use]
    pub fn queues(self, queues: Queues) -> Queues {
        queue::before(self, queues)
    }

    /// The registries, whose tags pass it.
    pub fn registries(self, registries: impl Registries + 'static) -> Arc<dyn Registries> {
        registries::before(self, registries)
    }

    /// A build that never ends, if the process is to crash during a build.
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

/// No destructor runs, and no thread goes on for longer than the kernel takes.
fn crash_at(point: CrashPoint) -> ! {
    let _closed = writeln!(std::io::stderr(), "{}", last_words(point));
    let _killed = kill_process(getpid(), Signal::KILL);
    loop {
        std::thread::park();
    }
}
