//! A TCP connection with something in between that cuts it, swallows what is said, or takes its time.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

const CHUNK: usize = 16 * 1024;

/// What becomes of bytes in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Flow {
    /// They arrive.
    #[default]
    Pass,
    /// They arrive later, each piece by this much.
    Slow(Duration),
    /// They never arrive, though the connection stays: one that lost any never carries any again.
    Swallow,
}

/// What the way to the server is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Open, in each direction as it says.
    Open {
        /// From the client.
        to_server: Flow,
        /// From the server.
        to_client: Flow,
    },
    /// Every connection is closed, and every new one at once.
    Cut,
}

impl Way {
    /// As if there were no proxy.
    pub const CLEAR: Self = Self::both(Flow::Pass);

    /// The same in both directions.
    #[must_use]
    pub const fn both(flow: Flow) -> Self {
        Self::Open { to_server: flow, to_client: flow }
    }
}

/// A proxy. Dropped, it is gone with its connections.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    way: watch::Sender<Way>,
    serving: JoinHandle<()>,
}

impl Proxy {
    /// Listens on a free port of loopback and connects to `server`.
    ///
    /// # Errors
    /// What the system says.
    pub async fn start(server: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let way = watch::Sender::new(Way::CLEAR);
        let serving = tokio::spawn(serve(listener, server, way.clone()));
        Ok(Self { address, way, serving })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on the way is like this, for connections that are open too.
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

/// Carries one connection until either side closes it, or it is cut.
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
        // Whoever closed it, the other side sees it closed.
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
