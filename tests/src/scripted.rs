//! What programs with scripted parts share: the engine, and git with its limits.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
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

/// The environment variable with how often a scheduler asks for tags, in milliseconds. The shortest setting is too long for
/// a test.
pub const LOOK_EVERY: &str = "GANTRY_TEST_LOOK_EVERY";

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

/// How often this process asks for tags, if its environment says so.
///
/// # Errors
/// It is no number.
#[allow(clippy::disallowed_methods, reason = "a test program has no settings but its own")]
pub fn look_every() -> Result<Option<Duration>> {
    let Ok(millis) = std::env::var(LOOK_EVERY) else { return Ok(None) };
    let millis = millis.parse().with_context(|| format!("{LOOK_EVERY}={millis}"))?;
    Ok(Some(Duration::from_millis(millis)))
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
