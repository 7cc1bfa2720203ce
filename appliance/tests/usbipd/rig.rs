//! A server on a loopback port, and clients of it.

use std::{
    future::pending,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use appliance::usbipd::{Event, Exports, Handle, RefusedImport, Server, bind};
use protocol::{
    BusId,
    wire::{Device, Header, Request, Status, check_import_reply},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    sync::{mpsc, watch},
    task::JoinHandle,
    time::timeout,
};

use crate::host::{Host, Kernel, busid, device};

/// Far above what any awaited state takes.
pub const CEILING: Duration = Duration::from_secs(15);

/// The paired VM's addresses in these tests; 127.0.0.9 and others are strangers.
pub const VM: &str = "127.0.0.1";
pub const VM_TOO: &str = "127.0.0.2";
pub const STRANGER: &str = "127.0.0.9";

pub struct Rig {
    pub addr: SocketAddr,
    pub host: Arc<Host>,
    pub exports: watch::Sender<Exports>,
    pub events: mpsc::Receiver<Event>,
    pub handle: Handle,
    serving: JoinHandle<()>,
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

pub fn exports(names: &[&str]) -> Exports {
    Exports {
        peers: [VM, VM_TOO].map(|ip| ip.parse().unwrap()).into(),
        devices: (names.iter())
            .map(|name| (busid(name), device(name).on_the_wire()))
            .collect(),
        fresh: [].into(),
        grace: Duration::from_secs(30),
    }
}

impl Rig {
    /// All of `names` plugged in and exported.
    pub fn new(names: &[&str]) -> Self {
        Self::with(Host::new(names), exports(names), 64)
    }

    pub fn with(host: Arc<Host>, exports: Exports, events: usize) -> Self {
        let listener = bind("[::]:0".parse().unwrap()).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (exports, exports_seen) = watch::channel(exports);
        let (sender, events) = mpsc::channel(events);
        let kernel = Arc::new(Kernel(Arc::clone(&host)));
        let server = Server::new(kernel, exports_seen, sender).unwrap();
        Self {
            addr: SocketAddr::new(VM.parse().unwrap(), port),
            host,
            exports,
            events,
            handle: server.handle(),
            serving: tokio::spawn(server.serve(listener, pending())),
        }
    }

    pub async fn connect(&self, from: &str) -> TcpStream {
        self.try_connect(from).await.unwrap()
    }

    /// A peer that is refused may be cut off so soon that connecting fails already.
    pub async fn try_connect(&self, from: &str) -> io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        let from: IpAddr = from.parse().unwrap();
        socket.bind((from, 0).into())?;
        socket.connect(self.addr).await
    }

    pub async fn event(&mut self) -> Event {
        timeout(CEILING, self.events.recv()).await.unwrap().unwrap()
    }

    /// Import as the VM, expecting success; the connection and the reply's bytes.
    pub async fn import(&self, name: &str) -> (TcpStream, Vec<u8>) {
        let mut stream = self.connect(VM).await;
        stream.write_all(&request(name)).await.unwrap();
        let mut reply = vec![0; Header::SIZE + Device::SIZE];
        let read = timeout(CEILING, stream.read_exact(&mut reply));
        read.await.unwrap().unwrap();
        (stream, reply)
    }

    /// Import as the VM, expecting a refusal.
    pub async fn refused(&self, name: &str) -> Status {
        let mut stream = self.connect(VM).await;
        stream.write_all(&request(name)).await.unwrap();
        let reply = to_end(&mut stream).await.unwrap();
        let header = Header::decode(reply.try_into().unwrap()).unwrap();
        check_import_reply(header).unwrap()
    }
}

pub fn request(name: &str) -> Vec<u8> {
    Request::Import(busid(name)).encode()
}

/// All that comes until the server closes.
pub async fn to_end(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    timeout(CEILING, stream.read_to_end(&mut all))
        .await
        .unwrap()?;
    Ok(all)
}

pub fn imported(name: &str) -> Event {
    Event::Imported {
        busid: busid(name),
        devid: device(name).devid,
        peer: VM.parse().unwrap(),
    }
}

pub fn hung_up(name: &str) -> Event {
    Event::HungUp {
        busid: busid(name),
        devid: device(name).devid,
    }
}

pub fn refusal(peer: &str, reason: RefusedImport) -> Event {
    Event::Refused {
        peer: peer.parse().unwrap(),
        reason,
    }
}

pub fn busy(name: &str) -> RefusedImport {
    let busid: BusId = busid(name);
    RefusedImport::Busy(busid)
}

/// The session is alive: the kernel's side answers.
pub async fn echoes(stream: &mut TcpStream) {
    stream.write_all(b"URB").await.unwrap();
    let mut back = [0; 3];
    timeout(CEILING, stream.read_exact(&mut back))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&back, b"URB");
}
