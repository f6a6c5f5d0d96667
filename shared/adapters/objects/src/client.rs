//! The HTTP client for object stores, with timeouts and the process-wide TLS provider.

use std::path::Path;
use std::time::Duration;

use object_store::client::{HttpClient, HttpConnector};
use object_store::{BackoffConfig, ClientOptions, RetryConfig};
use reqwest::Certificate;

use crate::open::OpenError;

/// The time limit for connecting.
const CONNECT: Duration = Duration::from_secs(2);

/// The time limit until an answer begins, and then for each part of it. An upload of 5 MiB must fit in it, so the
/// slowest usable connection has 4 Mbit/s.
const SILENCE: Duration = Duration::from_secs(10);

/// The time limit for all retries of a request. After that the caller decides whether to ask again.
const RETRIES: Duration = Duration::from_secs(3);

/// Requests that were refused or interrupted are retried for a short time.
pub(crate) fn retries() -> RetryConfig {
    RetryConfig {
        max_retries: 3,
        retry_timeout: RETRIES,
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(1),
            base: 2.0,
        },
    }
}

/// One client for the objects and for the cloud's credential servers.
#[derive(Debug)]
pub(crate) struct Connector(reqwest::Client);

impl Connector {
    pub(crate) fn new(ca_file: Option<&Path>) -> Result<Self, OpenError> {
        // The process has one TLS provider; an error means that it is already installed.
        let _installed = rustls::crypto::ring::default_provider().install_default();
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("gantry/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT)
            .read_timeout(SILENCE)
            // Requests of many megabytes do not share a connection well.
            .http1_only();
        if let Some(path) = ca_file {
            builder = builder.tls_certs_merge(certificates(path)?);
        }
        builder.build().map(Self).map_err(|source| OpenError::Client { source })
    }
}

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.0.clone()))
    }
}

fn certificates(path: &Path) -> Result<Vec<Certificate>, OpenError> {
    let failed = |message: String| OpenError::CaFile { path: path.to_owned(), message };
    let pem = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
    let found = Certificate::from_pem_bundle(&pem).map_err(|error| failed(error.to_string()))?;
    if found.is_empty() {
        return Err(failed("it has no certificate in it".to_owned()));
    }
    Ok(found)
}
