//! Addresses for programs on the same machine.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

/// The address by which a client on this machine reaches a listener at `address`.
pub(crate) fn from_here(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() {
            Ipv4Addr::LOCALHOST.into()
        } else {
            Ipv6Addr::LOCALHOST.into()
        });
    }
    address
}
