//! Connections of strangers who ask for nothing, or send what nobody reads, are ended.
//!
//! actix-web times the head of a connection's first request, and the pause before the next one begins. A later head that
//! begins and never ends is timed by nothing: half a request each, and a stranger would hold every place there is for ever.
//! So a connection has to show a token, or to ask for something now and then.

use std::any::Any;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use actix_tls::accept::rustls_0_23::TlsStream;
use actix_web::HttpRequest;
use actix_web::body::MessageBody;
use actix_web::dev::{Extensions, ServiceResponse};
use actix_web::http::header;
use actix_web::rt::net::TcpStream as Accepted;
use rustix::net::sockopt;
use tokio_util::sync::CancellationToken;

/// Who reads nothing of an answer for so long is let go: what waits for it is memory. The kernel watches over it.
const UNREAD_FOR: Duration = Duration::from_secs(60);

const LOOK_EACH: Duration = Duration::from_secs(1);

/// The connections that are open.
pub(crate) struct Connections {
    open: Mutex<Vec<Weak<Connection>>>,
    patience: Duration,
}

/// One connection, as long as it is open.
struct Connection {
    /// A second handle: the first belongs to the server.
    socket: TcpStream,
    opened: Instant,
    /// When it asked last, in milliseconds since it was opened.
    asked: AtomicU64,
    has_token: AtomicBool,
}

impl Connections {
    /// Connections that may ask for nothing this long.
    pub(crate) fn new(patience: Duration) -> Self {
        Self { open: Mutex::default(), patience }
    }

    /// Somebody connected.
    pub(crate) fn admit(&self, stream: &dyn Any, extensions: &mut Extensions) {
        let plain = stream.downcast_ref::<Accepted>();
        let Some(stream) = plain.or_else(|| {
            stream.downcast_ref::<TlsStream<Accepted>>().map(|stream| stream.get_ref().0)
        }) else {
            return;
        };
        match Connection::new(stream) {
            Ok(connection) => {
                let connection = Arc::new(connection);
                self.lock().push(Arc::downgrade(&connection));
                extensions.insert(connection);
            }
            Err(error) => tracing::debug!("a connection is not watched: {error}"),
        }
    }

    /// Ends those that ask for nothing, until `stop`.
    pub(crate) async fn keep_looking(&self, stop: &CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(LOOK_EACH)).await.is_some() {
            self.end_idle();
        }
    }

    fn end_idle(&self) {
        self.lock().retain(|connection| {
            let Some(connection) = connection.upgrade() else { return false };
            let is_idle = connection.is_idle(self.patience);
            if is_idle {
                connection.end(Shutdown::Both);
            }
            !is_idle
        });
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Weak<Connection>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
    fn new(stream: &Accepted) -> io::Result<Self> {
        let millis = u32::try_from(UNREAD_FOR.as_millis()).unwrap_or(u32::MAX);
        sockopt::set_tcp_user_timeout(stream, millis)?;
        Ok(Self {
            socket: stream.as_fd().try_clone_to_owned()?.into(),
            opened: Instant::now(),
            asked: AtomicU64::new(0),
            has_token: AtomicBool::new(false),
        })
    }

    fn is_idle(&self, patience: Duration) -> bool {
        let asked = Duration::from_millis(self.asked.load(Ordering::Relaxed));
        let quiet = self.opened.elapsed().saturating_sub(asked);
        quiet > patience && !self.has_token.load(Ordering::Relaxed)
    }

    fn end(&self, how: Shutdown) {
        if let Err(error) = self.socket.shutdown(how) {
            tracing::debug!("a connection that is ended was gone already: {error}");
        }
    }
}

/// A request's head came, whole.
pub(crate) fn asked(request: &HttpRequest) {
    if let Some(connection) = request.conn_data::<Arc<Connection>>() {
        let since = u64::try_from(connection.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        connection.asked.store(since, Ordering::Relaxed);
    }
}

/// A request was answered. actix-web reads a refused body in chunks to its end, however far that is: it is cut here.
pub(crate) fn answered(response: &ServiceResponse<impl MessageBody>) {
    let request = response.request();
    let is_refused = response.status().is_client_error() || response.status().is_server_error();
    if is_refused
        && request.headers().contains_key(header::TRANSFER_ENCODING)
        && let Some(connection) = request.conn_data::<Arc<Connection>>()
        && !connection.has_token.load(Ordering::Relaxed)
    {
        connection.end(Shutdown::Read);
    }
}

/// A request of this connection showed a valid token: its answers may take as long as a run.
pub(crate) fn showed_token(request: &HttpRequest) {
    if let Some(connection) = request.conn_data::<Arc<Connection>>() {
        connection.has_token.store(true, Ordering::Relaxed);
    }
}
