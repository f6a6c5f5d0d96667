//! A git host over TLS: a certificate of a CA that only the test knows, in front of another server.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use gantry_remote::git::{Git, GitLimits};
use gantry_remote::guard::OutboundPolicy;
use gantry_remote::http::OutboundClient;
use gantry_worker::source::Sources;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::{LIMITS, TestSources};

/// A TLS server. Its address, and the CA that signed its certificate.
pub(super) struct Tls {
    pub(super) address: SocketAddr,
    folder: TempDir,
}

impl Tls {
    /// Passes what it receives on to `plain`.
    pub(super) async fn before(plain: SocketAddr) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_key = KeyPair::generate().unwrap();
        let ca = params.self_signed(&ca_key).unwrap();
        let folder = TempDir::new().unwrap();
        std::fs::write(folder.path().join("ca.pem"), ca.pem()).unwrap();
        let issuer = Issuer::new(params, ca_key);
        let key = KeyPair::generate().unwrap();
        let own = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        let own = own.signed_by(&key, &issuer).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![own.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let Ok(mut secure) = acceptor.accept(stream).await else { return };
                    let Ok(mut plain) = TcpStream::connect(plain).await else { return };
                    let _gone = tokio::io::copy_bidirectional(&mut secure, &mut plain).await;
                });
            }
        });
        Self { address, folder }
    }

    /// Sources whose git trusts the CA, as if it were installed on the machine.
    pub(super) fn trusting(&self) -> TestSources {
        let program = self.program();
        let http = OutboundClient::new(OutboundPolicy::parse(["127.0.0.1"]).unwrap()).unwrap();
        let most =
            GitLimits { fetched_bytes: 64 << 20, checkout_bytes: 64 << 20, checkout_files: 1000 };
        let git = Git::new(Arc::clone(http.policy()), most).with_program(program);
        let folder = TempDir::new().unwrap();
        let sources = Sources::open(folder.path().to_owned(), git, http, LIMITS, 1 << 30).unwrap();
        TestSources { folder, sources }
    }

    fn program(&self) -> PathBuf {
        let program = self.folder.path().join("git");
        let ca = self.folder.path().join("ca.pem");
        let text = format!("#!/bin/sh\nGIT_SSL_CAINFO='{}' exec git \"$@\"\n", ca.display());
        std::fs::write(&program, text).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        program
    }
}
