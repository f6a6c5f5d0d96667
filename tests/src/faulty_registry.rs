//! A proxy before a registry that makes some requests fail like a bad network or a busy registry.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::RETRY_AFTER;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// The fault of a request.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// It is answered with this status, and optionally a `Retry-After` in seconds.
    Status(u16, Option<u64>),
    /// Its connection breaks after this many bytes of its body.
    BreaksAfter(usize),
    /// It is never answered.
    Silence,
    /// It is answered with an endless body.
    EndlessBody,
    /// It is answered with another body than the registry's.
    WrongBody,
}

/// A number of requests to fail, and how.
struct Plan {
    method: &'static str,
    part: &'static str,
    times: usize,
    fault: Fault,
}

/// A registry behind a proxy. Dropping it stops the proxy.
pub struct FaultyRegistry {
    address: SocketAddr,
    before: Arc<Before>,
    serving: JoinHandle<()>,
}

struct Before {
    registry: String,
    plans: Mutex<Vec<Plan>>,
    requests: Mutex<Vec<String>>,
}

type Body = BoxBody<Bytes, hyper::Error>;

impl FaultyRegistry {
    /// Starts a proxy on a free port of 127.0.0.1 for the registry at `host:port`.
    ///
    /// # Errors
    /// The system's error.
    pub async fn start(registry: &str) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let before = Arc::new(Before {
            registry: registry.to_owned(),
            plans: Mutex::default(),
            requests: Mutex::default(),
        });
        let serving = tokio::spawn(serve(listener, Arc::clone(&before)));
        Ok(Self { address, before, serving })
    }

    /// `127.0.0.1:PORT`
    #[must_use]
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// Makes the next `times` requests fail that have this method and `part` in their path.
    pub fn plan(&self, times: usize, method: &'static str, part: &'static str, fault: Fault) {
        lock(&self.before.plans).push(Plan { method, part, times, fault });
    }

    /// `METHOD path` of each request so far.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        lock(&self.before.requests).clone()
    }

    /// Whether all planned faults have happened.
    #[must_use]
    pub fn is_done(&self) -> bool {
        lock(&self.before.plans).iter().all(|plan| plan.times == 0)
    }
}

impl Drop for FaultyRegistry {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(listener: TcpListener, before: Arc<Before>) {
    while let Ok((stream, _)) = listener.accept().await {
        let before = Arc::clone(&before);
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let before = Arc::clone(&before);
                async move { before.answer(request).await.map_err(std::io::Error::other) }
            });
            // An error here closes the connection, which is the intended effect of some faults.
            let _closed = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

impl Before {
    fn fault(&self, request: &Request<Incoming>) -> Option<Fault> {
        lock(&self.requests).push(format!("{} {}", request.method(), request.uri().path()));
        let mut plans = lock(&self.plans);
        let is_meant = |plan: &&mut Plan| {
            plan.times > 0
                && request.method() == plan.method
                && request.uri().path().contains(plan.part)
        };
        let plan = plans.iter_mut().find(is_meant)?;
        plan.times -= 1;
        Some(plan.fault)
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Body>> {
        match self.fault(&request) {
            None => self.pass(request).await,
            Some(Fault::Silence) => std::future::pending().await,
            Some(Fault::Status(status, wait)) => {
                let mut answer = Response::builder().status(status);
                if let Some(wait) = wait {
                    answer = answer.header(RETRY_AFTER, wait);
                }
                Ok(answer.body(whole(Bytes::new()))?)
            }
            Some(Fault::BreaksAfter(most)) => {
                let mut body = request.into_body();
                let mut read = 0;
                while read < most {
                    let Some(frame) = body.frame().await else { break };
                    read += frame?.into_data().map_or(0, |data| data.len());
                }
                bail!("the connection breaks")
            }
            Some(Fault::EndlessBody) => {
                let piece =
                    || Ok::<_, hyper::Error>(Frame::data(Bytes::from_static(&[b' '; 65536])));
                let body = StreamBody::new(stream::repeat_with(piece));
                Ok(without_length(self.pass(request).await?.map(|_| body.boxed())))
            }
            Some(Fault::WrongBody) => {
                let wrong = whole(Bytes::from_static(b"{}"));
                Ok(without_length(self.pass(request).await?.map(|_| wrong)))
            }
        }
    }

    async fn pass(&self, request: Request<Incoming>) -> Result<Response<Body>> {
        let stream = TcpStream::connect(&self.registry).await.context("the registry is there")?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let answer = sender.send_request(request).await?;
        Ok(answer.map(|body| body.boxed()))
    }
}

fn without_length(mut answer: Response<Body>) -> Response<Body> {
    answer.headers_mut().remove(hyper::header::CONTENT_LENGTH);
    answer
}

fn whole(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed()
}
