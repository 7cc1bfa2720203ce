//! The way to the Pi: connect, [handshake](Secured::plain), import. The socket goes to the kernel
//! afterwards, so its options are set here.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use protocol::{
    BusId, DevId,
    wire::{self, Device, Header, Request, Status, WireError},
};
use rustix::{event::PollFlags, io::Errno, time::ClockId};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use crate::{failure::Error, resolve, wait};

/// How long connecting may take, all addresses together.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// How long the address that answered last may take before the name is looked up again.
const KNOWN_LIMIT: Duration = Duration::from_secs(2);
/// How long the Pi may think about a request. It may have to end a stale session of ours first.
const REPLY_LIMIT: Duration = Duration::from_secs(10);
/// A connection that was begun longer ago than this is begun anew: the Pi waits 2 s for a request.
const DIALLED_LIMIT: Duration = Duration::from_millis(500);
/// Keepalive probes before a silent peer counts as dead.
const PROBES: u32 = 4;

/// Where the Pi's USB/IP server is.
#[derive(Debug, Clone)]
pub struct Server {
    /// Address or name.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// The address that answered last: a name costs a program to look up, on each plug.
    answered: Arc<Mutex<Option<IpAddr>>>,
}

/// A connection that may be on its way already.
#[derive(Debug)]
pub struct Dialled {
    socket: Option<Socket>,
    since: Instant,
}

/// A connection on which the import may be spoken. A layer of its own between connecting and
/// importing, where encryption has its place.
#[derive(Debug)]
pub struct Secured {
    stream: TcpStream,
    host: String,
    /// The address that answered.
    pub peer: IpAddr,
}

/// A connection on which the Pi gives its next new device, which it answers as an import.
#[derive(Debug)]
pub struct Waiting(Secured);

/// An import that the Pi has to answer.
#[derive(Debug)]
pub struct Asked {
    secured: Secured,
    busid: BusId,
}

/// A device whose socket is ready for the kernel.
#[derive(Debug)]
pub struct Imported {
    /// The device, as the Pi describes it.
    pub device: Device,
    /// The address that answered.
    pub peer: IpAddr,
    /// The socket.
    pub stream: TcpStream,
}

impl Server {
    /// The server at an address or name.
    #[must_use]
    pub fn new(host: &str, port: u16) -> Self {
        Self {
            host: host.to_owned(),
            port,
            answered: Arc::default(),
        }
    }

    fn answered(&self) -> MutexGuard<'_, Option<IpAddr>> {
        self.answered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begin to connect to the address that answered last, if there is one. Does not wait.
    #[must_use]
    pub fn dial(&self) -> Dialled {
        let known = *self.answered();
        let place = known.map(|address| SocketAddr::new(address, self.port));
        Dialled {
            socket: place.and_then(|place| begin(place).ok()),
            since: Instant::now(),
        }
    }

    fn connect(&self, dialled: Dialled) -> Result<TcpStream, Error> {
        let start = Instant::now();
        let failed = |source: io::Error| match source.kind() {
            // It had answered, and then would have none of us: one that is closed refuses instead
            // (tcp_reset in net/ipv4/tcp_input.c).
            io::ErrorKind::ConnectionReset => Error::Handshake {
                act: "speak with".into(),
                host: self.host.clone(),
                source,
            },
            _ => Error::Connect {
                host: self.host.clone(),
                port: self.port,
                source,
            },
        };
        let dialled = if dialled.since.elapsed() < DIALLED_LIMIT {
            dialled
        } else {
            self.dial()
        };
        if let Some(socket) = dialled.socket {
            if let Ok(stream) = established(socket) {
                return Ok(stream);
            }
            // It may have moved: ask anew.
            *self.answered() = None;
        }
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for address in resolve::addresses(&self.host)? {
            let left = CONNECT_LIMIT.saturating_sub(start.elapsed());
            if left.is_zero() {
                last = io::ErrorKind::TimedOut.into();
                break;
            }
            match TcpStream::connect_timeout(&SocketAddr::new(address, self.port), left) {
                Ok(stream) => {
                    *self.answered() = Some(address);
                    return Ok(stream);
                }
                Err(error) => last = error,
            }
        }
        Err(failed(last))
    }

    /// Connect and agree on how to speak: in the clear, as the stock tools do.
    pub fn open(&self) -> Result<Secured, Error> {
        self.open_dialled(self.dial())
    }

    /// The same on a connection that was begun before.
    pub fn open_dialled(&self, dialled: Dialled) -> Result<Secured, Error> {
        Secured::plain(self.connect(dialled)?, &self.host)
    }

    /// Whether this is an address of the host.
    #[must_use]
    pub fn is_at(&self, address: IpAddr) -> bool {
        let known = *self.answered();
        known.map_or_else(
            || resolve::addresses(&self.host).is_ok_and(|all| all.contains(&address)),
            |known| known == address,
        )
    }

    /// Our own address on the way to the Pi. Nothing is sent.
    #[must_use]
    pub fn own_address(&self) -> Option<IpAddr> {
        let peer = *resolve::addresses(&self.host).ok()?.first()?;
        self.answered().get_or_insert(peer);
        let any: SocketAddr = if peer.is_ipv4() {
            ([0u8; 4], 0).into()
        } else {
            ([0u16; 8], 0).into()
        };
        let socket = UdpSocket::bind(any).ok()?;
        socket.connect((peer, self.port)).ok()?;
        Some(socket.local_addr().ok()?.ip())
    }
}

fn begin(place: SocketAddr) -> io::Result<Socket> {
    let kind = Type::STREAM.nonblocking();
    let socket = Socket::new(Domain::for_address(place), kind, Some(Protocol::TCP))?;
    match socket.connect(&place.into()) {
        Err(error) if error.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error()) => Err(error),
        _ => Ok(socket),
    }
}

/// Wait until the connection is there.
fn established(socket: Socket) -> io::Result<TcpStream> {
    if !wait::ready(&socket, PollFlags::OUT, KNOWN_LIMIT)? {
        return Err(io::ErrorKind::TimedOut.into());
    }
    if let Some(error) = socket.take_error()? {
        return Err(error);
    }
    socket.set_nonblocking(false)?;
    Ok(socket.into())
}

/// A dead peer is noticed within the grace time: by the keepalive when idle, by the user timeout
/// when data is under way (RFC 5482); a cut that is shorter harms nobody.
fn set_options(stream: &TcpStream, grace: Duration) -> io::Result<()> {
    let idle = (grace / 3).max(Duration::from_secs(1));
    let interval = (grace.saturating_sub(idle) / PROBES).max(Duration::from_secs(1));
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(idle)
            .with_interval(interval)
            .with_retries(PROBES),
    )?;
    socket.set_tcp_user_timeout(Some(grace))
}

impl Secured {
    /// Speak in the clear.
    pub fn plain(stream: TcpStream, host: &str) -> Result<Self, Error> {
        let peer = stream
            .peer_addr()
            .map_err(|source| Error::Handshake {
                act: "see the address of".into(),
                host: host.to_owned(),
                source,
            })?
            .ip();
        Ok(Self {
            stream,
            host: host.to_owned(),
            peer,
        })
    }

    fn wire(&self) -> impl Fn(WireError) -> Error + use<> {
        let host = self.host.clone();
        move |source| Error::Wire {
            host: host.clone(),
            source,
        }
    }

    /// What the Pi exports.
    pub fn devlist(self) -> Result<Vec<Device>, Error> {
        self.list(&Request::Devlist)
    }

    /// What the Pi exports, with what it holds for this machine from before its boot.
    pub fn devlist_after_boot(self) -> Result<Vec<Device>, Error> {
        let running = rustix::time::clock_gettime(ClockId::Boottime).tv_sec;
        let seconds = u32::try_from(running).unwrap_or(u32::MAX).max(1);
        self.list(&Request::DevlistAfterBoot(seconds))
    }

    fn list(mut self, request: &Request) -> Result<Vec<Device>, Error> {
        let wire = self.wire();
        let mut talk = Talk::start(&mut self.stream, &self.host, "list the devices of");
        talk.send(request)?;
        let header = Header::decode(talk.take()?).map_err(&wire)?;
        if wire::check_devlist_reply(header).map_err(&wire)? != Status::Ok {
            return Err(talk.failed(io::Error::other("it answered with an error")));
        }
        let mut devices = Vec::new();
        for _ in 0..wire::devlist_count(talk.take()?).map_err(&wire)? {
            let (mut device, interfaces) = Device::decode(&talk.take()?).map_err(&wire)?;
            for _ in 0..interfaces {
                let [class, subclass, protocol, _] = talk.take::<{ Device::INTERFACE_SIZE }>()?;
                device.interfaces.push([class, subclass, protocol]);
            }
            devices.push(device);
        }
        Ok(devices)
    }

    /// Ask for one device, on a connection that gets the options which stay in force after the kernel
    /// took it over.
    pub fn ask(mut self, busid: &BusId, grace: Duration) -> Result<Asked, Error> {
        self.send(&Request::Import(busid.clone()), &import_of(busid), grace)?;
        Ok(Asked {
            secured: self,
            busid: busid.clone(),
        })
    }

    /// Wait for the Pi's next new device, on a connection with the same options.
    pub fn wait_for_next(mut self, grace: Duration) -> Result<Waiting, Error> {
        self.send(&Request::Next, "wait for a device of", grace)?;
        Ok(Waiting(self))
    }

    fn send(&mut self, request: &Request, act: &str, grace: Duration) -> Result<(), Error> {
        let mut talk = Talk::start(&mut self.stream, &self.host, act);
        talk.send(request)?;
        // While the Pi thinks.
        set_options(talk.stream, grace).map_err(|source| talk.failed(source))
    }
}

impl Waiting {
    /// Whether the Pi has said something, or left.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        wait::ready(&self.0.stream, PollFlags::IN, Duration::ZERO).unwrap_or(true)
    }

    /// Whether this device was given.
    #[must_use]
    pub fn has(&self, busid: &BusId, asked: Option<DevId>) -> bool {
        let mut bytes = [0; Header::SIZE + Device::SIZE];
        // Looking takes nothing away: it may be for another request.
        self.is_answered()
            && self.0.stream.peek(&mut bytes).ok() == Some(bytes.len())
            && given(&bytes).is_some_and(|device| {
                device.busid == *busid && asked.is_none_or(|asked| asked == device.devid)
            })
    }

    /// Take it.
    pub fn import(self, busid: &BusId) -> Result<Imported, Error> {
        let (secured, busid) = (self.0, busid.clone());
        Asked { secured, busid }.answer()
    }
}

impl Asked {
    /// Wait for the device.
    pub fn answer(self) -> Result<Imported, Error> {
        let Self { mut secured, busid } = self;
        let wire = secured.wire();
        let mut talk = Talk::start(&mut secured.stream, &secured.host, &import_of(&busid));
        let header = Header::decode(talk.take()?).map_err(&wire)?;
        match wire::check_import_reply(header).map_err(&wire)? {
            Status::Ok => {}
            status => {
                return Err(Error::Refused { busid, status });
            }
        }
        // Not a byte beyond: what follows is for the kernel.
        let (device, _) = Device::decode(&talk.take()?).map_err(&wire)?;
        // The kernel would take a timed-out read for the end of the connection.
        talk.end()?;
        if device.busid != busid {
            return Err(wire(WireError::BusId));
        }
        Ok(Imported {
            device,
            peer: secured.peer,
            stream: secured.stream,
        })
    }
}

/// The device in a reply to an import.
fn given(reply: &[u8]) -> Option<Device> {
    let (header, device) = reply.split_first_chunk()?;
    let status = Header::decode(*header).and_then(wire::check_import_reply);
    let (device, _) = Device::decode(device.first_chunk()?).ok()?;
    (status == Ok(Status::Ok)).then_some(device)
}

fn import_of(busid: &BusId) -> String {
    format!("import {busid} from")
}

/// One request and its reply, under a deadline.
struct Talk<'a> {
    stream: &'a mut TcpStream,
    host: &'a str,
    act: String,
    deadline: Instant,
}

impl<'a> Talk<'a> {
    fn start(stream: &'a mut TcpStream, host: &'a str, act: &str) -> Self {
        Self {
            stream,
            host,
            act: act.to_owned(),
            deadline: Instant::now() + REPLY_LIMIT,
        }
    }

    fn failed(&self, source: io::Error) -> Error {
        Error::Handshake {
            act: self.act.clone(),
            host: self.host.to_owned(),
            source,
        }
    }

    fn send(&mut self, request: &Request) -> Result<(), Error> {
        self.stream
            .set_write_timeout(Some(REPLY_LIMIT))
            .and_then(|()| self.stream.write_all(&request.encode()))
            .map_err(|source| self.failed(source))
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let mut bytes = [0; N];
        let mut filled = 0;
        while filled < N {
            let left = self.deadline.saturating_duration_since(Instant::now());
            let read = if left.is_zero() {
                Err(io::ErrorKind::TimedOut.into())
            } else {
                self.stream
                    .set_read_timeout(Some(left))
                    .and_then(|()| self.stream.read(&mut bytes[filled..]))
            };
            match read {
                Ok(0) => return Err(self.failed(closed())),
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(self.failed(io::ErrorKind::TimedOut.into()));
                }
                Err(error) => return Err(self.failed(error)),
            }
        }
        Ok(bytes)
    }

    fn end(&mut self) -> Result<(), Error> {
        self.stream
            .set_read_timeout(None)
            .and_then(|()| self.stream.set_write_timeout(None))
            .map_err(|source| self.failed(source))
    }
}

fn closed() -> io::Error {
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        "it closed the connection, as it does for machines that it is not paired with",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn the_kernel_gets_a_socket_that_notices_a_dead_peer_within_the_grace() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Server::new("127.0.0.1", listener.local_addr().unwrap().port());
        for seconds in [5, 30, 300] {
            let asked = server.open().unwrap();
            let asked = asked.ask(&"1-1".parse().unwrap(), Duration::from_secs(seconds));
            let stream = asked.unwrap().secured.stream;
            let socket = SockRef::from(&stream);
            assert!(stream.nodelay().unwrap() && socket.keepalive().unwrap());
            assert_eq!(
                socket.tcp_user_timeout().unwrap(),
                Some(Duration::from_secs(seconds))
            );
            let idle = socket.tcp_keepalive_time().unwrap();
            let probing =
                socket.tcp_keepalive_interval().unwrap() * socket.tcp_keepalive_retries().unwrap();
            assert!((idle + probing).as_secs() <= seconds);
            assert_eq!(stream.read_timeout().unwrap(), None);
        }
    }

    #[test]
    fn nobody_there_is_told_with_its_place() {
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let server = Server::new("127.0.0.1", port);
        let error = server.open().unwrap_err();
        assert!(
            error.sentence().contains(&format!("127.0.0.1 port {port}")),
            "{}",
            error.sentence()
        );
        assert!(error.remedy().is_some());
    }
}
