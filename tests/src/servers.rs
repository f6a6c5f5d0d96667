//! Private servers, as child processes of the test, on free loopback ports, each with its own folder.
//!
//! Unlike the shared servers of a test run they may be killed, paused, restarted with the same port and data, and
//! wiped. Dropping one deletes its data, also during a panic.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Mutex;

use rand::RngExt as _;
use rustix::process::getuid;
use tokio::net::TcpStream;

pub mod distribution;
pub mod rabbitmq;
pub mod redis;

/// A free loopback port, below the range of ephemeral ports, so that it stays free while a server restarts. No other
/// test gets it while this process lives.
///
/// # Panics
/// If there is none.
#[must_use]
pub fn free_port() -> u16 {
    let mut random = rand::rng();
    let mut ports = (0..1000).map(|_| random.random_range(20_000..32_000));
    let free = ports
        .find(|port| reserve(*port) && TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok());
    free.expect("a free port below 32000")
}

/// Reserves a port among the tests of this machine. Whoever is told a port binds it only later, and tests are processes
/// that run at once, so that two of them may see the same port free.
fn reserve(port: u16) -> bool {
    static RESERVED: Mutex<Vec<File>> = Mutex::new(Vec::new());
    let folder = std::env::temp_dir().join(format!("gantry-test-ports-{}", getuid().as_raw()));
    std::fs::create_dir_all(&folder).unwrap();
    let lock = File::create(folder.join(port.to_string())).unwrap();
    // The lock ends with the process, however that ends.
    let is_mine = lock.try_lock().is_ok();
    if is_mine {
        RESERVED.lock().unwrap().push(lock);
    }
    is_mine
}

pub(crate) fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

async fn is_open(port: u16) -> bool {
    TcpStream::connect(loopback(port)).await.is_ok()
}
