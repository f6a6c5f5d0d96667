//! A HashiCorp Vault with one secret, which quotes tokens that it refuses.

use std::convert::Infallible;

use bytes::Bytes;
use gantry_tests::role::Setting;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpListener;

use super::canary;

#[derive(Clone)]
pub(super) struct Vault {
    /// Its address.
    address: String,
    /// The token that it accepts.
    pub(super) token: String,
    /// The value of its secret.
    pub(super) value: String,
}

impl Vault {
    /// Starts it for the duration of the test.
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let vault = Self { address, token: canary("vaulttoken"), value: canary("vaultsecret") };
        let serving = vault.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let vault = serving.clone();
                let answer = service_fn(move |request| {
                    let vault = vault.clone();
                    async move { Ok::<_, Infallible>(vault.answer(&request)) }
                });
                let connection = TokioIo::new(stream);
                tokio::spawn(http1::Builder::new().serve_connection(connection, answer));
            }
        });
        vault
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let given = request.headers().get("x-vault-token");
        let given = given.map_or("", |given| given.to_str().unwrap());
        let (status, body) = match (given == self.token, request.uri().path()) {
            (true, "/v1/secret/data/canary") => {
                (200, json!({"data": {"data": {"value": self.value}, "metadata": {"version": 3}}}))
            }
            (true, path) => (404, json!({"errors": [format!("nothing at {path} for {given}")]})),
            (false, _) => (403, json!({"errors": [format!("not with {given}")]})),
        };
        let answer = Response::builder().status(status).header("content-type", "application/json");
        answer.body(Full::from(body.to_string())).unwrap()
    }

    /// The address of a secret in it.
    pub(super) fn secret(&self, name: &str) -> String {
        format!("{}/v1/secret/data/{name}#value", self.address)
    }

    /// The settings of a scheduler that may read it; its token is in this file.
    pub(super) fn settings(&self, token_file: &str) -> Vec<Setting> {
        vec![
            ("vaults.grants", format!("[\"demo={}/v1/secret/data\"]", self.address)),
            ("hashicorp_vault.address", format!("{:?}", self.address)),
            ("hashicorp_vault.token_file", format!("{token_file:?}")),
        ]
    }
}
