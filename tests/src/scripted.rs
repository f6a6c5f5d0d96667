//! What programs with scripted parts share: the engine, and git with its limits.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use gantry_domain::image::Repository;
use gantry_remote::git::{Git, GitLimits};
use gantry_remote::http::OutboundClient;
use gantry_worker::engine::OutputStream;
use gantry_worker::engine::scripted::{Action, Gate, ScriptedEngine};
use gantry_worker::source::UnpackLimits;

/// The limits of unpacking.
pub const UNPACKED: UnpackLimits =
    UnpackLimits { archive_bytes: 1 << 26, unpacked_bytes: 1 << 26, entries: 10_000 };

/// The limit of mirrors, in bytes.
pub const MIRRORS: u64 = 1 << 26;

/// More builds of one repository than a process ever runs.
const SCRIPTS: usize = 512;

/// Builds of repositories with this prefix run until they are cancelled.
const ENDLESS: &str = "endless";

/// An engine whose builds print a line, wait at the gate if there is one, take some time, and print another line.
pub fn engine(
    repositories: &[Repository],
    gate: Option<&Gate>,
    mut time: impl FnMut() -> Duration,
) -> ScriptedEngine {
    let engine = ScriptedEngine::new();
    let say = |text: &'static str| Action::Output(OutputStream::Stdout, text.into());
    for repository in repositories {
        for _ in 0..SCRIPTS {
            let mut script = vec![say("begins\n")];
            script.extend(gate.cloned().map(Action::Wait));
            script.push(if repository.as_str().starts_with(ENDLESS) {
                Action::Hang
            } else {
                Action::Work(time())
            });
            script.extend([say("half\nof it\n"), say("ends\n")]);
            engine.script(repository, script);
        }
    }
    engine
}

/// Git with limits for small sources.
#[must_use]
pub fn git(http: &OutboundClient) -> Git {
    let limits =
        GitLimits { fetched_bytes: 1 << 26, checkout_bytes: 1 << 26, checkout_files: 10_000 };
    Git::new(Arc::clone(http.policy()), limits)
}

/// Parses names of repositories.
///
/// # Errors
/// A name is invalid.
pub fn repositories(names: &[String]) -> Result<Vec<Repository>> {
    Ok(names.iter().map(|name| name.parse()).collect::<Result<_, _>>()?)
}
