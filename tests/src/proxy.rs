//! A TCP proxy that can cut, block or delay connections.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

const CHUNK: usize = 16 * 1024;

/// How bytes in one direction are treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Flow {
    /// They are forwarded.
    #[default]
    Pass,
    /// Each chunk is forwarded after this delay.
    Slow(Duration),
    /// They are dropped while the connection stays open. Once a connection has lost bytes it never forwards any again.
    Swallow,
}

/// The state of the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Connections are open, with a behaviour for each direction.
    Open {
        /// Client to server.
        to_server: Flow,
        /// Server to client.
        to_client: Flow,
    },
    /// All connections are closed, and new ones are closed at once.
    Cut,
}

impl Way {
    /// Transparent.
    pub const CLEAR: Self = Self::both(Flow::Pass);

    /// The same behaviour in both directions.
    #[must_use]
    pub const fn both(flow: Flow) -> Self {
        Self::Open { to_server: flow, to_client: flow }
    }
}

/// A proxy. Dropping it closes its connections.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    way: watch::Sender<Way>,
    serving: JoinHandle<()>,
}

impl Proxy {
    /// Starts a proxy on a free loopback port for `server`.
    ///
    /// # Errors
    /// The system's error.
    pub async fn start(server: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let way = watch::Sender::new(Way::CLEAR);
        let serving = tokio::spawn(serve(listener, server, way.clone()));
        Ok(Self { address, way, serving })
    }

    /// The proxy's address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes the state, also for open connections.
    pub fn set(&self, way: Way) {
        self.way.send_replace(way);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(listener: TcpListener, server: SocketAddr, way: watch::Sender<Way>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        connections.spawn(carry(client, server, way.subscribe()));
    }
}

/// Forwards one connection until either side closes it, or it is cut.
async fn carry(client: TcpStream, server: SocketAddr, mut way: watch::Receiver<Way>) {
    let flows = way.clone();
    let carried = async {
        let server = TcpStream::connect(server).await?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        tokio::select! {
            ended = pump(from_client, to_server, || to_server_flow(*flows.borrow())) => ended,
            ended = pump(from_server, to_client, || to_client_flow(*flows.borrow())) => ended,
        }
    };
    tokio::select! {
        // Whichever side closed it, both are closed.
        _ended = carried => {}
        _cut = way.wait_for(|way| *way == Way::Cut) => {}
    }
}

fn to_server_flow(way: Way) -> Flow {
    match way {
        Way::Open { to_server, .. } => to_server,
        Way::Cut => Flow::Swallow,
    }
}

fn to_client_flow(way: Way) -> Flow {
    match way {
        Way::Open { to_client, .. } => to_client,
        Way::Cut => Flow::Swallow,
    }
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    flow: impl Fn() -> Flow,
) -> std::io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    let mut has_lost_some = false;
    loop {
        let length = from.read(&mut chunk).await?;
        if length == 0 {
            return Ok(());
        }
        match flow() {
            Flow::Slow(time) => tokio::time::sleep(time).await,
            Flow::Swallow => has_lost_some = true,
            Flow::Pass => {}
        }
        if !has_lost_some {
            to.write_all(&chunk[..length]).await?;
        }
    }
}
