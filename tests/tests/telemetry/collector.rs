//! A trace collector that records what it receives: OTLP over HTTP, like real ones.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// The key that senders must send.
pub(crate) const KEY: &str = "key-of-the-collector";

/// A received span.
#[derive(Debug, Clone)]
pub(crate) struct Span {
    /// The service that sent it.
    pub(crate) service: String,
    pub(crate) name: String,
    pub(crate) trace: String,
    pub(crate) id: String,
    pub(crate) parent: String,
    /// Including those of its resource.
    pub(crate) attributes: Vec<(String, String)>,
}

impl Span {
    pub(crate) fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

#[derive(Default)]
struct Kept {
    spans: Mutex<Vec<Span>>,
    bodies: Mutex<Vec<Bytes>>,
}

pub(crate) struct Collector {
    address: SocketAddr,
    kept: Arc<Kept>,
    serving: JoinHandle<()>,
}

impl Collector {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let kept = Arc::default();
        let serving = tokio::spawn(serve(listener, Arc::clone(&kept)));
        Self { address, kept, serving }
    }

    /// The base URL.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All spans received so far.
    pub(crate) fn spans(&self) -> Vec<Span> {
        self.kept.spans.lock().unwrap().clone()
    }

    /// All request bodies received so far.
    pub(crate) fn sent(&self) -> Vec<Bytes> {
        self.kept.bodies.lock().unwrap().clone()
    }

    /// Waits until `wanted` returns a result for the spans.
    pub(crate) async fn until<T>(&self, wanted: impl Fn(&[Span]) -> Option<T>) -> T {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let spans = self.spans();
            if let Some(found) = wanted(&spans) {
                return found;
            }
            assert!(Instant::now() < deadline, "it does not come; there are {spans:#?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(listener: TcpListener, kept: Arc<Kept>) {
    while let Ok((stream, _)) = listener.accept().await {
        let kept = Arc::clone(&kept);
        tokio::spawn(async move {
            let keep = service_fn(|request| keep(request, Arc::clone(&kept)));
            let _ended = http1::Builder::new().serve_connection(TokioIo::new(stream), keep).await;
        });
    }
}

async fn keep(
    request: Request<Incoming>,
    kept: Arc<Kept>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    assert_eq!(request.uri().path(), "/v1/traces");
    assert_eq!(request.headers().get("x-key").unwrap(), KEY);
    let body = request.into_body().collect().await.unwrap().to_bytes();
    kept.bodies.lock().unwrap().push(body.clone());
    let sent = ExportTraceServiceRequest::decode(body).unwrap();
    for of_resource in sent.resource_spans {
        let resource = texts(of_resource.resource.unwrap_or_default().attributes);
        let service = resource.iter().find(|(name, _)| name == "service.name").unwrap().1.clone();
        for span in of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            let mut attributes = texts(span.attributes);
            attributes.extend(resource.clone());
            kept.spans.lock().unwrap().push(Span {
                service: service.clone(),
                name: span.name,
                trace: hex::encode(span.trace_id),
                id: hex::encode(span.span_id),
                parent: hex::encode(span.parent_span_id),
                attributes,
            });
        }
    }
    Ok(Response::new(Full::default()))
}

fn texts(attributes: Vec<KeyValue>) -> Vec<(String, String)> {
    attributes.into_iter().map(|pair| (pair.key, text(pair.value))).collect()
}

fn text(value: Option<AnyValue>) -> String {
    match value.and_then(|value| value.value) {
        Some(any_value::Value::StringValue(text)) => text,
        Some(other) => format!("{other:?}"),
        None => String::new(),
    }
}
