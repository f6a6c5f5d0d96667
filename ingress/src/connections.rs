//! Connections that ask for nothing, or send what nobody reads, are ended; and tokens leave room for hooks and health.
//!
//! actix-web times the head of a connection's first request, and the pause before the next one begins. A later head that
//! begins and never ends is timed by nothing: half a request each, and one sender would hold every place there is for ever.
//! So a connection that has no request under way is ended after a while, whoever it belongs to. One with a request under
//! way may be as slow as a run if it showed a token, and as `patience` says if not.

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
use actix_web::rt::net::TcpStream as Accepted;
use actix_web::web::Bytes;
use gantry_domain::id::TokenId;
use rustix::net::sockopt;
use tokio_util::sync::CancellationToken;

use crate::refusal::Refusal;

/// How many connections may belong to tokens, of those that a listener has: the others are for hooks and health.
const MOST_WITH_TOKEN: usize = 3072;

/// How many connections may belong to one token.
pub(crate) const MOST_OF_ONE_TOKEN: usize = 1024;

/// Who reads nothing of an answer for so long is let go: what waits for it is memory. The kernel watches over it.
const UNREAD_FOR: Duration = Duration::from_secs(60);

const LOOK_EACH: Duration = Duration::from_secs(1);

/// The connections that are open.
pub(crate) struct Connections {
    open: Mutex<Vec<Weak<Connection>>>,
    places: Arc<Places>,
    patience: Duration,
}

/// One connection, as long as it is open.
struct Connection {
    /// A second handle: the first belongs to the server.
    socket: TcpStream,
    opened: Instant,
    /// When a request of it last began or was answered, in milliseconds since it was opened.
    moved: AtomicU64,
    /// How many requests of it are not answered yet.
    under_way: AtomicU32,
    /// Set by the first token that it shows.
    place: OnceLock<Place>,
    places: Arc<Places>,
}

/// How many connections belong to each token.
#[derive(Default)]
struct Places(Mutex<HashMap<TokenId, usize>>);

/// The place of one connection, given back when it ends.
struct Place {
    token: TokenId,
    places: Arc<Places>,
}

impl Connections {
    /// Connections that may ask for nothing this long.
    pub(crate) fn new(patience: Duration) -> Self {
        Self { open: Mutex::default(), places: Arc::default(), patience }
    }

    /// Somebody connected.
    pub(crate) fn admit(&self, stream: &dyn Any, extensions: &mut Extensions) {
        let plain = stream.downcast_ref::<Accepted>();
        let Some(stream) = plain.or_else(|| {
            stream.downcast_ref::<TlsStream<Accepted>>().map(|stream| stream.get_ref().0)
        }) else {
            return;
        };
        match Connection::new(stream, &self.places) {
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
    fn new(stream: &Accepted, places: &Arc<Places>) -> io::Result<Self> {
        let millis = u32::try_from(UNREAD_FOR.as_millis()).unwrap_or(u32::MAX);
        sockopt::set_tcp_user_timeout(stream, millis)?;
        Ok(Self {
            socket: stream.as_fd().try_clone_to_owned()?.into(),
            opened: Instant::now(),
            moved: AtomicU64::new(0),
            under_way: AtomicU32::new(0),
            place: OnceLock::new(),
            places: Arc::clone(places),
        })
    }

    fn is_idle(&self, patience: Duration) -> bool {
        let moved = Duration::from_millis(self.moved.load(Ordering::Relaxed));
        let quiet = self.opened.elapsed().saturating_sub(moved);
        let may_be_slow = self.has_token() && self.under_way.load(Ordering::Relaxed) > 0;
        quiet > patience && !may_be_slow
    }

    fn has_token(&self) -> bool {
        self.place.get().is_some()
    }

    fn moves(&self) {
        let since = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.moved.store(since, Ordering::Relaxed);
    }

    fn end(&self, how: Shutdown) {
        if let Err(error) = self.socket.shutdown(how) {
            tracing::debug!("a connection that is ended was gone already: {error}");
        }
    }
}

impl Places {
    fn lock(&self) -> MutexGuard<'_, HashMap<TokenId, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(self: &Arc<Self>, token: &TokenId) -> Result<Place, NoPlace> {
        let mut taken = self.lock();
        if taken.get(token).is_some_and(|count| *count >= MOST_OF_ONE_TOKEN) {
            return Err(NoPlace::OfToken);
        }
        if taken.values().sum::<usize>() >= MOST_WITH_TOKEN {
            return Err(NoPlace::AtAll);
        }
        *taken.entry(token.clone()).or_default() += 1;
        Ok(Place { token: token.clone(), places: Arc::clone(self) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
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
pub(crate) enum NoPlace {
    /// The token has as many as it may.
    OfToken,
    /// All tokens together do.
    AtAll,
}

/// A request that is not answered yet.
pub(crate) struct UnderWay(Arc<Connection>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
        self.0.moves();
    }
}

/// A request's head came, whole.
pub(crate) fn asked(request: &HttpRequest) -> Option<UnderWay> {
    let connection = request.conn_data::<Arc<Connection>>()?;
    connection.moves();
    connection.under_way.fetch_add(1, Ordering::Relaxed);
    Some(UnderWay(Arc::clone(connection)))
}

/// A request was answered. actix-web reads a refused body in chunks to its end, however far that is: it is cut here. The
/// sender is told, or it would send its next request over a connection that nobody reads.
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

/// A request of this connection showed a valid token: its answers may take as long as a run, if there is a place for it.
pub(crate) fn showed_token(request: &HttpRequest, token: &TokenId) -> Result<(), NoPlace> {
    if let Some(connection) = request.conn_data::<Arc<Connection>>()
        && !connection.has_token()
    {
        // It would go on holding a place without belonging to anybody.
        let place =
            connection.places.take(token).inspect_err(|_| connection.end(Shutdown::Read))?;
        // Two requests of one connection at once: one of the places is given back.
        let _second = connection.place.set(place);
    }
    Ok(())
}

/// An answer's body: its request is under way until it was sent, or nobody reads it any more.
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

impl From<NoPlace> for Refusal {
    fn from(error: NoPlace) -> Self {
        match error {
            NoPlace::OfToken => Self::TooManyConnections { most: MOST_OF_ONE_TOKEN },
            NoPlace::AtAll => Self::Busy,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_leave_room_for_others_and_for_hooks() {
        let places = Arc::new(Places::default());
        let [one, two, three, four] = ["t1", "t2", "t3", "t4"].map(|id| id.parse().unwrap());
        let mut taken = Vec::new();
        for token in [&one, &two, &three] {
            taken.extend((0..MOST_OF_ONE_TOKEN).map(|_| places.take(token).unwrap()));
            assert_eq!(places.take(token).err(), Some(NoPlace::OfToken));
        }
        assert_eq!(places.take(&four).err(), Some(NoPlace::AtAll));
        const { assert!(MOST_WITH_TOKEN < crate::MOST_CONNECTIONS) };
        taken.pop();
        let place = places.take(&four).unwrap();
        drop((taken, place));
        assert!(places.lock().is_empty());
    }
}
