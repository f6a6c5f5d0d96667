//! A registry that rejects all credentials, and quotes them in its error.

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// Starts it for the duration of the test. Returns its host.
pub(super) async fn start() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let connection = TokioIo::new(stream);
            tokio::spawn(http1::Builder::new().serve_connection(connection, service_fn(refuse)));
        }
    });
    host
}

async fn refuse(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let shown = request.headers().get("authorization").map(|shown| shown.to_str().unwrap());
    let body = serde_json::json!({"errors": [{
        "code": "UNAUTHORIZED",
        "message": format!("{} not with {}", request.uri(), shown.unwrap_or("nothing")),
    }]});
    let answer = Response::builder()
        .status(401)
        .header("www-authenticate", "Basic realm=\"locked\"")
        .header("content-type", "application/json");
    Ok(answer.body(Full::from(body.to_string())).unwrap())
}
