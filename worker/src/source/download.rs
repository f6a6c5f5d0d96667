//! Downloads an archive from a web server as a stream.

use std::pin::Pin;
use std::time::Duration;

use futures_util::TryStreamExt as _;
use gantry_domain::source::TarballUrl;
use gantry_ops::backoff::Backoff;
use gantry_remote::http::{Method, OutboundClient, OutboundError};
use tokio::io::AsyncRead;
use tokio::time::{Instant, timeout_at};
use tokio_util::io::StreamReader;

use super::SourceError;

const TRIES: u32 = 3;

/// Retries until the server begins to answer, up to three times.
pub(super) async fn open(
    http: &OutboundClient,
    url: &TarballUrl,
    deadline: Instant,
) -> Result<Pin<Box<dyn AsyncRead + Send>>, SourceError> {
    let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(5));
    let mut tries = 1;
    loop {
        let asked = timeout_at(deadline, ask(http, url)).await;
        let error = match asked.map_err(|_| SourceError::TimedOut)? {
            Err(error) if error.is_transient() && tries < TRIES => error,
            done => return done,
        };
        tracing::debug!(%error, "the download of the archive is retried");
        tries += 1;
        tokio::time::sleep(backoff.wait()).await;
    }
}

async fn ask(
    http: &OutboundClient,
    url: &TarballUrl,
) -> Result<Pin<Box<dyn AsyncRead + Send>>, SourceError> {
    let request = http.request(Method::GET, url.as_url().clone())?;
    let response = http.send(request).await.map_err(|error| match error {
        OutboundError::Refused(refused) => SourceError::Outbound(refused),
        source @ (OutboundError::Unreachable { .. } | OutboundError::TooLarge { .. }) => {
            SourceError::Download { url: Box::new(url.clone()), source }
        }
    })?;
    let status = response.status();
    if !status.is_success() {
        return Err(SourceError::Status { url: Box::new(url.clone()), status });
    }
    let stream = response.bytes_stream().map_err(std::io::Error::other);
    Ok(Box::pin(StreamReader::new(stream)))
}
