//! A connection that is reopened whenever it is lost, as long as the link exists.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use gantry_seams::queue::QueueError;
use lapin::{Connection, Event};
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{info, warn};

use crate::backoff::Backoff;
use crate::dial::{Dialer, plain};
use crate::error::{ConnectError, queue_error};
use crate::options::Address;
use crate::topology::{DeclareError, Destination};

/// How often the connection's state is polled. Lapin reports its end in several ways.
const LOOK: Duration = Duration::from_secs(1);
/// The time limit for closing a connection in order.
const GOODBYE: Duration = Duration::from_secs(1);

/// A connection that is kept open.
#[derive(Debug)]
pub(crate) struct Link {
    state: watch::Receiver<State>,
    _until_dropped: DropGuard,
}

#[derive(Debug, Clone)]
enum State {
    Up { session: Arc<Session>, blocked: Option<String> },
    Down { since: Instant, why: String },
}

/// One connection, and what was declared on it.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) connection: Connection,
    declared: Mutex<HashSet<String>>,
}

impl Link {
    /// Tries each address once.
    pub(crate) async fn make(dialer: Arc<Dialer>) -> Result<Self, ConnectError> {
        let mut addresses = InTurn { dialer, next: 0 };
        let made = addresses.dial().await?;
        let (state, watched) = watch::channel(made.up());
        let end = CancellationToken::new();
        let guard = end.clone().drop_guard();
        tokio::spawn(async move {
            tokio::select! {
                () = keep_up(&state, made, addresses) => {}
                () = end.cancelled() => say_goodbye(&state).await,
            }
        });
        Ok(Self { state: watched, _until_dropped: guard })
    }

    /// The connection, as soon as there is one.
    pub(crate) async fn session(&self) -> Option<Arc<Session>> {
        let mut state = self.state.clone();
        let up = state.wait_for(|state| matches!(state, State::Up { .. })).await.ok()?;
        match &*up {
            State::Up { session, .. } => Some(Arc::clone(session)),
            State::Down { .. } => None,
        }
    }

    /// The connection, if the broker accepts messages on it now.
    pub(crate) fn publishable(&self) -> Result<Arc<Session>, QueueError> {
        match &*self.state.borrow() {
            State::Up { session, blocked: None } => Ok(Arc::clone(session)),
            state @ (State::Up { .. } | State::Down { .. }) => Err(queue_error(state.trouble())),
        }
    }

    /// Waits until the broker accepts no more messages on this connection; returns why.
    pub(crate) async fn until_unpublishable(&self, session: &Arc<Session>) -> QueueError {
        let mut state = self.state.clone();
        let trouble = state.wait_for(|state| !state.takes_messages_over(session)).await;
        match trouble {
            Ok(state) => queue_error(state.trouble()),
            Err(_) => queue_error("the connection has been closed"),
        }
    }

    pub(crate) fn state(&self) -> Result<(), String> {
        self.publishable().map(|_| ()).map_err(|error| error.message)
    }
}

impl State {
    fn trouble(&self) -> String {
        match self {
            Self::Up { blocked: None, .. } => "the connection to RabbitMQ was lost".to_owned(),
            Self::Up { blocked: Some(why), .. } => {
                format!("RabbitMQ takes no messages until its alarm ends ({why})")
            }
            Self::Down { since, why } => {
                let seconds = since.elapsed().as_secs();
                format!("no connection to RabbitMQ for {seconds} s: {why}")
            }
        }
    }

    fn takes_messages_over(&self, former: &Arc<Session>) -> bool {
        matches!(self, Self::Up { session, blocked: None } if Arc::ptr_eq(session, former))
    }
}

impl Session {
    fn new(connection: Connection) -> Arc<Self> {
        Arc::new(Self { connection, declared: Mutex::default() })
    }

    /// Declares it unless it was declared on this connection already.
    pub(crate) async fn declare(&self, destination: &Destination) -> Result<(), DeclareError> {
        let mut declared = self.declared.lock().await;
        if !declared.contains(destination.name()) {
            destination.declare(&self.connection).await?;
            declared.insert(destination.name().to_owned());
        }
        Ok(())
    }

    /// Has it declared again, after it was deleted.
    pub(crate) async fn forget(&self, destination: &Destination) {
        self.declared.lock().await.remove(destination.name());
    }
}

/// A new connection with its events.
struct Made {
    session: Arc<Session>,
    events: Box<dyn Stream<Item = Event> + Send + Unpin>,
    address: Address,
}

impl Made {
    fn up(&self) -> State {
        State::Up { session: Arc::clone(&self.session), blocked: None }
    }

    /// Waits for the end of the connection and returns its reason. Meanwhile reports whether it is blocked.
    async fn watch(mut self, state: &watch::Sender<State>) -> String {
        let mut look = tokio::time::interval(LOOK);
        let status = self.session.connection.status().clone();
        let mut last = None;
        loop {
            tokio::select! {
                event = self.events.next() => match event {
                    Some(Event::ConnectionBlocked(why)) => {
                        warn!("RabbitMQ at {} accepts no messages: {why}", self.address);
                        state.send_modify(|state| state.block(Some(why)));
                    }
                    Some(Event::ConnectionUnblocked) => {
                        info!("RabbitMQ at {} accepts messages again", self.address);
                        state.send_modify(|state| state.block(None));
                    }
                    Some(Event::Error(error)) => last = Some(plain(&error)),
                    Some(_) => {}
                    None => return "the connection ended".to_owned(),
                },
                _ = look.tick() => {}
            }
            // Errors of channels are reported as well, and do not affect the connection.
            if !status.connected() {
                return last.unwrap_or_else(|| "the connection ended".to_owned());
            }
        }
    }
}

impl State {
    fn block(&mut self, why: Option<String>) {
        if let Self::Up { blocked, .. } = self {
            *blocked = why;
        }
    }
}

async fn keep_up(state: &watch::Sender<State>, mut made: Made, mut addresses: InTurn) {
    loop {
        let address = made.address.clone();
        let why = made.watch(state).await;
        warn!("the connection to RabbitMQ at {address} was lost: {why}");
        let since = Instant::now();
        state.send_replace(State::Down { since, why });
        let mut backoff = Backoff::new();
        made = loop {
            backoff.pause().await;
            match addresses.dial().await {
                Ok(made) => break made,
                Err(error) => {
                    let why = error.to_string();
                    state.send_replace(State::Down { since, why });
                }
            }
        };
        info!(
            duration_ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX),
            "connected to RabbitMQ again, at {}", made.address
        );
        state.send_replace(made.up());
    }
}

/// Otherwise the broker would log a client that vanished.
async fn say_goodbye(state: &watch::Sender<State>) {
    let State::Up { session, .. } = state.borrow().clone() else { return };
    // If the connection is gone there is nothing to close.
    let _ = timeout(GOODBYE, session.connection.close(200, "OK".into())).await;
}

/// The addresses in turn, starting after the last one that was tried.
struct InTurn {
    dialer: Arc<Dialer>,
    next: usize,
}

impl InTurn {
    /// Tries each address once. Of several errors, a permanent one is returned first.
    async fn dial(&mut self) -> Result<Made, ConnectError> {
        let addresses = &self.dialer.options().addresses;
        let mut unreachable = Vec::new();
        let mut lasting = None;
        for _ in 0..addresses.len() {
            let address = &addresses[self.next % addresses.len()];
            self.next = (self.next + 1) % addresses.len();
            match self.dialer.dial(address).await {
                Ok(connection) => {
                    let events = Box::new(connection.events_listener());
                    let session = Session::new(connection);
                    return Ok(Made { session, events, address: address.clone() });
                }
                Err(ConnectError::Unreachable { tried }) => unreachable.push(tried),
                Err(error) => lasting = Some(error),
            }
        }
        let tried = unreachable.join(", ");
        Err(lasting.unwrap_or(ConnectError::Unreachable { tried }))
    }
}
