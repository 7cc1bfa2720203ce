//! One connection to a `usb-redir` device of QEMU: a USB port into which devices are plugged.

use std::io::{self, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use thiserror::Error;

use super::board::{Board, Replies};
use super::descriptor::Strings;
use super::device::Device;
use super::kind::{Kind, Persona};
use super::lines::{Change, Event};
use super::wire::{Header, NARROW_HEADER, Packet, WIDE_HEADER, WireError, capability};

/// How long QEMU may take to make its socket, from when it was started.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long QEMU may take to say hello, or to accept what is sent to it. A paused guest's does
/// not read.
const IO_TIMEOUT: Duration = Duration::from_secs(30);
/// Capabilities without which `qemu-xhci` refuses the peer, and those that cost nothing.
const CAPABILITIES: u32 = capability::CONNECT_DEVICE_VERSION
    | capability::DISCONNECT_ACK
    | capability::MAX_PACKET_SIZE
    | capability::WIDE_IDS
    | capability::WIDE_BULK;
/// What this end's decoding relies on.
const NEEDED: u32 = capability::MAX_PACKET_SIZE | capability::WIDE_IDS | capability::WIDE_BULK;
/// Time a Leonardo's bootloader waits for an upload before it starts the sketch.
const BOOTLOADER_STAY: Duration = Duration::from_secs(8);

/// What may go wrong with a port.
#[derive(Debug, Error)]
pub enum Error {
    /// The socket cannot be reached.
    #[error("connect to {path}")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The peer's greeting is missing or odd.
    #[error("exchange greetings with QEMU")]
    Greet(#[source] io::Error),
    /// The peer cannot do what is needed.
    #[error("agree with QEMU on capabilities: it announces {0:#x}")]
    Capabilities(u32),
    /// A packet could not be sent; the connection is over.
    #[error("send to QEMU")]
    Send(#[source] io::Error),
    /// QEMU has gone away; [`Port::reconnect`] when it is back.
    #[error("reach QEMU: the connection is closed")]
    Closed,
    /// There is no device.
    #[error("find a device: none is plugged in")]
    Empty,
    /// The device has no such line.
    #[error("find line {0} of the device")]
    NoLine(usize),
    /// The line holds as many bytes as it can.
    #[error("queue bytes on line {0}: it is full")]
    LineFull(usize),
}

/// A USB port of the guest.
///
/// QEMU makes the socket: `-chardev socket,id=r0,path=PATH,server=on,wait=off -device
/// usb-redir,chardev=r0,bus=xhci.0`. Dropping the port unplugs what is in it.
pub struct Port {
    path: PathBuf,
    shared: Arc<Shared>,
    reader: Mutex<Option<JoinHandle<()>>>,
}

impl Port {
    /// Connects to QEMU's socket, waiting up to 30 s for it to appear, and exchanges greetings.
    pub fn connect(path: &Path) -> Result<Self, Error> {
        let port = Self {
            path: path.to_owned(),
            shared: Arc::new(Shared {
                inner: Mutex::new(Inner::new()),
                changed: Condvar::new(),
            }),
            reader: Mutex::new(None),
        };
        port.reconnect()?;
        Ok(port)
    }

    /// Connects again after QEMU was restarted. A device that was plugged in is announced to
    /// the new guest, as one is that stays in its socket while a computer reboots.
    pub fn reconnect(&self) -> Result<(), Error> {
        self.hang_up();
        let (socket, reader) = open(&self.path)?;
        let mut inner = self.shared.lock();
        inner.connection += 1;
        inner.socket = Some(socket);
        let (shared, connection) = (Arc::clone(&self.shared), inner.connection);
        let thread = thread::spawn(move || {
            // However it ends, the connection is over, and that is what the other side shows.
            let _ = serve(&shared, reader);
            shared.lock().lost(connection);
        });
        *self.reader.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        if inner.wanted {
            inner.announce()
        } else {
            Ok(())
        }
    }

    fn hang_up(&self) {
        {
            let mut inner = self.shared.lock();
            if let Some(socket) = inner.socket.take() {
                // QEMU accepts a new connection only after it has seen the end of the old one.
                let _ = socket.shutdown(Shutdown::Both);
            }
        }
        let thread = self
            .reader
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread {
            // A panic there has been printed; there is nothing to add to it.
            let _ = thread.join();
        }
    }

    /// Whether QEMU is at the other end.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.shared.lock().socket.is_some()
    }

    /// Plugs a new device in, in place of what was there. `serial` replaces the serial number.
    pub fn plug(&self, kind: Kind, serial: Option<&str>) -> Result<Device, Error> {
        self.plug_with(kind, Strings::new("", "", serial.unwrap_or_default()))
    }

    /// Plugs a new device in that gives `strings` of itself.
    pub fn plug_with(&self, kind: Kind, strings: Strings) -> Result<Device, Error> {
        let mut inner = self.shared.lock();
        inner.withdraw()?;
        inner.board = Some(Board::new(kind, strings));
        inner.announce()?;
        drop(inner);
        Ok(self.device())
    }

    /// Pulls the device out. Without one, nothing happens.
    pub fn unplug(&self) -> Result<(), Error> {
        self.shared.lock().withdraw()
    }

    /// Plugs the same device in again, pulling it out first if need be; its memory and log stay.
    pub fn replug(&self) -> Result<Device, Error> {
        let mut inner = self.shared.lock();
        inner.withdraw()?;
        inner
            .board
            .as_mut()
            .ok_or(Error::Empty)?
            .become_persona(Persona::Application);
        inner.announce()?;
        drop(inner);
        Ok(self.device())
    }

    /// A handle on whatever is plugged in.
    #[must_use]
    pub fn device(&self) -> Device {
        Device::new(Arc::clone(&self.shared))
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.hang_up();
    }
}

/// State that the port, its reader and all handles share.
pub(super) struct Shared {
    inner: Mutex<Inner>,
    changed: Condvar,
}

impl Shared {
    /// Locks the state and tells those who wait when it is released.
    pub(super) fn lock(&self) -> Guard<'_> {
        // A panic elsewhere leaves no half-done state that a test could not live with.
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        Guard {
            inner,
            changed: &self.changed,
        }
    }

    /// Counts what has happened.
    pub(super) fn changes(&self) -> u64 {
        self.inner
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .changes
    }

    /// Waits for something to happen after `seen`; false when the time is up.
    pub(super) fn wait_for_change(&self, seen: u64, deadline: Instant) -> bool {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let left = deadline.saturating_duration_since(Instant::now());
        let waited = self
            .changed
            .wait_timeout_while(inner, left, |inner| inner.changes == seen);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }
}

/// Access to the state.
pub(super) struct Guard<'a> {
    inner: MutexGuard<'a, Inner>,
    changed: &'a Condvar,
}

impl std::ops::Deref for Guard<'_> {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.inner
    }
}

impl std::ops::DerefMut for Guard<'_> {
    fn deref_mut(&mut self) -> &mut Inner {
        self.inner.changes += 1;
        self.changed.notify_all();
        &mut self.inner
    }
}

/// The connection and what is plugged in.
pub(super) struct Inner {
    socket: Option<UnixStream>,
    /// Counts connections, so that the end of an old one does not end a new one.
    connection: u64,
    board: Option<Board>,
    /// Whether the device is in the port, be QEMU there or not.
    wanted: bool,
    /// Whether QEMU has been told of it.
    announced: bool,
    /// Counts announcements, so that what a device planned ends with it.
    generation: u64,
    bootloader_stay: Duration,
    changes: u64,
}

impl Inner {
    fn new() -> Self {
        Self {
            socket: None,
            connection: 0,
            board: None,
            wanted: false,
            announced: false,
            generation: 0,
            bootloader_stay: BOOTLOADER_STAY,
            changes: 0,
        }
    }

    pub(super) fn board(&self) -> Option<&Board> {
        self.board.as_ref()
    }

    pub(super) fn is_plugged(&self) -> bool {
        self.announced
    }

    pub(super) fn set_bootloader_stay(&mut self, stay: Duration) {
        self.bootloader_stay = stay;
    }

    /// Changes the board and sends what that makes possible.
    pub(super) fn update(
        &mut self,
        change: impl FnOnce(&mut Board) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let board = self.board.as_mut().ok_or(Error::Empty)?;
        change(board)?;
        if self.announced {
            let replies = board.progress();
            self.send(&replies)?;
        }
        Ok(())
    }

    /// Takes the device from the bus and brings it back with another face.
    pub(super) fn reenumerate(&mut self, persona: Persona) -> Result<(), Error> {
        if !self.announced {
            return Err(Error::Empty);
        }
        self.withdraw()?;
        if let Some(board) = &mut self.board {
            board.become_persona(persona);
        }
        self.announce()
    }

    fn announce(&mut self) -> Result<(), Error> {
        self.wanted = true;
        let Some(board) = &mut self.board else {
            return Err(Error::Empty);
        };
        let packets = board.connect();
        self.generation += 1;
        self.send(&packets)?;
        self.announced = true;
        Ok(())
    }

    fn withdraw(&mut self) -> Result<(), Error> {
        self.wanted = false;
        if !std::mem::take(&mut self.announced) {
            return Ok(());
        }
        if let Some(board) = &mut self.board {
            board.disconnect(Event::Disconnected);
        }
        self.send(&[(0, Packet::DeviceDisconnect)].to_vec())
    }

    fn lost(&mut self, connection: u64) {
        if connection != self.connection {
            return;
        }
        self.socket = None;
        if std::mem::take(&mut self.announced)
            && let Some(board) = &mut self.board
        {
            board.disconnect(Event::ConnectionLost);
        }
    }

    fn send(&mut self, packets: &Replies) -> Result<(), Error> {
        let Some(socket) = &mut self.socket else {
            return Err(Error::Closed);
        };
        let bytes: Vec<u8> = packets
            .iter()
            .flat_map(|(id, packet)| packet.encode(*id))
            .collect();
        let sent = socket.write_all(&bytes);
        if sent.is_err() {
            // Part of a packet may have gone out: nothing can follow it.
            let _ = socket.shutdown(Shutdown::Both);
        }
        sent.map_err(Error::Send)
    }
}

/// Connects and greets. The reader keeps what it may have read ahead.
fn open(path: &Path) -> Result<(UnixStream, BufReader<UnixStream>), Error> {
    let deadline = Instant::now() + CONNECT_TIMEOUT;
    let mut socket = loop {
        match UnixStream::connect(path) {
            Ok(socket) => break socket,
            Err(_) if Instant::now() < deadline => thread::sleep(Duration::from_millis(20)),
            Err(source) => {
                return Err(Error::Connect {
                    path: path.to_owned(),
                    source,
                });
            }
        }
    };
    let greet = |socket: &mut UnixStream| {
        socket.set_write_timeout(Some(IO_TIMEOUT))?;
        socket.set_read_timeout(Some(IO_TIMEOUT))?;
        let version = concat!("usbip-pi testbed ", env!("CARGO_PKG_VERSION")).into();
        socket.write_all(
            &Packet::Hello {
                version,
                capabilities: CAPABILITIES,
            }
            .encode(0),
        )?;
        let mut reader = BufReader::with_capacity(1 << 16, socket.try_clone()?);
        let (_, packet) = read_packet(&mut reader, NARROW_HEADER)?;
        // From here on the reader waits for as long as the guest has nothing to say; a closed
        // socket wakes it.
        socket.set_read_timeout(None)?;
        Ok((reader, packet))
    };
    match greet(&mut socket).map_err(Error::Greet)? {
        (reader, Packet::Hello { capabilities, .. }) if capabilities & NEEDED == NEEDED => {
            Ok((socket, reader))
        }
        (_, Packet::Hello { capabilities, .. }) => Err(Error::Capabilities(capabilities)),
        _ => Err(Error::Greet(io::ErrorKind::InvalidData.into())),
    }
}

fn read_packet(reader: &mut impl Read, header_size: usize) -> io::Result<(u64, Packet)> {
    let odd = |error: WireError| io::Error::new(io::ErrorKind::InvalidData, error);
    let mut bytes = [0; WIDE_HEADER];
    let header = &mut bytes[..header_size];
    reader.read_exact(header)?;
    let header = Header::decode(header).map_err(odd)?;
    let mut body = vec![0; header.length as usize];
    reader.read_exact(&mut body)?;
    Ok((header.id, Packet::decode(header.kind, &body).map_err(odd)?))
}

/// Answers the guest until the connection ends.
fn serve(shared: &Arc<Shared>, mut reader: BufReader<UnixStream>) -> Result<(), Error> {
    loop {
        let (id, packet) = read_packet(&mut reader, WIDE_HEADER).map_err(|_| Error::Closed)?;
        let mut inner = shared.lock();
        if !inner.announced {
            continue;
        }
        let Some(board) = &mut inner.board else {
            continue;
        };
        let replies = board.handle(id, packet);
        let change = board.lines.change.take();
        inner.send(&replies)?;
        if let Some(change) = change {
            let generation = inner.generation;
            drop(inner);
            plan(shared, change, generation);
        }
    }
}

/// Carries out a re-enumeration that the device of this generation asked for, and the way back.
fn plan(shared: &Arc<Shared>, change: Change, generation: u64) {
    let shared = Arc::clone(shared);
    thread::spawn(move || {
        thread::sleep(change.after);
        let mut inner = shared.lock();
        if inner.generation != generation || inner.reenumerate(change.to).is_err() {
            return;
        }
        if change.to == Persona::Bootloader {
            let (generation, after) = (inner.generation, inner.bootloader_stay);
            drop(inner);
            plan(
                &shared,
                Change {
                    to: Persona::Application,
                    after,
                },
                generation,
            );
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    const SOON: Duration = Duration::from_secs(20);

    /// The other end, as QEMU would be it.
    struct Guest {
        socket: UnixStream,
    }

    impl Guest {
        fn accept(listener: &UnixListener, capabilities: u32) -> Self {
            let (mut socket, _) = listener.accept().unwrap();
            socket.set_read_timeout(Some(SOON)).unwrap();
            let hello = Packet::Hello {
                version: "fake".into(),
                capabilities,
            };
            socket.write_all(&hello.encode(0)).unwrap();
            let (_, hello) = read_packet(&mut socket, NARROW_HEADER).unwrap();
            assert!(matches!(
                hello,
                Packet::Hello {
                    capabilities: CAPABILITIES,
                    ..
                }
            ));
            Self { socket }
        }

        fn next(&mut self) -> (u64, Packet) {
            read_packet(&mut self.socket, WIDE_HEADER).unwrap()
        }

        fn say(&mut self, id: u64, packet: &Packet) {
            self.socket.write_all(&packet.encode(id)).unwrap();
        }

        /// The product id of the device that is announced next.
        fn announced(&mut self) -> u16 {
            assert!(matches!(self.next().1, Packet::InterfaceInfo(_)));
            assert!(matches!(self.next().1, Packet::EndpointInfo(_)));
            match self.next().1 {
                Packet::DeviceConnect { product, .. } => product,
                other => panic!("{other:?}"),
            }
        }
    }

    fn pair(listener: &UnixListener, path: &Path) -> (Port, Guest) {
        thread::scope(|scope| {
            let guest = scope.spawn(|| Guest::accept(listener, NEEDED));
            let port = Port::connect(path).unwrap();
            (port, guest.join().unwrap())
        })
    }

    fn socket() -> (tempfile::TempDir, PathBuf, UnixListener) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("redir");
        let listener = UnixListener::bind(&path).unwrap();
        (dir, path, listener)
    }

    #[test]
    fn bytes_pass_both_ways_and_a_device_comes_and_goes() {
        let (_dir, path, listener) = socket();
        let (port, mut guest) = pair(&listener, &path);
        for kind in [Kind::Cp2102, Kind::Ft231x] {
            let device = port.plug(kind, None).unwrap();
            guest.announced();
            guest.say(0, &Packet::Reset);
            let (input, output) = if kind == Kind::Cp2102 {
                (0x82, 0x01)
            } else {
                (0x81, 0x02)
            };
            let bulk = |endpoint, length, data| Packet::Bulk {
                endpoint,
                status: 0,
                length,
                stream: 0,
                data,
            };
            guest.say(1, &bulk(output, 2, b"hi".to_vec()));
            assert_eq!(guest.next(), (1, bulk(output, 2, vec![])));
            assert!(device.wait_until(SOON, |d| d.received() == b"hi"));
            guest.say(2, &bulk(input, 64, vec![]));
            device.feed(b"ho").unwrap();
            assert!(
                matches!(guest.next(), (2, Packet::Bulk { data, .. }) if data.ends_with(b"ho"))
            );
            port.unplug().unwrap();
            assert_eq!(guest.next().1, Packet::DeviceDisconnect);
            assert!(!device.is_plugged());
            assert_eq!(device.take_received(), b"hi");
        }
    }

    #[test]
    fn a_touch_brings_the_bootloader_and_then_the_sketch_again() {
        let (_dir, path, listener) = socket();
        let (port, mut guest) = pair(&listener, &path);
        let device = port.plug(Kind::Leonardo, None).unwrap();
        device.set_bootloader_stay(Duration::from_millis(50));
        assert_eq!(guest.announced(), 0x8036);
        guest.say(0, &Packet::Reset);
        let control = |request, value, data: &[u8]| Packet::Control {
            endpoint: 0,
            setup: super::super::wire::Setup {
                request_type: 0x21,
                request,
                value,
                index: 0,
                length: 0,
            },
            status: 0,
            data: data.to_vec(),
        };
        for (id, packet) in (1..).zip([
            control(0x22, 3, &[]),
            control(0x20, 0, &[0xb0, 4, 0, 0, 0, 0, 8]),
            control(0x22, 0, &[]),
        ]) {
            guest.say(id, &packet);
            assert_eq!(guest.next().0, id);
        }
        for product in [0x0036, 0x8036] {
            assert_eq!(guest.next().1, Packet::DeviceDisconnect);
            assert_eq!(guest.announced(), product);
        }
        assert!(device.log().iter().any(|e| e.event
            == Event::Baud {
                line: 0,
                baud: 1200
            }));
    }

    #[test]
    fn a_device_stays_plugged_while_qemu_restarts() {
        let (_dir, path, listener) = socket();
        let (port, mut guest) = pair(&listener, &path);
        let device = port.plug(Kind::Esp32S3, None).unwrap();
        guest.announced();
        drop(guest);
        assert!(device.wait_until(SOON, |d| !d.is_plugged()));
        assert!(!port.is_connected());
        thread::scope(|scope| {
            let guest = scope.spawn(|| Guest::accept(&listener, NEEDED));
            port.reconnect().unwrap();
            assert_eq!(guest.join().unwrap().announced(), 0x1001);
        });
        assert!(device.is_plugged());
    }

    #[test]
    fn a_peer_without_wide_ids_is_refused() {
        let (_dir, path, listener) = socket();
        thread::scope(|scope| {
            scope.spawn(|| Guest::accept(&listener, capability::WIDE_BULK));
            assert!(matches!(Port::connect(&path), Err(Error::Capabilities(_))));
        });
    }
}
