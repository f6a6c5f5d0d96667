//! Pushes an image.
//!
//! Uses HTTP directly, so that timeouts and error messages are handled in one place. Only the classic image store
//! reports the digest of what it pushed (in `aux`), so it is not read here, and the registry is asked instead.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE as BASE64;
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use gantry_domain::image::{ImageReference, Tag};
use gantry_ops::secret::Credentials;
use http_body_util::{BodyExt as _, Full};
use hyper::header::HOST;
use hyper::{Method, Request, StatusCode};
use serde::Deserialize;
use tokio::time::timeout;
use tokio_util::codec::{FramedRead, LinesCodec};
use tokio_util::io::StreamReader;

use super::transport::{Socket, refusal};
use crate::engine::{EngineError, PushError};

/// The longest line of the engine's report, which may contain a message of the registry.
const LINE_LIMIT: usize = 1024 * 1024;

/// How long a push may go without progress. The engine reports each part of a layer, so this is more than it needs
/// between two parts, and more than a registry needs to verify a layer.
const SILENCE: Duration = Duration::from_secs(600);

/// Pushes `image` under its tag. Dropping the future stops the push.
pub(super) async fn push(
    socket: &Socket,
    image: &ImageReference,
    credentials: Option<&Credentials>,
) -> Result<(), PushError> {
    let Some(tag) = image.tag() else {
        let message = format!("{image} has no tag to push it under");
        return Err(EngineError::Refused { what: "push", message }.into());
    };
    let asked = socket.request(request(socket, image, tag, credentials)?);
    let response = timeout(SILENCE, asked).await.map_err(|_| silent(image))??;
    if response.status() != StatusCode::OK {
        let message = refusal(response).await;
        return Err(EngineError::Refused { what: "push", message }.into());
    }

    let body = response.into_body().into_data_stream().map_err(std::io::Error::other);
    let mut lines =
        FramedRead::new(StreamReader::new(body), LinesCodec::new_with_max_length(LINE_LIMIT));
    while let Some(line) = timeout(SILENCE, lines.next()).await.map_err(|_| silent(image))? {
        let line = line.map_err(|error| socket.unreachable(error))?;
        // Lines with progress bars of various forms are skipped.
        let Ok(report) = serde_json::from_str::<Report>(&line) else { continue };
        if let Some(message) = report.failure() {
            return Err(failure(image, message));
        }
    }
    Ok(())
}

fn silent(image: &ImageReference) -> PushError {
    let message = format!("the engine told of no progress of the push for {SILENCE:?}");
    PushError::Registry { host: image.host().clone(), image: image.clone(), message }
}

fn request(
    socket: &Socket,
    image: &ImageReference,
    tag: &Tag,
    credentials: Option<&Credentials>,
) -> Result<Request<Full<Bytes>>, EngineError> {
    // The engine requires the header even without credentials.
    let auth = credentials.map(|credentials| super::auth(image.host(), credentials));
    let auth = serde_json::to_vec(&auth.unwrap_or_default());
    let auth = auth.map_err(|error| socket.unreachable(error))?;
    Request::builder()
        .method(Method::POST)
        .uri(format!("/images/{}/{}/push?tag={}", image.host(), image.repository(), tag))
        .header(HOST, "engine")
        .header("X-Registry-Auth", BASE64.encode(auth))
        .body(Full::new(Bytes::new()))
        .map_err(|error| socket.unreachable(error))
}

/// The relevant fields of a line of the report.
#[derive(Debug, Default, Deserialize)]
struct Report {
    #[serde(default)]
    error: Option<String>,
    #[serde(default, rename = "errorDetail")]
    detail: Option<Detail>,
}

#[derive(Debug, Deserialize)]
struct Detail {
    message: String,
}

impl Report {
    /// A failed push is reported as a successful answer with an error at its end.
    fn failure(&self) -> Option<String> {
        self.detail.as_ref().map(|detail| detail.message.clone()).or_else(|| self.error.clone())
    }
}

/// Messages for credentials that are wrong, missing or insufficient.
const UNAUTHORIZED: [&str; 6] = [
    "unauthorized",
    "no basic auth credentials",
    "denied",
    "401 Unauthorized",
    "403 Forbidden",
    "insufficient_scope",
];

/// Messages for an image that the engine does not have.
const MISSING: [&str; 2] = ["tag does not exist: ", "An image does not exist locally"];

fn failure(image: &ImageReference, message: String) -> PushError {
    if MISSING.iter().any(|text| message.starts_with(text)) {
        return EngineError::Refused { what: "push", message }.into();
    }
    let (host, image) = (image.host().clone(), image.clone());
    if UNAUTHORIZED.iter().any(|text| message.contains(text)) {
        PushError::Unauthorized { host, image, message }
    } else {
        PushError::Registry { host, image, message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn push_failures_are_classified() {
        let image: ImageReference = "127.0.0.1:5000/web:1".parse().unwrap();
        for text in ["unauthorized: authentication required", "no basic auth credentials"] {
            assert!(
                matches!(failure(&image, text.to_owned()), PushError::Unauthorized { .. }),
                "{text}"
            );
        }
        for text in [
            "received unexpected HTTP status: 503 Service Unavailable",
            "dial tcp: connection refused",
        ] {
            assert!(
                matches!(failure(&image, text.to_owned()), PushError::Registry { .. }),
                "{text}"
            );
        }
    }

    #[test]
    fn a_failure_is_found_in_the_progress() {
        let line = r#"{"errorDetail":{"message":"no basic auth credentials"},"error":"no basic auth credentials"}"#;
        let report: Report = serde_json::from_str(line).unwrap();
        assert_eq!(report.failure().unwrap(), "no basic auth credentials");
        for line in [
            r#"{"progressDetail":{},"aux":{"Tag":"1","Digest":"sha256:aa","Size":528}}"#,
            r#"{"status":"1: digest: sha256:aa size: 406"}"#,
        ] {
            let report: Report = serde_json::from_str(line).unwrap();
            assert_eq!(report.failure(), None, "{line}");
        }
    }
}
