//! What processes on scripted parts have in common: an engine that runs nothing, and how much they may fetch.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use gantry_domain::image::Repository;
use gantry_remote::git::{Git, GitLimits};
use gantry_remote::http::OutboundClient;
use gantry_worker::engine::OutputStream;
use gantry_worker::engine::scripted::{Action, Gate, ScriptedEngine};
use gantry_worker::source::UnpackLimits;

/// How much is unpacked.
pub const UNPACKED: UnpackLimits =
    UnpackLimits { archive_bytes: 1 << 26, unpacked_bytes: 1 << 26, entries: 10_000 };

/// How many bytes of mirrors are kept.
pub const MIRRORS: u64 = 1 << 26;

/// More builds of one repository than a process lives to see.
const SCRIPTS: usize = 512;

/// Builds of repositories whose name begins so go on until they are cancelled.
const ENDLESS: &str = "endless";

/// An engine whose builds say something, stop at the gate if there is one, take a while, and say something again.
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

/// Git, for sources as small as those of tests.
#[must_use]
pub fn git(http: &OutboundClient) -> Git {
    let limits =
        GitLimits { fetched_bytes: 1 << 26, checkout_bytes: 1 << 26, checkout_files: 10_000 };
    Git::new(Arc::clone(http.policy()), limits)
}

/// Names of repositories.
///
/// # Errors
/// One that is none.
pub fn repositories(names: &[String]) -> Result<Vec<Repository>> {
    Ok(names.iter().map(|name| name.parse()).collect::<Result<_, _>>()?)
}
