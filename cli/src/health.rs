//! Serves `/healthz`, `/readyz` and `/metrics` on `telemetry.listen`, for monitoring.
//!
//! This is a separate server that starts before anything else: an ingress listens only later, and a scheduler and a
//! worker do not listen at all.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use gantry_ops::health::Health;
use gantry_ops::metrics;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Scrapers and probes are few.
const MOST_CONNECTIONS: usize = 64;

/// The time limit for a request's head.
const HEAD_WITHIN: Duration = Duration::from_secs(10);

/// The pause if no connection can be accepted, probably for lack of file descriptors.
const REST: Duration = Duration::from_millis(100);

/// The content type of `/metrics`.
const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(crate) async fn bind(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!(
            "cannot listen on {address}: is it another program's? Choose one with --set telemetry.listen=ADDRESS"
        )
    })
}

/// Serves until the process ends.
pub(crate) async fn serve(listener: TcpListener, health: Health) {
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let health = health.clone();
                tokio::spawn(async move {
                    answer_all(stream, health).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::debug!("no connection to `telemetry.listen`: {error}");
                tokio::time::sleep(REST).await;
            }
        }
    }
}

async fn answer_all(stream: TcpStream, health: Health) {
    let service = service_fn(|request| {
        let health = health.clone();
        async move { Ok::<_, Infallible>(answer(&request, &health).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!("a connection to `telemetry.listen` broke: {error}");
    }
}

async fn answer(request: &Request<Incoming>, health: &Health) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
    }
    match request.uri().path() {
        "/healthz" => text(StatusCode::OK, "ok\n"),
        "/readyz" => readyz(health).await,
        "/metrics" => response(StatusCode::OK, PROMETHEUS_TEXT, metrics::render()),
        _ => text(StatusCode::NOT_FOUND, "here are /healthz, /readyz and /metrics\n"),
    }
}

async fn readyz(health: &Health) -> Response<Full<Bytes>> {
    let report = health.check().await;
    let status = if report.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    match serde_json::to_vec(&report) {
        Ok(json) => response(status, "application/json", json),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

fn text(status: StatusCode, words: impl Into<Bytes>) -> Response<Full<Bytes>> {
    response(status, "text/plain; charset=utf-8", words)
}

fn response(
    status: StatusCode,
    kind: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
