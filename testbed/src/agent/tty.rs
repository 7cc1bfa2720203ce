//! Serial ports in the guest, and connections in their stead.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serial2::{SerialPort, Settings};
use sha2::{Digest, Sha256};

use super::{LineStep, Transfer, Transferred};
use crate::pattern;

/// Bytes per read and write.
const BLOCK: usize = 16384;
/// How long one read or write may wait before the idle time is looked at.
const POLL: Duration = Duration::from_millis(50);

/// How long an echo may take.
const ECHO: Duration = Duration::from_secs(10);

/// What bytes pass over.
enum Port {
    Serial(SerialPort),
    /// A serial port elsewhere, that a server there passes on as a stream of bytes.
    Stream(TcpStream),
}

impl Port {
    fn read(&self, block: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Serial(port) => port.read(block),
            Self::Stream(stream) => (&*stream).read(block),
        }
    }

    fn write(&self, data: &[u8]) -> io::Result<usize> {
        match self {
            Self::Serial(port) => port.write(data),
            Self::Stream(stream) => (&*stream).write(data),
        }
    }

    /// Waits until a tty has sent everything. What a connection has taken can only be seen at its far end.
    fn flush(&self) -> io::Result<()> {
        match self {
            Self::Serial(port) => port.flush(),
            Self::Stream(_) => Ok(()),
        }
    }

    fn serial(&self) -> io::Result<&SerialPort> {
        match self {
            Self::Serial(port) => Ok(port),
            Self::Stream(_) => Err(io::Error::new(
                ErrorKind::Unsupported,
                "a connection has no control lines",
            )),
        }
    }
}

/// Opens a tty, or a connection for a path `tcp:HOST:PORT`, and keeps it open as number `tty`.
pub(super) fn open(tty: u64, path: &str, baud: u32) -> io::Result<()> {
    if let Some(address) = path.strip_prefix("tcp:") {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(POLL))?;
        stream.set_write_timeout(Some(POLL))?;
        ttys().insert(tty, Arc::new(Port::Stream(stream)));
        return Ok(());
    }
    let mut port = SerialPort::open(path, |mut settings: Settings| {
        settings.set_raw();
        settings.set_baud_rate(baud)?;
        Ok(settings)
    })?;
    port.set_read_timeout(POLL)?;
    port.set_write_timeout(POLL)?;
    ttys().insert(tty, Arc::new(Port::Serial(port)));
    Ok(())
}

/// Closes a tty, once nobody uses it any more.
pub(super) fn close(tty: u64) -> io::Result<()> {
    ttys().remove(&tty).map(drop).ok_or_else(closed)
}

fn ttys() -> MutexGuard<'static, HashMap<u64, Arc<Port>>> {
    static TTYS: OnceLock<Mutex<HashMap<u64, Arc<Port>>>> = OnceLock::new();
    TTYS.get_or_init(Mutex::default)
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
}

fn get(tty: u64) -> io::Result<Arc<Port>> {
    ttys().get(&tty).cloned().ok_or_else(closed)
}

fn closed() -> io::Error {
    io::Error::new(ErrorKind::NotFound, "no open tty has that number")
}

/// Sends and receives at once until both counts are reached, or nothing moves any more.
pub(super) fn transfer(tty: u64, wanted: &Transfer) -> io::Result<Transferred> {
    let port = get(tty)?;
    let begin = Instant::now();
    let idle = Duration::from_millis(wanted.idle_ms);
    // Either direction failing ends both.
    let stop = AtomicBool::new(false);
    let (sent, received) = thread::scope(|scope| {
        let send = scope.spawn(|| send(&port, wanted, idle, &stop));
        let received = receive(&port, wanted.receive, idle, &stop);
        (send.join(), received)
    });
    let sent = sent.map_err(|_| io::Error::other("the sending thread ended early"))?;
    Ok(Transferred {
        sent: sent.count,
        sent_sha256: sent.sha256,
        received: received.count,
        received_sha256: received.sha256,
        seconds: begin.elapsed().as_secs_f64(),
        failure: sent.failure.or(received.failure),
    })
}

struct Direction {
    count: usize,
    sha256: String,
    failure: Option<String>,
}

fn send(port: &Port, wanted: &Transfer, idle: Duration, stop: &AtomicBool) -> Direction {
    let mut sent = write(port, wanted, idle, stop);
    if sent.failure.is_none()
        && sent.count > 0
        && let Err(err) = port.flush()
    {
        sent.failure = Some(format!("sending the last bytes: {err}"));
    }
    sent
}

fn write(port: &Port, wanted: &Transfer, idle: Duration, stop: &AtomicBool) -> Direction {
    let data = pattern::bytes(wanted.seed, wanted.send);
    let mut count = 0;
    let mut last = Instant::now();
    let mut failure = None;
    while count < data.len() && failure.is_none() {
        let end = data.len().min(count + BLOCK);
        match port.write(&data[count..end]) {
            Ok(n @ 1..) => {
                count += n;
                last = Instant::now();
            }
            Ok(0) => failure = Some("sending: the tty is closed".to_owned()),
            Err(err) if waits(&err) => {
                if last.elapsed() > idle || stop.load(Ordering::Relaxed) {
                    failure = Some(format!("sending stalled after {count} bytes"));
                }
            }
            Err(err) => failure = Some(format!("sending: {err}")),
        }
    }
    if failure.is_some() {
        stop.store(true, Ordering::Relaxed);
    }
    Direction {
        count,
        sha256: pattern::sha256(&data[..count]),
        failure,
    }
}

fn receive(port: &Port, wanted: usize, idle: Duration, stop: &AtomicBool) -> Direction {
    let mut block = vec![0; BLOCK];
    let mut digest = Sha256::new();
    let mut count = 0;
    let mut last = Instant::now();
    let mut failure = None;
    while count < wanted && failure.is_none() {
        let room = BLOCK.min(wanted - count);
        match port.read(&mut block[..room]) {
            Ok(n @ 1..) => {
                digest.update(&block[..n]);
                count += n;
                last = Instant::now();
            }
            Ok(0) => failure = Some("receiving: the tty is closed".to_owned()),
            Err(err) if waits(&err) => {
                if last.elapsed() > idle || stop.load(Ordering::Relaxed) {
                    failure = Some(format!("receiving stalled after {count} bytes"));
                }
            }
            Err(err) => failure = Some(format!("receiving: {err}")),
        }
    }
    if failure.is_some() {
        stop.store(true, Ordering::Relaxed);
    }
    Direction {
        count,
        sha256: pattern::hex(&digest.finalize()),
        failure,
    }
}

fn waits(err: &io::Error) -> bool {
    matches!(
        err.kind(),
        ErrorKind::TimedOut | ErrorKind::WouldBlock | ErrorKind::Interrupted
    )
}

/// Seconds that `size` bytes take to a device that echoes and back, for each of `rounds`.
pub(super) fn round_trips(tty: u64, size: usize, rounds: usize) -> io::Result<Vec<f64>> {
    let port = get(tty)?;
    let stop = AtomicBool::new(false);
    let wanted = Transfer {
        seed: 1,
        send: size,
        receive: size,
        idle_ms: 0,
    };
    let mut seconds = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let begin = Instant::now();
        // The echo says that it has been sent; draining the tty as well would be timed too.
        let sent = write(&port, &wanted, ECHO, &stop);
        let echo = receive(&port, size, ECHO, &stop);
        seconds.push(begin.elapsed().as_secs_f64());
        if let Some(failure) = sent.failure.or(echo.failure) {
            return Err(io::Error::other(failure));
        }
        if echo.sha256 != sent.sha256 {
            return Err(io::Error::new(
                ErrorKind::InvalidData,
                "the echo differs from what was sent",
            ));
        }
    }
    Ok(seconds)
}

/// Walks through steps on the control lines.
pub(super) fn lines(tty: u64, steps: &[LineStep]) -> io::Result<()> {
    let port = get(tty)?;
    let port = port.serial()?;
    for step in steps {
        if let Some(dtr) = step.dtr {
            port.set_dtr(dtr)?;
        }
        if let Some(rts) = step.rts {
            port.set_rts(rts)?;
        }
        thread::sleep(Duration::from_millis(step.hold_ms));
    }
    Ok(())
}
