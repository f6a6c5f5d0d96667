//! TLS with a CA that only the test knows.

use gantry_redis::{ConnectError, RedisOptions, RedisStore};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use crate::batches::{load, put};
use crate::server::{Server, free_port};
use gantry_seams::store::Store;

#[tokio::test]
async fn tls_connects_only_to_servers_of_the_ca() {
    let (files, other) = (certificates(), certificates());
    let path = |folder: &TempDir, name: &str| folder.path().join(name).display().to_string();
    let port = free_port();
    let tls_port = port.to_string();
    let (ca, certificate, key) =
        (path(&files, "ca.pem"), path(&files, "server.pem"), path(&files, "server.key"));
    let arguments = [
        ["--port", "0"],
        ["--tls-port", &tls_port],
        ["--tls-ca-cert-file", &ca],
        ["--tls-cert-file", &certificate],
        ["--tls-key-file", &key],
        ["--tls-auth-clients", "no"],
        ["--appendonly", "yes"],
        ["--appendfsync", "always"],
    ];
    let _server = Server::run(port, arguments.as_flattened().iter().copied()).await;

    let url = format!("rediss://localhost:{port}");
    let trusting = |folder: &TempDir| RedisOptions {
        ca_file: Some(folder.path().join("ca.pem")),
        ..RedisOptions::parse(&url).unwrap()
    };
    let store = RedisStore::connect(trusting(&files)).await.unwrap();
    store.commit(put("a", "1")).await.unwrap();
    assert!(load(&store, "a").await.unwrap().is_some());

    let stranger = RedisStore::connect(trusting(&other)).await.unwrap_err();
    assert!(matches!(stranger, ConnectError::Tls { .. }), "{stranger:?}");
    let no_file = RedisOptions { ca_file: Some("/none".into()), ..trusting(&files) };
    let no_file = RedisStore::connect(no_file).await.unwrap_err();
    assert!(matches!(no_file, ConnectError::CaFile { .. }), "{no_file:?}");

    let plain = RedisOptions::parse(&format!("redis://localhost:{port}")).unwrap();
    let plain = RedisStore::connect(plain).await.unwrap_err();
    assert!(matches!(plain, ConnectError::Unreachable { .. }), "{plain:?}");
    assert!(plain.to_string().contains("rediss://"));
}

/// A CA, and a certificate for `localhost` that it signed.
fn certificates() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_key = KeyPair::generate().unwrap();
    let ca = params.self_signed(&ca_key).unwrap();
    let issuer = Issuer::new(params, ca_key);
    let key = KeyPair::generate().unwrap();
    let server = CertificateParams::new(["localhost".to_owned()]).unwrap();
    let server = server.signed_by(&key, &issuer).unwrap();
    for (name, text) in
        [("ca.pem", ca.pem()), ("server.pem", server.pem()), ("server.key", key.serialize_pem())]
    {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}
