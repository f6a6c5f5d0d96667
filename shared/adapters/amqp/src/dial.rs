//! Opens a connection to one address.

use std::fmt;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use lapin::protocol::{AMQPClass, connection};
use lapin::tcp::{RustlsConnector, RustlsConnectorConfig};
use lapin::types::AMQPValue;
use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo};
use lapin::{AsyncTcpStream, Connection, ConnectionProperties, ErrorKind};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use secrecy::ExposeSecret;
use tokio::time::timeout;

use crate::error::ConnectError;
use crate::options::{Address, AmqpOptions};

/// The time limit for the TCP connection and the TLS handshake.
const OPEN: Duration = Duration::from_secs(5);
/// The time limit for the whole attempt.
const DIAL: Duration = Duration::from_secs(10);
/// Lapin buffers 64 frames per connection, and the messages are small. RabbitMQ 4 requires at least 8 KiB.
const FRAME: u32 = 16 * 1024;
const OLDEST: (u32, u32) = (3, 10);

const ACCESS_REFUSED: u16 = 403;
const NOT_ALLOWED: u16 = 530;

/// Opens connections with these options.
pub(crate) struct Dialer {
    options: AmqpOptions,
    tls: Option<Arc<RustlsConnector>>,
}

impl Dialer {
    /// # Errors
    /// [`ConnectError::Tls`]: the certificates cannot be loaded.
    pub(crate) fn new(options: AmqpOptions) -> Result<Self, ConnectError> {
        let needs_tls = options.addresses.iter().any(|address| address.tls);
        let tls = if needs_tls { Some(Arc::new(connector(&options)?)) } else { None };
        Ok(Self { options, tls })
    }

    pub(crate) fn options(&self) -> &AmqpOptions {
        &self.options
    }

    pub(crate) async fn dial(&self, address: &Address) -> Result<Connection, ConnectError> {
        let hangup = Hangup::default();
        let dialing = self.open(address, hangup.clone());
        match timeout(DIAL, dialing).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(self.refused(address, &error)),
            Err(_) => {
                // Lapin's thread would wait for the broker's answer for ever.
                hangup.now();
                Err(unreachable(address, "it took too long"))
            }
        }
    }

    async fn open(&self, address: &Address, hangup: Hangup) -> lapin::Result<Connection> {
        let tls = self.tls.clone().filter(|_| address.tls);
        let (host, port) = (address.host.clone(), address.port);
        Connection::connector(
            self.uri(address),
            lapin::runtime::default_runtime()?,
            async move |_, runtime| {
                let open = async || -> io::Result<_> {
                    let found: Vec<SocketAddr> =
                        tokio::net::lookup_host((host.as_str(), port)).await?.collect();
                    let stream = AsyncTcpStream::connect(&runtime, found).await?;
                    if let AsyncTcpStream::Plain(socket) = &stream {
                        hangup.hold(socket.get_ref().as_fd().try_clone_to_owned()?.into());
                    }
                    let Some(tls) = &tls else { return Ok(stream) };
                    stream.into_rustls(tls, &host).await.map_err(Obstacle::of_tls)
                };
                let opened = timeout(OPEN, async {
                    require_new_enough(open().await?).await?;
                    open().await
                });
                Ok(opened.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?)
            },
            ConnectionProperties::default().with_connection_name(self.options.name.as_str().into()),
        )
        .await
    }

    fn uri(&self, address: &Address) -> AMQPUri {
        let heartbeat = u16::try_from(self.options.heartbeat.as_secs()).unwrap_or(u16::MAX).max(1);
        AMQPUri {
            scheme: if address.tls { AMQPScheme::AMQPS } else { AMQPScheme::AMQP },
            authority: AMQPAuthority {
                userinfo: AMQPUserInfo {
                    username: self.options.user.clone(),
                    password: self.options.password.expose_secret().to_owned(),
                },
                host: address.host.clone(),
                port: address.port,
            },
            vhost: self.options.vhost.clone(),
            query: AMQPQueryString {
                frame_max: Some(FRAME),
                heartbeat: Some(heartbeat),
                ..AMQPQueryString::default()
            },
        }
    }

    fn refused(&self, address: &Address, error: &lapin::Error) -> ConnectError {
        let (user, vhost) = (self.options.user.clone(), self.options.vhost.clone());
        let address = address.clone();
        if let ErrorKind::ProtocolError(said) = error.kind() {
            let why = said.get_message().to_string();
            return match said.get_id() {
                ACCESS_REFUSED => ConnectError::WrongPassword { address, user },
                NOT_ALLOWED if why.contains("not found") => {
                    ConnectError::NoVhost { address, vhost }
                }
                NOT_ALLOWED => ConnectError::NotPermitted { user, vhost, why },
                _ => unreachable(&address, why),
            };
        }
        match Obstacle::in_error(error) {
            Some(Obstacle::Tls(why)) => {
                ConnectError::Tls { at: address.to_string(), why: why.clone() }
            }
            Some(Obstacle::TooOld(version)) => {
                ConnectError::TooOld { address, version: version.clone() }
            }
            Some(Obstacle::Foreign) | None => unreachable(&address, plain(error)),
        }
    }
}

fn unreachable(address: &Address, why: impl fmt::Display) -> ConnectError {
    ConnectError::Unreachable { tried: format!("{address} ({why})") }
}

/// Lapin's message, without its prefix for errors of the socket.
pub(crate) fn plain(error: &lapin::Error) -> String {
    if let ErrorKind::IOError(error) = error.kind() {
        error.to_string()
    } else if let ErrorKind::ProtocolError(error) = error.kind() {
        error.get_message().to_string()
    } else {
        error.to_string()
    }
}

/// What fails before lapin takes over.
#[derive(Debug, thiserror::Error)]
enum Obstacle {
    #[error("{0}")]
    Tls(String),
    #[error("it is version {0}")]
    TooOld(String),
    #[error("the server there does not speak AMQP 0-9-1")]
    Foreign,
}

impl Obstacle {
    /// Only errors of certificates and protocols are permanent.
    fn of_tls(error: io::Error) -> io::Error {
        let lasts =
            matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput);
        if lasts { io::Error::other(Self::Tls(error.to_string())) } else { error }
    }

    fn in_error(error: &lapin::Error) -> Option<&Self> {
        let ErrorKind::IOError(error) = error.kind() else { return None };
        error.get_ref()?.downcast_ref()
    }
}

/// Closes a socket that another thread reads.
#[derive(Clone, Default)]
struct Hangup(Arc<Mutex<Option<TcpStream>>>);

impl Hangup {
    fn hold(&self, socket: TcpStream) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(socket);
    }

    fn now(&self) {
        if let Some(socket) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // It may already be closed.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

fn connector(options: &AmqpOptions) -> Result<RustlsConnector, ConnectError> {
    let Some(file) = &options.ca_file else {
        let machines = "the machine's certificates".to_owned();
        return RustlsConnectorConfig::new_with_native_certs()
            .and_then(RustlsConnectorConfig::connector_with_no_client_auth)
            .map_err(|error| ConnectError::Tls { at: machines, why: error.to_string() });
    };
    let unusable = |why: String| ConnectError::Tls { at: file.display().to_string(), why };
    let certificates: Vec<_> = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .map_err(|error| unusable(error.to_string()))?;
    if certificates.is_empty() {
        return Err(unusable("there is no certificate in it".to_owned()));
    }
    RustlsConnectorConfig::default()
        .with_parsable_certificates(certificates)
        .connector_with_no_client_auth()
        .map_err(|error| unusable(error.to_string()))
}

/// The broker reports its version in the first frame, which lapin does not expose; so the version is read on an extra
/// handshake.
async fn require_new_enough(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    stream.write_all(b"AMQP\x00\x00\x09\x01").await?;
    stream.flush().await?;
    let foreign = || io::Error::other(Obstacle::Foreign);
    let version =
        first_frame(&mut stream).await.as_deref().and_then(version).ok_or_else(foreign)?;
    if is_too_old(&version) { Err(io::Error::other(Obstacle::TooOld(version))) } else { Ok(()) }
}

/// The payload of a method frame on channel 0.
async fn first_frame(stream: &mut (impl AsyncRead + Unpin)) -> Option<Vec<u8>> {
    let mut head = [0; 7];
    stream.read_exact(&mut head).await.ok()?;
    let [1, 0, 0, size @ ..] = head else { return None };
    let size = u32::from_be_bytes(size);
    let mut payload = Vec::new();
    (size <= FRAME).then_some(())?;
    stream.take(u64::from(size)).read_to_end(&mut payload).await.ok()?;
    Some(payload)
}

/// The version in `connection.start`; empty for a broker other than RabbitMQ.
fn version(payload: &[u8]) -> Option<String> {
    let (_, method) = lapin::protocol::parse_class(payload).ok()?;
    let AMQPClass::Connection(connection::AMQPMethod::Start(start)) = method else { return None };
    let property = |name| match start.server_properties.inner().get(name) {
        Some(AMQPValue::LongString(text)) => text.to_string(),
        _ => String::new(),
    };
    let is_rabbit = property("product") == "RabbitMQ";
    Some(if is_rabbit { property("version") } else { String::new() })
}

/// A version that does not parse counts as new enough.
fn is_too_old(version: &str) -> bool {
    let mut parts = version.split('.').map_while(|part| part.parse::<u32>().ok());
    match (parts.next(), parts.next()) {
        (Some(major), Some(minor)) => (major, minor) < OLDEST,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_before_3_10_are_too_old() {
        for old in ["2.8.7", "3.9.29", "3.0"] {
            assert!(is_too_old(old), "{old}");
        }
        for new in ["3.10.0", "3.13.7", "4.0.2", "4.1.0-rc.1", "", "unknown"] {
            assert!(!is_too_old(new), "{new}");
        }
    }
}
