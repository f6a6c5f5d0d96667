//! Closes idle connections, and limits the connections of tokens so that some are left for hooks and health checks.
//!
//! actix-web has timeouts for the head of a connection's first request and for the pause between two requests, but none
//! for a later head. With half a request on each connection, one sender could hold all of them for ever. So every
//! connection without a request in progress is closed after a while. One with a request in progress has no limit if it
//! showed a token, since a run may take long; otherwise `patience` is the limit.

use std::any::Any;
use std::collections::HashMap;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd as _;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use actix_tls::accept::rustls_0_23::TlsStream;
use actix_web::HttpRequest;
use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{Extensions, ServiceResponse};
use actix_web::http::{ConnectionType, header};
use actix_web::rt::net::TcpStream as ActixTcpStream;
use actix_web::web::Bytes;
use gantry_domain::id::TokenId;
use rustix::net::sockopt;
use tokio_util::sync::CancellationToken;

use crate::refusal::Refusal;

/// The most connections of a listener that may belong to tokens. The others are for hooks and health checks.
const MOST_WITH_TOKEN: usize = 3072;

/// The most connections of one token.
pub(crate) const MOST_OF_ONE_TOKEN: usize = 1024;

/// The kernel disconnects a client that does not read its answer for this long, because unsent answers take memory.
const UNREAD_FOR: Duration = Duration::from_secs(60);

const LOOK_EACH: Duration = Duration::from_secs(1);

pub(crate) struct Connections {
    open: Mutex<Vec<Weak<Connection>>>,
    permits: Arc<TokenPermits>,
    patience: Duration,
}

/// An open connection.
struct Connection {
    /// A second handle; the first belongs to the server.
    socket: TcpStream,
    opened: Instant,
    /// When a request on it last began or was answered, in milliseconds since `opened`.
    moved: AtomicU64,
    /// The number of its requests in progress.
    under_way: AtomicU32,
    /// Set by the first valid token on this connection.
    permit: OnceLock<TokenPermit>,
    permits: Arc<TokenPermits>,
}

/// The number of connections of each token.
#[derive(Default)]
struct TokenPermits(Mutex<HashMap<TokenId, usize>>);

/// Allows one connection to belong to a token; released when dropped.
struct TokenPermit {
    token: TokenId,
    permits: Arc<TokenPermits>,
}

impl Connections {
    /// Each connection may be idle for `patience`.
    pub(crate) fn new(patience: Duration) -> Self {
        Self { open: Mutex::default(), permits: Arc::default(), patience }
    }

    /// Registers a new connection.
    pub(crate) fn admit(&self, stream: &dyn Any, extensions: &mut Extensions) {
        let plain = stream.downcast_ref::<ActixTcpStream>();
        let Some(stream) = plain.or_else(|| {
            stream.downcast_ref::<TlsStream<ActixTcpStream>>().map(|stream| stream.get_ref().0)
        }) else {
            return;
        };
        match Connection::new(stream, &self.permits) {
            Ok(connection) => {
                let connection = Arc::new(connection);
                self.lock().push(Arc::downgrade(&connection));
                extensions.insert(connection);
            }
            Err(error) => tracing::debug!("a connection cannot be tracked: {error}"),
        }
    }

    /// Closes idle connections until `stop` is cancelled.
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
    fn new(stream: &ActixTcpStream, permits: &Arc<TokenPermits>) -> io::Result<Self> {
        let millis = u32::try_from(UNREAD_FOR.as_millis()).unwrap_or(u32::MAX);
        sockopt::set_tcp_user_timeout(stream, millis)?;
        Ok(Self {
            socket: stream.as_fd().try_clone_to_owned()?.into(),
            opened: Instant::now(),
            moved: AtomicU64::new(0),
            under_way: AtomicU32::new(0),
            permit: OnceLock::new(),
            permits: Arc::clone(permits),
        })
    }

    fn is_idle(&self, patience: Duration) -> bool {
        let moved = Duration::from_millis(self.moved.load(Ordering::Relaxed));
        let quiet = self.opened.elapsed().saturating_sub(moved);
        let may_be_slow = self.has_token() && self.under_way.load(Ordering::Relaxed) > 0;
        quiet > patience && !may_be_slow
    }

    fn has_token(&self) -> bool {
        self.permit.get().is_some()
    }

    fn moves(&self) {
        let since = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.moved.store(since, Ordering::Relaxed);
    }

    fn end(&self, how: Shutdown) {
        if let Err(error) = self.socket.shutdown(how) {
            tracing::debug!("a connection was closed before it could be shut down: {error}");
        }
    }
}

impl TokenPermits {
    fn lock(&self) -> MutexGuard<'_, HashMap<TokenId, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(self: &Arc<Self>, token: &TokenId) -> Result<TokenPermit, NoPermit> {
        let mut taken = self.lock();
        if taken.get(token).is_some_and(|count| *count >= MOST_OF_ONE_TOKEN) {
            return Err(NoPermit::OfToken);
        }
        if taken.values().sum::<usize>() >= MOST_WITH_TOKEN {
            return Err(NoPermit::AtAll);
        }
        *taken.entry(token.clone()).or_default() += 1;
        Ok(TokenPermit { token: token.clone(), permits: Arc::clone(self) })
    }
}

impl Drop for TokenPermit {
    fn drop(&mut self) {
        let mut taken = self.permits.lock();
        if let Some(count) = taken.get_mut(&self.token) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.token);
            }
        }
    }
}

/// Why a connection may not belong to a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoPermit {
    /// The token has its maximum of connections.
    OfToken,
    /// All tokens together have theirs.
    AtAll,
}

pub(crate) struct UnderWay(Arc<Connection>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
        self.0.moves();
    }
}

/// Marks a request as in progress; called once its head is complete.
pub(crate) fn asked(request: &HttpRequest) -> Option<UnderWay> {
    let connection = request.conn_data::<Arc<Connection>>()?;
    connection.moves();
    connection.under_way.fetch_add(1, Ordering::Relaxed);
    Some(UnderWay(Arc::clone(connection)))
}

/// Closes the reading side after a refused request with a chunked body, which actix-web would otherwise read to its
/// end, however long it is. `Connection: close` keeps the client from sending its next request on this connection.
pub(crate) fn answered(response: &mut ServiceResponse<impl MessageBody>) {
    let is_refused = response.status().is_client_error() || response.status().is_server_error();
    if !is_refused || !response.request().headers().contains_key(header::TRANSFER_ENCODING) {
        return;
    }
    if let Some(connection) = response.request().conn_data::<Arc<Connection>>() {
        connection.end(Shutdown::Read);
    }
    response.response_mut().head_mut().set_connection_type(ConnectionType::Close);
}

/// Assigns a connection to the valid token that it showed, if there is a permit. Its requests may then be slow.
pub(crate) fn showed_token(request: &HttpRequest, token: &TokenId) -> Result<(), NoPermit> {
    if let Some(connection) = request.conn_data::<Arc<Connection>>()
        && !connection.has_token()
    {
        // A refused client must not keep the connection, which would still count as one for hooks and health checks.
        let permit =
            connection.permits.take(token).inspect_err(|_| connection.end(Shutdown::Read))?;
        // Two requests of one connection may get here at once; the second permit is released.
        let _second = connection.permit.set(permit);
    }
    Ok(())
}

/// An answer's body. Its request is in progress until the body is sent or the client is gone.
pub(crate) struct Body {
    body: BoxBody,
    _under_way: Option<UnderWay>,
}

impl Body {
    pub(crate) fn new(body: impl MessageBody + 'static, under_way: Option<UnderWay>) -> Self {
        Self { body: body.boxed(), _under_way: under_way }
    }
}

impl MessageBody for Body {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Pin::new(&mut self.body).poll_next(context)
    }

    fn try_into_bytes(self) -> Result<Bytes, Self> {
        let Self { body, _under_way } = self;
        body.try_into_bytes().map_err(|body| Self { body, _under_way })
    }
}

impl From<NoPermit> for Refusal {
    fn from(error: NoPermit) -> Self {
        match error {
            NoPermit::OfToken => Self::TooManyConnections { most: MOST_OF_ONE_TOKEN },
            NoPermit::AtAll => Self::Busy,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_leave_room_for_others_and_for_hooks() {
        let permits = Arc::new(TokenPermits::default());
        let [one, two, three, four] = ["t1", "t2", "t3", "t4"].map(|id| id.parse().unwrap());
        let mut taken = Vec::new();
        for token in [&one, &two, &three] {
            taken.extend((0..MOST_OF_ONE_TOKEN).map(|_| permits.take(token).unwrap()));
            assert_eq!(permits.take(token).err(), Some(NoPermit::OfToken));
        }
        assert_eq!(permits.take(&four).err(), Some(NoPermit::AtAll));
        const { assert!(MOST_WITH_TOKEN < crate::MOST_CONNECTIONS) };
        taken.pop();
        let permit = permits.take(&four).unwrap();
        drop((taken, permit));
        assert!(permits.lock().is_empty());
    }
}
