//! The connections to one server.

use std::sync::atomic::{AtomicUsize, Ordering};

use deadpool_redis::redis::RedisError;
use deadpool_redis::redis::aio::MultiplexedConnection;
use gantry_seams::store::StoreError;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::connect_error::Peer;
use crate::error::{breaks, store_error};

/// The connections to one server; they are replaced together.
#[derive(Debug)]
pub(crate) struct Link {
    /// The server.
    pub(crate) peer: Peer,
    readers: Vec<MultiplexedConnection>,
    writers: Vec<MultiplexedConnection>,
    listener: MultiplexedConnection,
    next: AtomicUsize,
    broken: CancellationToken,
}

/// The channels of received notifications.
pub(crate) type Told = mpsc::UnboundedReceiver<String>;

impl Link {
    pub(crate) fn new(
        peer: Peer,
        readers: Vec<MultiplexedConnection>,
        writers: Vec<MultiplexedConnection>,
        listener: MultiplexedConnection,
        broken: CancellationToken,
    ) -> Self {
        Self { peer, readers, writers, listener, next: AtomicUsize::new(0), broken }
    }

    /// A connection for reads.
    pub(crate) fn reader(&self) -> MultiplexedConnection {
        self.one_of(&self.readers)
    }

    /// A connection for commits.
    pub(crate) fn writer(&self) -> MultiplexedConnection {
        self.one_of(&self.writers)
    }

    /// The connection that receives notifications of commits.
    pub(crate) fn listener(&self) -> MultiplexedConnection {
        self.listener.clone()
    }

    fn one_of(&self, connections: &[MultiplexedConnection]) -> MultiplexedConnection {
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        connections.get(next % connections.len().max(1)).unwrap_or(&self.listener).clone()
    }

    /// Converts an error of one of the connections. If the connection is unusable, all are replaced, since they lead to
    /// the same server.
    pub(crate) fn failed(&self, error: &RedisError) -> StoreError {
        if breaks(error) {
            self.give_up();
        }
        store_error(error)
    }

    /// Has all connections replaced.
    pub(crate) fn give_up(&self) {
        self.broken.cancel();
    }

    /// Returns once the connections are unusable.
    pub(crate) async fn broken(&self) {
        self.broken.cancelled().await;
    }
}
