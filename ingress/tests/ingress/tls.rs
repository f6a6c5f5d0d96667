//! TLS with certificate files, and shutdown.

use std::net::TcpListener;
use std::path::Path;

use futures_util::StreamExt as _;
use gantry_ingress::{IngressSettings, Listeners, ServeError, TlsFiles};
use rcgen::CertifiedKey;
use reqwest::{Certificate, Client, Method, StatusCode};
use serde_json::json;

use crate::rig::{TestServer, within};

/// Writes certificate and key for `localhost` to a folder; also returns the certificate's text.
fn files(folder: &Path, name: &str) -> (TlsFiles, String) {
    let CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let files = TlsFiles {
        certificate: folder.join(format!("{name}.pem")),
        key: folder.join(format!("{name}.key")),
    };
    std::fs::write(&files.certificate, cert.pem()).unwrap();
    std::fs::write(&files.key, signing_key.serialize_pem()).unwrap();
    (files, cert.pem())
}

#[tokio::test]
async fn the_server_speaks_tls_without_http_2() {
    let folder = tempfile::tempdir().unwrap();
    let (files, certificate) = files(folder.path(), "a");
    let settings = IngressSettings { tls: Some(files), ..IngressSettings::default() };
    let server = TestServer::open_with(settings, false).await;
    let root = Certificate::from_pem(certificate.as_bytes()).unwrap();
    let client = Client::builder().no_proxy().tls_certs_only([root]).build().unwrap();
    let url = server.url.replace("http://127.0.0.1", "https://localhost");
    let answer = client.get(format!("{url}/readyz")).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.version(), reqwest::Version::HTTP_11);
    let plain = server.client.get(format!("{}/readyz", server.url)).send().await;
    assert!(plain.is_err());
}

#[tokio::test]
async fn mismatched_tls_files_are_refused_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let (a, _) = files(folder.path(), "a");
    let (b, _) = files(folder.path(), "b");
    let absent = folder.path().join("absent.pem");
    for (certificate, key, expected) in [
        (&a.certificate, &b.key, "cannot be used together"),
        (&a.certificate, &absent, "has no readable private key in PEM"),
        (&a.key, &a.key, "has no readable certificate in PEM"),
    ] {
        let tls = Some(TlsFiles { certificate: certificate.clone(), key: key.clone() });
        let server = TestServer::open().await;
        let settings = IngressSettings { tls, ..IngressSettings::default() };
        let listeners = Listeners { api: TcpListener::bind("127.0.0.1:0").unwrap(), hooks: None };
        let served =
            gantry_ingress::run(server.ingress(settings), listeners, server.stop.clone()).await;
        match served {
            Err(ServeError::Tls(error)) => {
                assert!(error.to_string().contains(expected), "{error}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn shutdown_disconnects_readers_and_ends_at_once() {
    let mut server = TestServer::with_registry().await;
    let build = json!({"context": "https://git.test/a.git", "push": false});
    server.post("/registries/contoso/builds", build).await.expect(StatusCode::CREATED);
    let reader = server.api(Method::GET, "/runs/ca1/log/events").bearer_auth(&server.admin);
    let mut reader = reader.send().await.unwrap().bytes_stream();
    reader.next().await.unwrap().unwrap();

    server.stop.cancel();
    while within(reader.next()).await.is_some_and(|piece| piece.is_ok()) {}
    let served = within(server.served.take().unwrap()).await.unwrap();
    assert!(served.is_ok(), "{served:?}");
}
