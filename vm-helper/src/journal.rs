//! A line in the machine's own log.

use std::os::unix::net::UnixDatagram;

use crate::root::Root;

/// Where the log listens on Linux, whoever keeps it (systemd-journald, rsyslog).
const SOCKET: &str = "/dev/log";
/// RFC 3164: facility daemon (3), severity warning (4).
const PRIORITY: u8 = 3 * 8 + 4;

/// Write a line for people who look there. A session's stderr reaches the Pi alone, and not even
/// that when the Pi is what is missing. Never blocks: without a log, or with a full one, the line is
/// lost.
pub(crate) fn warn(root: &Root, text: &str) {
    let line = format!(
        "<{PRIORITY}>usb-event-handler[{}]: {text}",
        std::process::id()
    );
    let _ = UnixDatagram::unbound().and_then(|socket| {
        socket.set_nonblocking(true)?;
        socket.send_to(line.as_bytes(), root.path(SOCKET))
    });
}
