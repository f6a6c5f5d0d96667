//! Private servers, as children of the test: on free ports of loopback, each with a folder of its own.
//!
//! Unlike those of the whole test run they may be killed, paused, started again on the same port and data, and robbed of
//! their data. Dropped, also by a panic, they are gone with all that they kept.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use rand::RngExt as _;
use tokio::net::TcpStream;

pub mod rabbitmq;
pub mod redis;

/// A port of loopback that nothing listens on, below the range that the kernel gives to clients: it is still free when a
/// server comes back to it.
///
/// # Panics
/// If there is none.
#[must_use]
pub fn free_port() -> u16 {
    let mut random = rand::rng();
    let mut ports = (0..1000).map(|_| random.random_range(20_000..32_000));
    let free = ports.find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok());
    free.expect("a free port below 32000")
}

pub(crate) fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

async fn is_open(port: u16) -> bool {
    TcpStream::connect(loopback(port)).await.is_ok()
}
