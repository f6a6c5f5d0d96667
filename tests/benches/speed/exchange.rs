//! One HTTP request over a separate connection.

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

/// Sends a request and reads the whole response, whose status must be a success.
pub(crate) async fn exchange<S, B>(stream: S, request: Request<B>) -> Result<Bytes>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    B: Body<Data: Send, Error: std::error::Error + Send + Sync> + Send + 'static,
{
    let answer = begin(stream, request).await?;
    Ok(answer.into_body().collect().await?.to_bytes())
}

/// Sends a request and reads the head of the response, whose status must be a success.
pub(crate) async fn begin<S, B>(stream: S, request: Request<B>) -> Result<Response<Incoming>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    B: Body<Data: Send, Error: std::error::Error + Send + Sync> + Send + 'static,
{
    let asked = format!("{} {}", request.method(), request.uri());
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let answer = sender.send_request(request).await.with_context(|| asked.clone())?;
    let status = answer.status();
    if !status.is_success() {
        let body = answer.into_body().collect().await?.to_bytes();
        bail!("{asked}: {status} {}", String::from_utf8_lossy(&body));
    }
    Ok(answer)
}
