//! Log lines: for people on a terminal, JSON for programs.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};
use tracing_subscriber::{Layer as _, fmt};

use crate::settings::{Log, LogFormat};

/// Writes the process's log lines to standard error from now on. Called once, by `main`.
///
/// # Errors
/// [`TryInitError`] when something else writes them already.
pub fn start(log: &Log) -> Result<(), TryInitError> {
    let lines = fmt::layer().with_writer(io::stderr);
    let lines = if is_for_people(log.format) {
        lines.with_target(false).with_ansi(io::stderr().is_terminal()).boxed()
    } else {
        lines.json().flatten_event(true).with_current_span(true).with_span_list(false).boxed()
    };
    tracing_subscriber::registry().with(lines.with_filter(log.level.clone())).try_init()
}

fn is_for_people(format: LogFormat) -> bool {
    match format {
        LogFormat::Auto => io::stderr().is_terminal(),
        LogFormat::Human => true,
        LogFormat::Json => false,
    }
}
