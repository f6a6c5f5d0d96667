//! TLS with certificate and key from files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// The files of certificate and key, in PEM.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The certificate, with intermediate ones.
    pub certificate: PathBuf,
    /// The certificate's private key.
    pub key: PathBuf,
}

/// TLS cannot be configured.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or has no such item.
    #[error("{path} has no readable {what} in PEM format")]
    File {
        path: PathBuf,
        /// The item that it should have.
        what: &'static str,
        /// The cause.
        source: rustls_pki_types::pem::Error,
    },
    /// Certificate and key do not match, or their type is not supported.
    #[error("{certificate} and {key} cannot be used together")]
    Unusable {
        /// The certificate.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
        /// The cause.
        source: rustls::Error,
    },
}

pub(crate) fn server_config(files: &TlsFiles) -> Result<ServerConfig, TlsError> {
    let certificates = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|source| unreadable(&files.certificate, "certificate", source))?;
    if certificates.is_empty() {
        let source = rustls_pki_types::pem::Error::NoItemsFound;
        return Err(unreadable(&files.certificate, "certificate", source));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|source| unreadable(&files.key, "private key", source))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(certificates, key))
        .map_err(|source| TlsError::Unusable {
            certificate: files.certificate.clone(),
            key: files.key.clone(),
            source,
        })
}

fn unreadable(path: &Path, what: &'static str, source: rustls_pki_types::pem::Error) -> TlsError {
    TlsError::File { path: path.to_owned(), what, source }
}
