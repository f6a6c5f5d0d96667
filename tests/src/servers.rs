//! Private servers, as child processes of the test, on free loopback ports, each with its own folder.
//!
//! Unlike the shared servers of a test run they may be killed, paused, restarted with the same port and data, and
//! wiped. Dropping one deletes its data, also during a panic.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use rand::RngExt as _;
use tokio::net::TcpStream;

pub mod rabbitmq;
pub mod redis;

/// A free loopback port, below the range of ephemeral ports, so that it stays free while a server restarts.
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
