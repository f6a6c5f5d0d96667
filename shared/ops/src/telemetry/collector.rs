//! The way to the trace collector: OTLP over HTTP, in batches, from a thread of its own.
//!
//! Nothing waits for it. What does not fit the queue is dropped, and a collector that is away is told once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry_otlp::{ExporterBuildError, Protocol, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, SpanData};
use url::Url;

/// How many spans wait at most.
const QUEUE: usize = 8192;

/// How long a span waits at most for others to go with it.
const DELAY: Duration = Duration::from_secs(1);

/// How long one request to the collector may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// How long a process that ends waits for its last spans to be sent.
pub(super) const LAST_WORDS: Duration = Duration::from_secs(3);

/// Makes what takes spans to the collector at `url`.
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

/// The base address that is set, or the address of traces itself.
fn traces_url(url: &Url) -> String {
    let base = url.as_str().trim_end_matches('/');
    if base.ends_with("/v1/traces") { base.to_owned() } else { format!("{base}/v1/traces") }
}

/// A collector that is told of once when it goes, and once when it is back.
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
    fn the_base_address_and_the_whole_one_are_both_understood() {
        for url in ["http://c:4318", "http://c:4318/", "http://c:4318/v1/traces"] {
            assert_eq!(traces_url(&url.parse().unwrap()), "http://c:4318/v1/traces");
        }
        let behind_a_path = "https://c/otlp/".parse().unwrap();
        assert_eq!(traces_url(&behind_a_path), "https://c/otlp/v1/traces");
    }
}
