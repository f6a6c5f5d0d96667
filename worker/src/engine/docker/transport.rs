//! Connections to the engine's socket.
//!
//! In: an HTTP request, or a request for a gRPC connection. Out: an answer, or a connection upgraded to HTTP/2. Each
//! has a separate connection, so that a blocked one does not affect others, and closing it tells the engine that the
//! caller no longer waits.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bollard_buildkit_proto::moby::buildkit::v1::control_client::ControlClient;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::header::{CONNECTION, HOST, UPGRADE};
use hyper::http::request::Builder;
use hyper::upgrade::Upgraded;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::UnixStream;
use tokio_util::task::AbortOnDropHandle;

use crate::engine::EngineError;

/// The most bytes that are read of an error response.
const REFUSAL_LIMIT: usize = 64 * 1024;

/// The engine sends log in messages of about 1 MiB, but a single one may exceed tonic's default limit of 4 MiB.
const MESSAGE_LIMIT: usize = 16 * 1024 * 1024;

/// The time limit for upgrading a connection.
const HANDED_OVER: Duration = Duration::from_secs(30);

/// The interval of keep-alive pings during a build, and the time limit for their answer. An engine that is stopped or
/// hangs would otherwise block a build until the run's deadline.
const TRIED_EVERY: Duration = Duration::from_secs(10);
const SHOWS_WITHIN: Duration = Duration::from_secs(30);

/// The address of an engine.
#[derive(Debug, Clone)]
pub(super) struct Socket {
    path: PathBuf,
}

impl Socket {
    /// Parses `unix:///path` or `/path`.
    pub(super) fn parse(address: &str) -> Result<Self, EngineError> {
        let path = address.strip_prefix("unix://").unwrap_or(address);
        if !path.starts_with('/') {
            return Err(EngineError::Refused {
                what: "connect",
                message: format!("`{address}` is no `unix:///path` of a socket on this machine"),
            });
        }
        Ok(Self { path: PathBuf::from(path) })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The error for an engine that does not answer at this socket.
    pub(super) fn unreachable(
        &self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> EngineError {
        EngineError::Unreachable {
            address: format!("unix://{}", self.path.display()),
            source: source.into(),
        }
    }

    /// Sends one request of the HTTP API, and waits for the head of its answer.
    pub(super) async fn request(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, EngineError> {
        let stream = UnixStream::connect(&self.path).await.map_err(|e| self.unreachable(e))?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|e| self.unreachable(e))?;
        // Ends by itself when the answer was read or dropped, or when the connection is upgraded.
        tokio::spawn(connection.with_upgrades());
        sender.send_request(request).await.map_err(|e| self.unreachable(e))
    }

    /// Upgrades a connection to a plain two-way stream, with `POST path` and `Upgrade: h2c`.
    pub(super) async fn upgrade(
        &self,
        path: &'static str,
        headers: impl FnOnce(Builder) -> Builder,
    ) -> Result<Upgraded, EngineError> {
        let builder = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(HOST, "engine")
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, "h2c");
        let request =
            headers(builder).body(Full::new(Bytes::new())).map_err(|e| self.unreachable(e))?;
        let response = tokio::time::timeout(HANDED_OVER, self.request(request))
            .await
            .map_err(|elapsed| self.unreachable(elapsed))??;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(EngineError::Refused {
                what: "open a BuildKit session (Docker Engine 20.10 or newer can)",
                message: refusal(response).await,
            });
        }
        hyper::upgrade::on(response).await.map_err(|e| self.unreachable(e))
    }

    /// Opens a connection to the engine's BuildKit.
    pub(super) async fn control(&self) -> Result<Control, EngineError> {
        let stream = self.upgrade("/grpc", |request| request).await?;
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(TRIED_EVERY)
            .keep_alive_timeout(SHOWS_WITHIN)
            .handshake(stream)
            .await
            .map_err(|e| self.unreachable(e))?;
        let driver = tokio::spawn(async move {
            // An error of the connection is also returned by every call on it.
            let _reported_there = connection.await;
        });
        let client =
            ControlClient::with_origin(Calls(sender), hyper::Uri::from_static("http://engine"))
                .max_decoding_message_size(MESSAGE_LIMIT);
        Ok(Control { client, _driver: AbortOnDropHandle::new(driver) })
    }
}

/// The message of an error response: `{"message":"…"}`, or any text.
pub(super) async fn refusal(response: Response<Incoming>) -> String {
    #[derive(serde::Deserialize)]
    struct Message {
        message: String,
    }

    let status = response.status();
    let body = match Limited::new(response.into_body(), REFUSAL_LIMIT).collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => Bytes::new(),
    };
    match serde_json::from_slice::<Message>(&body) {
        Ok(Message { message }) => message,
        Err(_) => format!("HTTP {status}: {}", String::from_utf8_lossy(&body).trim()),
    }
}

/// A connection to the engine's BuildKit. Dropping it cancels its calls.
pub(super) struct Control {
    /// The client for calls.
    pub(super) client: ControlClient<Calls>,
    _driver: AbortOnDropHandle<()>,
}

/// Sends calls over one HTTP/2 connection. It never reconnects, because the engine ties a build to its connection.
#[derive(Clone)]
pub(super) struct Calls(http2::SendRequest<tonic::body::Body>);

impl tower::Service<Request<tonic::body::Body>> for Calls {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<tonic::body::Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}
