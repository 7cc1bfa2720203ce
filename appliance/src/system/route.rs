//! The way to other machines.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};

/// An address of TEST-NET-1 (RFC 5737), to which nothing is sent: the route to it is looked up.
const ELSEWHERE: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 1), 9);

/// The address that the box has towards most others; none where no way leads elsewhere.
#[must_use]
pub fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect(ELSEWHERE).ok()?;
    Some(socket.local_addr().ok()?.ip())
}
