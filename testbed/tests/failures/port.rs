//! Port 3240: strangers, and nonsense from the VM itself.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use testbed::redir::Kind;
use testbed::trial::{Bed, Outcome};

use crate::amid::amid_transfer;

/// A request for the list of devices.
const DEVLIST: &[u8] = b"\x01\x11\x80\x05\0\0\0\0";
/// The server's limit is 2 s; TCG is slow.
const CLOSED: Duration = Duration::from_secs(20);
/// 10 s of a CH340, whose packets are small.
const BYTES: usize = 256 << 10;

pub fn stranger(bed: &Bed) -> Outcome {
    let plug = bed.plug(Kind::Cp2102)?;
    let attachment = bed.attached(&plug)?;
    for request in [DEVLIST, b""] {
        let mut socket = TcpStream::connect(("127.0.0.1", bed.pair.usbip_port))?;
        socket.set_read_timeout(Some(CLOSED))?;
        socket.write_all(request)?;
        let mut answer = Vec::new();
        match socket.read_to_end(&mut answer) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            Err(error) => return Err(error.into()),
        }
        assert_eq!(answer, b"");
    }
    bed.pi()
        .wait_until("dmesg | grep 'refused.*only the paired VM may import'")?;
    assert_eq!(bed.attached(&plug)?, attachment);
    Ok(())
}

/// Bytes for bash's printf, to be followed by so many zeroes, and the number of bytes that come back. All of them
/// leave the connection open: it is the Pi that closes.
const NONSENSE: [(&str, usize, usize); 8] = [
    // Nothing, half a header, half a request: the time limit.
    ("", 0, 0),
    (r"\x01\x11\x80", 0, 0),
    (r"\x01\x11\x80\x03\0\0\0\0\x31\x2d\x31", 0, 0),
    // Another version, an unknown code, no USB/IP at all.
    (r"\x01\x06\x80\x05\0\0\0\0", 0, 0),
    (r"\x01\x11\x80\x77\0\0\0\0", 100_000, 0),
    (r"GET / HTTP/1.0\r\n\r\n", 0, 0),
    // An import of what is no busid, and of what is not there: the latter has a reply.
    (r"\x01\x11\x80\x03\0\0\0\0../../../../etc/passwd", 10, 0),
    (r"\x01\x11\x80\x03\0\0\0\0009-9", 29, 8),
];

/// Sends bytes from the VM, waits until the Pi closes the connection, and counts what came back.
fn send(bed: &Bed, bytes: &str, zeroes: usize) -> Result<usize, Box<dyn std::error::Error>> {
    let script = format!(
        "exec 3<>/dev/tcp/10.9.0.1/3240; {{ printf '{bytes}'; head -c {zeroes} /dev/zero; }} >&3 2>/dev/null; \
         timeout {} cat <&3 2>/dev/null | wc -c; [ ${{PIPESTATUS[0]}} != 124 ]",
        CLOSED.as_secs()
    );
    bed.vm().put("/run/nonsense", 0o600, script.as_bytes())?;
    Ok(bed.vm().check("bash /run/nonsense")?.trim().parse()?)
}

pub fn nonsense(bed: &Bed) -> Outcome {
    let plug = bed.plug(Kind::Ch340)?;
    let attachment = bed.attached(&plug)?;
    let (passed, ()) = amid_transfer(bed, &plug, &attachment, BYTES, || {
        for (bytes, zeroes, expected) in NONSENSE {
            let count = send(bed, bytes, zeroes)?;
            assert_eq!(count, expected, "{bytes}");
        }
        // A second import of what is in use is refused, too.
        let import = format!(r"\x01\x11\x80\x03\0\0\0\000{}", plug.busid);
        assert_eq!(send(bed, &import, 32 - plug.busid.len())?, 8);
        Ok(())
    })?;
    passed?;
    for reason in [
        "malformed request",
        "no whole request within the time limit",
        "9-9 is not exported",
        "is in use",
    ] {
        bed.pi().wait_until(&format!(
            "dmesg | grep 'refused peer=10.9.0.2 reason=.*{reason}'"
        ))?;
    }
    assert_eq!(bed.attached(&plug)?, attachment);
    Ok(())
}
