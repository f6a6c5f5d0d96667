//! TLS by files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// Where certificate and key are, in PEM.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The certificate, and those between it and a root.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// TLS cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file cannot be read, or nothing of its kind is in it.
    #[error("{path} has no {what} in PEM that can be read")]
    File {
        path: PathBuf,
        /// What it should have.
        what: &'static str,
        /// Why not.
        source: rustls_pki_types::pem::Error,
    },
    /// Certificate and key do not fit, or are of a kind that is not spoken.
    #[error("{certificate} and {key} cannot be used together")]
    Unusable {
        /// The certificate.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
        /// Why not.
        source: rustls::Error,
    },
}

/// Reads the files.
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
