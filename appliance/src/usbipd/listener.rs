//! The listening socket.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

/// The port of USB/IP, as registered with IANA and used by the stock tools.
pub const PORT: u16 = 3240;

/// Connections that the kernel completes before they are accepted.
const BACKLOG: i32 = 128;

/// Why the server cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another program has the port: a stock usbipd, most likely.
    #[error("failed to listen on {addr}: another program has the port")]
    Taken {
        /// The address.
        addr: SocketAddr,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Everything else.
    #[error("failed to listen on {addr}")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// Listen on `addr`. `[::]` takes IPv4 too, and becomes `0.0.0.0` where the kernel has no IPv6.
///
/// Must be called on a tokio runtime.
pub fn bind(addr: SocketAddr) -> Result<TcpListener, BindError> {
    let result = match listen(addr) {
        Err(error)
            if addr.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED)
                && error.kind() != io::ErrorKind::AddrInUse =>
        {
            tracing::debug!(%error, "no IPv6, listening on IPv4 alone");
            listen((Ipv4Addr::UNSPECIFIED, addr.port()).into())
        }
        result => result,
    };
    result.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => BindError::Taken { addr, source },
        _ => BindError::Listen { addr, source },
    })
}

fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // A restart must not wait for the connections of the last run to leave TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket.into())
}
