//! Exports traces to a collector: OTLP over HTTP, in batches, from a separate thread.
//!
//! Nothing waits for it. Spans that do not fit into the queue are dropped. An unavailable collector is logged once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry_otlp::{ExporterBuildError, Protocol, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, SpanData};
use url::Url;

/// The most spans in the queue.
const QUEUE: usize = 8192;

/// The longest time that a span waits for its batch.
const DELAY: Duration = Duration::from_secs(1);

/// The time limit of a request to the collector.
const PATIENCE: Duration = Duration::from_secs(3);

/// The time limit for sending the last spans at the end of the process.
pub(super) const LAST_WORDS: Duration = Duration::from_secs(3);

/// A processor that sends spans to the collector at `url`.
pub(super) fn connect(url: &Url) -> Result<BatchSpanProcessor, ExporterBuildError> {
    let inner = SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(traces_url(url))
        .with_timeout(PATIENCE)
        .build()?;
    let shown = url.host_str().unwrap_or_default().to_owned();
    let batches = BatchConfigBuilder::default()
        .with_max_queue_size(QUEUE)
        .with_scheduled_delay(DELAY)
        .build();
    let exporter = Collector { inner, host: shown, is_away: AtomicBool::new(false) };
    Ok(BatchSpanProcessor::builder(exporter).with_batch_config(batches).build())
}

/// The endpoint for traces, from either the base URL or the endpoint itself.
fn traces_url(url: &Url) -> String {
    let base = url.as_str().trim_end_matches('/');
    if base.ends_with("/v1/traces") { base.to_owned() } else { format!("{base}/v1/traces") }
}

/// An exporter that logs once when the collector becomes unavailable, and once when it is back.
#[derive(Debug)]
struct Collector {
    inner: SpanExporter,
    host: String,
    is_away: AtomicBool,
}

impl opentelemetry_sdk::trace::SpanExporter for Collector {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let sent = self.inner.export(batch).await;
        let was_away = self.is_away.swap(sent.is_err(), Ordering::Relaxed);
        match &sent {
            Ok(()) if was_away => tracing::info!("the trace collector at {} is back", self.host),
            Err(error) if !was_away => {
                tracing::warn!(
                    "traces are lost while the collector at {} does not take them: {error}",
                    self.host
                );
            }
            Ok(()) | Err(_) => {}
        }
        sent
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_url_and_endpoint_are_both_accepted() {
        for url in ["http://c:4318", "http://c:4318/", "http://c:4318/v1/traces"] {
            assert_eq!(traces_url(&url.parse().unwrap()), "http://c:4318/v1/traces");
        }
        let behind_a_path = "https://c/otlp/".parse().unwrap();
        assert_eq!(traces_url(&behind_a_path), "https://c/otlp/v1/traces");
    }
}
