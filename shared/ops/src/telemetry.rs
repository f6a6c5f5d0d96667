//! The process's log lines, as text for a terminal or JSON for programs, and its traces, over OTLP.
//!
//! A delivery is one trace from its hook to the pushed tag, across all processes: records and doorbells carry a
//! [`TraceParent`](gantry_domain::trace::TraceParent). Trace ids are created even without a collector, because log
//! lines show them.

use std::io::{self, IsTerminal as _};

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use tracing::Level;
use tracing_subscriber::filter::{FilterExt as _, filter_fn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};
use tracing_subscriber::{Layer as _, fmt};

use crate::settings::{Log, LogFormat, Telemetry};
use crate::terminal::Sanitiser;

mod collector;
mod trace;

pub use trace::{attribute, broken, current_trace, doorbell, follow};

/// The running telemetry of the process.
#[derive(Debug)]
pub struct Started {
    provider: SdkTracerProvider,
}

/// Telemetry could not be started.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the fields without a comment explain themselves")]
pub enum StartError {
    /// Another logger is already installed.
    #[error(transparent)]
    Taken(#[from] TryInitError),
    /// The collector's URL cannot be used.
    #[error("traces cannot go to {url}: check `telemetry.otlp`")]
    Collector {
        /// The URL.
        url: url::Url,
        source: opentelemetry_otlp::ExporterBuildError,
    },
}

/// Starts writing log lines to standard error, and sending traces to the collector if one is set. Called once, by
/// `main`. `service` is the process's name in traces, like `gantry-worker`.
///
/// # Errors
/// [`StartError`]. An unavailable collector is no error: it is logged once.
pub fn start(log: &Log, telemetry: &Telemetry, service: String) -> Result<Started, StartError> {
    // The engine's client logs the bodies of its requests, and with them the environment of every step.
    let shows_no_bodies =
        filter_fn(|what| !what.target().starts_with("bollard") || *what.level() <= Level::INFO);
    let level = log.level.clone().and(shows_no_bodies);
    let lines = if is_for_people(log.format) {
        let lines = fmt::layer().with_writer(|| OneEvent(io::stderr()));
        let lines = lines.with_target(false).with_ansi(io::stderr().is_terminal());
        // Without the spans around it, for people.
        lines.with_filter(level.and(filter_fn(|what| what.is_event()))).boxed()
    } else {
        let lines = fmt::layer().with_writer(io::stderr).json();
        let lines = lines.flatten_event(true).with_current_span(true).with_span_list(false);
        lines.with_filter(level).boxed()
    };
    let resource = Resource::builder_empty()
        .with_service_name(service)
        .with_attribute(opentelemetry::KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build();
    let mut provider = SdkTracerProvider::builder()
        .with_resource(resource)
        // If the caller of a request does not record its trace, this part of it would be useless too.
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::AlwaysOn)));
    if let Some(url) = &telemetry.otlp {
        let collector = collector::connect(url)
            .map_err(|source| StartError::Collector { url: url.clone(), source })?;
        provider = provider.with_span_processor(collector);
    }
    let provider = provider.build();
    let spans = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("gantry"))
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false)
        .with_target(false)
        .with_level(false)
        // Events have their own layer, and spans of libraries are not steps of a run.
        .with_filter(filter_fn(|what| {
            what.is_span() && *what.level() <= Level::INFO && what.target().starts_with("gantry")
        }));
    tracing_subscriber::registry().with(lines).with(spans).try_init()?;
    Ok(Started { provider })
}

impl Started {
    /// Sends the remaining spans to the collector, for a few seconds at most. Called last in a process.
    pub fn finish(self) {
        if let Err(error) = self.provider.shutdown_with_timeout(collector::LAST_WORDS) {
            tracing::debug!("the last spans are lost: {error}");
        }
    }
}

/// Writes one event per call. Continuation lines are indented, so that text of others in an event cannot look like
/// another event.
struct OneEvent<W>(W);

impl<W: io::Write> io::Write for OneEvent<W> {
    /// `event` is one whole event.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let safe = Sanitiser::new(true).push(text.trim_end_matches('\n'));
        writeln!(self.0, "{}", safe.replace('\n', "\n    "))?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn is_for_people(format: LogFormat) -> bool {
    match format {
        LogFormat::Auto => io::stderr().is_terminal(),
        LogFormat::Human => true,
        LogFormat::Json => false,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::OneEvent;

    #[test]
    fn untrusted_text_cannot_forge_log_lines() {
        let mut written = Vec::new();
        for event in [
            "\u{1b}[32m INFO\u{1b}[0m branch `a\nERROR root was deleted\r\u{1b}[2Jb\u{202e}` built\n",
            " INFO next\n",
        ] {
            OneEvent(&mut written).write_all(event.as_bytes()).unwrap();
        }
        assert_eq!(
            String::from_utf8(written).unwrap(),
            "\u{1b}[32m INFO\u{1b}[0m branch `a\n    ERROR root was deleted\n    b` built\n INFO next\n"
        );
    }
}
