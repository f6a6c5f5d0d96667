//! What the process tells of its work: log lines, for people on a terminal or JSON for programs; and traces, by OTLP.
//!
//! A delivery is one trace from its hook to the tag that was pushed for it, through every process that takes part in it:
//! records and doorbells carry a [`TraceParent`](gantry_domain::trace::TraceParent). Trace ids are made though no collector is set: log lines show them.

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

/// The process's telemetry, while it runs.
#[derive(Debug)]
pub struct Started {
    provider: SdkTracerProvider,
}

/// Telemetry could not be started.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the fields without a comment explain themselves")]
pub enum StartError {
    /// Something else writes log lines already.
    #[error(transparent)]
    Taken(#[from] TryInitError),
    /// The collector's address cannot be used.
    #[error("traces cannot go to {url}: check `telemetry.otlp`")]
    Collector {
        /// Its address.
        url: url::Url,
        source: opentelemetry_otlp::ExporterBuildError,
    },
}

/// Writes the process's log lines to standard error from now on, and sends its traces to the collector, if one is set.
/// Called once, by `main`. `service` is what traces know the process by: `gantry-worker`.
///
/// # Errors
/// [`StartError`]. A collector that does not answer is none: it is told once, and costs nothing.
pub fn start(log: &Log, telemetry: &Telemetry, service: String) -> Result<Started, StartError> {
    let level = log.level.clone();
    let lines = if is_for_people(log.format) {
        let lines = fmt::layer().with_writer(|| OneEvent(io::stderr()));
        let lines = lines.with_target(false).with_ansi(io::stderr().is_terminal());
        // A message reads well alone.
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
        // Who sent us a trace that it does not keep wants ours kept as little.
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
        // Log lines have their own way; and what a library of ours does is no step of a run.
        .with_filter(filter_fn(|what| {
            what.is_span() && *what.level() <= Level::INFO && what.target().starts_with("gantry")
        }));
    tracing_subscriber::registry().with(lines).with(spans).try_init()?;
    Ok(Started { provider })
}

impl Started {
    /// Sends what is left to the collector, for some seconds at most. The last thing that a process does.
    pub fn finish(self) {
        if let Err(error) = self.provider.shutdown_with_timeout(collector::LAST_WORDS) {
            tracing::debug!("the last spans are lost: {error}");
        }
    }
}

/// Writes one event at a time, so that none reads as two: text of others may be in it, with new lines and all.
struct OneEvent<W>(W);

impl<W: io::Write> io::Write for OneEvent<W> {
    /// `event` is a whole one.
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
    fn what_others_wrote_makes_no_log_line_of_its_own() {
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
