//! A server for the tests of vaults, and reading from it.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use gantry_domain::vault::VaultGrant;
use gantry_ops::secret::{ExposeSecret as _, SecretString};
use gantry_remote::guard::OutboundPolicy;
use gantry_remote::http::OutboundClient;
use gantry_remote::vault::{RemoteVaults, VaultConfig, VaultError, VaultKind, Vaults as _};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::registry::within;

/// A request.
pub(crate) struct Asked {
    pub(crate) method: String,
    /// Includes the query.
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

pub(crate) type Answer = Response<Full<Bytes>>;

/// Starts a server and returns its address. `None` is a request that is never answered.
pub(crate) async fn serve(
    answer: impl Fn(&Asked) -> Option<Answer> + Send + Sync + 'static,
) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = Arc::clone(&answer);
            tokio::spawn(async move {
                let service = service_fn(|request: Request<Incoming>| {
                    let answer = Arc::clone(&answer);
                    async move {
                        let (method, path) =
                            (request.method().to_string(), request.uri().to_string());
                        let headers = request.headers().clone();
                        let body = request.into_body().collect().await.unwrap().to_bytes();
                        let body = String::from_utf8_lossy(&body).into_owned();
                        match answer(&Asked { method, path, headers, body }) {
                            Some(answer) => Ok::<_, std::convert::Infallible>(answer),
                            None => std::future::pending().await,
                        }
                    }
                });
                let _gone = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    address
}

/// A server that sends `head` after a request and then keeps silent.
pub(crate) async fn stalled(head: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let _read = stream.read(&mut [0; 4096]).await;
            let _written = stream.write_all(head.as_bytes()).await;
            held.push(stream);
        }
    });
    address
}

pub(crate) fn answer(status: u16, body: &Value) -> Answer {
    let answer = Response::builder().status(status).header("content-type", "application/json");
    answer.body(body.to_string().into()).unwrap()
}

/// Made once, because it reads the system's certificates.
static HTTP: LazyLock<OutboundClient> =
    LazyLock::new(|| OutboundClient::new(OutboundPolicy::parse(["127.0.0.1"]).unwrap()).unwrap());

/// The vaults that are configured with `kind` at `origin`, all of whose secrets the registry `web` may read. Only
/// 127.0.0.1 may be connected to.
pub(crate) fn vaults(origin: &str, kind: VaultKind) -> RemoteVaults {
    let grant = |path| VaultGrant {
        registry: "web".parse().unwrap(),
        below: format!("{origin}{path}").parse().unwrap(),
    };
    let config = VaultConfig { origin: origin.parse().unwrap(), kind };
    RemoteVaults::new(&HTTP, vec![config], vec![grant("/secrets"), grant("/v1")]).unwrap()
}

/// Reads for the registry `web`.
pub(crate) async fn read_until(
    vaults: &RemoteVaults,
    address: &str,
    deadline: Instant,
) -> Result<String, VaultError> {
    let (registry, address) = ("web".parse().unwrap(), address.parse().unwrap());
    let value: SecretString = vaults.read(&registry, &address, deadline).await?;
    Ok(value.expose_secret().to_owned())
}

/// Reads for the registry `web`, with time enough on a busy machine.
pub(crate) async fn read(vaults: &RemoteVaults, address: &str) -> Result<String, VaultError> {
    read_until(vaults, address, within(30)).await
}
