//! An HTTP server that records what it is asked, and fails on demand.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use percent_encoding::percent_decode_str;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// A request.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The method.
    pub method: String,
    /// The words of the path, decoded.
    pub words: Vec<String>,
    /// The query, decoded.
    pub query: Vec<(String, String)>,
    /// The headers.
    pub headers: HeaderMap,
    /// The body; `null` if it is empty or no JSON.
    pub body: Value,
}

impl Asked {
    /// The words of the path.
    #[must_use]
    pub fn words(&self) -> Vec<&str> {
        self.words.iter().map(String::as_str).collect()
    }

    /// A value of the query; empty if it is missing.
    #[must_use]
    pub fn query(&self, name: &str) -> &str {
        self.query.iter().find(|(found, _)| found == name).map_or("", |(_, value)| value)
    }

    /// A header; empty if it is missing.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// An answer.
pub type Answer = Response<Full<Bytes>>;

/// An answer of JSON.
///
/// # Panics
/// If `status` is none.
#[must_use]
pub fn json(status: u16, body: &Value) -> Answer {
    let answer = Response::builder().status(status).header(CONTENT_TYPE, "application/json");
    answer.body(body.to_string().into()).expect("a status")
}

type Respond = dyn Fn(&Asked) -> Answer + Send + Sync;
/// `None` is an answer that never comes.
type Fault = dyn Fn(&Asked) -> Option<Answer> + Send + Sync;

/// A server on a free port of 127.0.0.1. Dropping it closes its connections.
pub struct HostServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    serving: JoinHandle<()>,
}

struct Shared {
    respond: Box<Respond>,
    fault: Mutex<Option<Arc<Fault>>>,
    asked: Mutex<Vec<Asked>>,
}

impl HostServer {
    /// Starts a server that answers with `respond`.
    ///
    /// # Errors
    /// The system's error.
    pub async fn start(
        respond: impl Fn(&Asked) -> Answer + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            respond: Box::new(respond),
            fault: Mutex::default(),
            asked: Mutex::default(),
        });
        let serving = tokio::spawn(serve(listener, Arc::clone(&shared)));
        Ok(Self { address, shared, serving })
    }

    /// `127.0.0.1:PORT`
    #[must_use]
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// Answers with `fault` from now on. `None` from it is an answer that never comes.
    pub fn fail(&self, fault: impl Fn(&Asked) -> Option<Answer> + Send + Sync + 'static) {
        *self.shared.fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(fault));
    }

    /// Ends what [`HostServer::fail`] began.
    pub fn recover(&self) {
        *self.shared.fault.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The requests so far.
    #[must_use]
    pub fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for HostServer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(connection(stream, Arc::clone(&shared)));
    }
}

async fn connection(stream: TcpStream, shared: Arc<Shared>) {
    let service = service_fn(|request| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, Infallible>(shared.answer(request).await) }
    });
    // Clients are expected to disconnect.
    let _gone = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

impl Shared {
    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let asked = read(request).await;
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(asked.clone());
        let fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match fault.map(|fault| fault(&asked)) {
            None => (self.respond)(&asked),
            Some(Some(answer)) => answer,
            Some(None) => std::future::pending().await,
        }
    }
}

async fn read(request: Request<Incoming>) -> Asked {
    let (head, body) = request.into_parts();
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let words = head.uri.path().split('/').filter(|word| !word.is_empty()).map(decoded).collect();
    let query = head.uri.query().unwrap_or_default();
    let query = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(name), decoded(value))
    });
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    Asked {
        method: head.method.to_string(),
        words,
        query: query.collect(),
        headers: head.headers,
        body: serde_json::from_slice(&body).unwrap_or_default(),
    }
}
