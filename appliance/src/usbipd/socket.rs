//! Options of a socket that the kernel's USB/IP threads use.

use std::{
    io,
    net::TcpStream,
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

use rustix::net::SendFlags;
use socket2::{SockRef, TcpKeepalive};

/// Between the probes that ask a peer whether it still knows a connection; the shortest that
/// TCP_KEEPIDLE and TCP_KEEPINTVL take.
const ASK: Duration = Duration::from_secs(1);

/// The longest silence before a probe, whatever the grace: a peer that was restarted answers the
/// next probe with a reset.
const LONGEST_SILENCE: Duration = Duration::from_secs(10);

/// Make a connected socket ready for the kernel. The options stay in force after the hand-over.
pub(super) fn prepare(socket: &TcpStream, grace: Duration) -> io::Result<()> {
    // A kernel thread takes a timed-out or short read for the end of the connection.
    socket.set_read_timeout(None)?;
    socket.set_write_timeout(None)?;
    socket.set_nonblocking(false)?;
    socket.set_nodelay(true)?;
    set_grace(socket, grace)
}

/// A peer that is silent for `grace` is given up, whether data is on its way or not.
pub(super) fn set_grace(socket: &impl AsFd, grace: Duration) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.set_tcp_user_timeout(Some(grace))?;
    socket.set_tcp_keepalive(&keepalive(grace))
}

/// Probe the peer now if it has been silent for a second, and each second from now on: the kernel
/// re-arms its timer when TCP_KEEPIDLE is set. [`set_grace`] undoes it.
pub(super) fn ask(socket: &TcpStream) -> io::Result<()> {
    let keepalive = TcpKeepalive::new().with_time(ASK).with_interval(ASK);
    SockRef::from(socket).set_tcp_keepalive(&keepalive)
}

/// Probes such that the one at the end of the grace time is the last. The kernel counts by
/// TCP_USER_TIMEOUT where that is set, and gives up at a probe, so the probes must fall in with it.
fn keepalive(grace: Duration) -> TcpKeepalive {
    let seconds = grace.as_secs().max(1);
    let longest = LONGEST_SILENCE.as_secs();
    let idle = (seconds / 3).clamp(1, longest);
    let interval = (seconds / 6).clamp(1, longest);
    let probes = seconds
        .saturating_sub(idle)
        .div_ceil(interval)
        // MAX_TCP_KEEPCNT (include/net/tcp.h)
        .clamp(1, 127);
    TcpKeepalive::new()
        .with_time(Duration::from_secs(idle))
        .with_interval(Duration::from_secs(interval))
        .with_retries(u32::try_from(probes).unwrap_or(127))
}

/// Send a short reply at once or not at all. It is the first thing sent on the connection, so it
/// fits the send buffer unless the connection is broken.
pub(super) fn send_now(socket: impl AsFd, bytes: &[u8]) -> io::Result<()> {
    let socket: BorrowedFd<'_> = socket.as_fd();
    let sent = rustix::net::send(socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?;
    if sent == bytes.len() {
        Ok(())
    } else {
        Err(io::ErrorKind::WriteZero.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_peer_is_probed_early_and_given_up_within_the_grace() {
        for (grace, idle, interval, probes) in [(5, 1, 1, 4), (30, 10, 5, 4), (300, 10, 10, 29)] {
            let expected = TcpKeepalive::new()
                .with_time(Duration::from_secs(idle))
                .with_interval(Duration::from_secs(interval))
                .with_retries(probes);
            let got = keepalive(Duration::from_secs(grace));
            assert_eq!(format!("{got:?}"), format!("{expected:?}"), "grace {grace}");
        }
    }
}
