//! The server: accepting connections, and the life of each.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::AsFd,
    sync::Arc,
    time::Duration,
};

use protocol::{
    BusId,
    wire::{self, Request},
};
use socket2::SockRef;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    Event, Exporter, Exports, RefusedImport,
    handle::Handle,
    handshake,
    hangup::HangupWatch,
    import::{Begun, Importer, Refusal},
    inherited::Inherited,
    kernel::Kernel,
    report::Reports,
    slots::{Slot, Slots},
    socket,
    waiting::Waiting,
};

/// How long a peer may take to accept a device list.
const REPLY_DEADLINE: Duration = Duration::from_secs(2);

/// The pause after a failed accept, which is the lack of a file descriptor or of memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The USB/IP server.
pub struct Server {
    shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) importer: Importer,
    pub(super) reports: Reports,
    pub(super) exports: watch::Receiver<Exports>,
    pub(super) waiting: Waiting,
    slots: Arc<Slots>,
}

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
#[error("failed to create the epoll that watches sessions")]
pub struct ServerError(#[source] io::Error);

impl Server {
    /// A server that does not listen yet. Must be called on a tokio runtime.
    ///
    /// The begin and end of sessions wait for room in `events`; refusals are dropped and counted
    /// when there is none.
    pub fn new(
        exporter: Arc<dyn Exporter>,
        exports: watch::Receiver<Exports>,
        events: mpsc::Sender<Event>,
    ) -> Result<Self, ServerError> {
        let importer = Importer {
            kernel: Kernel(exporter),
            sessions: Arc::default(),
            inherited: Inherited::default(),
            watch: Arc::new(HangupWatch::new().map_err(ServerError)?),
        };
        let shared = Arc::new(Shared {
            importer,
            reports: Reports::new(events),
            exports,
            waiting: Waiting::default(),
            slots: Arc::default(),
        });
        Ok(Self { shared })
    }

    /// The manager's way to the sessions.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle(Arc::clone(&self.shared))
    }

    /// Serve until `shutdown` ends. Sessions run on in the kernel afterwards, and the next process
    /// inherits them.
    pub async fn serve(self, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        let shared = &self.shared;
        let importer = &shared.importer;
        if let Err(error) = importer.inherited.adopt(&importer.kernel).await {
            tracing::warn!(%error, "failed to look for sessions of an earlier process");
        }
        tokio::select! {
            () = shutdown => {}
            () = accept(shared, &listener) => {}
            () = inherited(shared) => {}
            () = follow_grace(shared) => {}
            error = importer.watch.run() => {
                // The sessions are safe, but their ends would go unnoticed: the caller restarts us.
                tracing::error!(%error, "failed to watch sessions");
            }
        }
    }
}

async fn inherited(shared: &Shared) {
    let importer = &shared.importer;
    importer
        .inherited
        .run(&importer.kernel, &shared.reports)
        .await;
    std::future::pending::<()>().await;
}

async fn follow_grace(shared: &Shared) {
    let mut exports = shared.exports.clone();
    let mut grace = exports.borrow_and_update().grace;
    while exports.changed().await.is_ok() {
        let new = exports.borrow_and_update().grace;
        if new != grace {
            grace = new;
            shared.importer.sessions.set_grace(grace);
        }
    }
    // Nobody can change it any more.
    std::future::pending::<()>().await;
}

async fn accept(shared: &Arc<Shared>, listener: &TcpListener) {
    // Bounded: by the slots while in the handshake, by the number of devices after it.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, addr)) => {
                    let peer = canonical(addr);
                    if let Some(slot) = admit(shared, &stream, peer) {
                        connections.spawn(connection(Arc::clone(shared), stream, peer, slot));
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "failed to accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a connection's task failed");
                }
            }
        }
    }
}

fn canonical(addr: SocketAddr) -> IpAddr {
    addr.ip().to_canonical()
}

/// Before a byte is read: is it the paired VM, and is there room?
fn admit(shared: &Shared, stream: &TcpStream, peer: IpAddr) -> Option<Slot> {
    let paired = shared.exports.borrow().is_peer(peer);
    let admitted = if paired {
        shared.slots.take(peer).ok_or(RefusedImport::TooMany)
    } else {
        Err(RefusedImport::Stranger)
    };
    admitted
        .inspect_err(|reason| {
            // Reset: nothing of it shall stay in TIME_WAIT here. Without it, it is closed as usual.
            let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
            shared.reports.refused(peer, reason.clone());
        })
        .ok()
}

/// One connection, from its first byte to the end of the session that came of it.
async fn connection(shared: Arc<Shared>, mut stream: TcpStream, peer: IpAddr, slot: Slot) {
    let (busid, granted) = match handshake::open(&mut stream).await {
        Ok(None) => return,
        Ok(Some(Request::Devlist)) => return devlist(&shared, stream, peer, None).await,
        Ok(Some(Request::DevlistAfterBoot(seconds))) => {
            let running = Duration::from_secs(seconds.into());
            return devlist(&shared, stream, peer, Some(running)).await;
        }
        // From here on there is one for each device at the most, and one that waits.
        Ok(Some(Request::Import(busid))) => {
            drop(slot);
            (busid, None)
        }
        Ok(Some(Request::Next)) => {
            drop(slot);
            let Some(device) = next(&shared, &stream, peer).await else {
                return;
            };
            (device.busid.clone(), Some(device))
        }
        Err(reason) => return shared.reports.refused(peer, reason),
    };
    match import(&shared, stream, busid, granted, peer).await {
        Ok(begun) => live(&shared, begun).await,
        Err(reason) => shared.reports.refused(peer, reason),
    }
}

/// The next new device, which was granted; none when the peer left, said something, or waits on another
/// connection.
async fn next(shared: &Shared, stream: &TcpStream, peer: IpAddr) -> Option<wire::Device> {
    let grace = shared.exports.borrow().grace;
    let prepared = socket::set_grace(stream, grace);
    let socket = prepared.and_then(|()| stream.as_fd().try_clone_to_owned());
    let socket = socket
        .inspect_err(|error| tracing::debug!(%peer, %error, "failed to let a peer wait"))
        .ok()?;
    let socket = Arc::new(socket);
    let mut byte = [0];
    tokio::select! {
        given = shared.waiting.wait(peer, &socket) => given.ok(),
        _ = stream.peek(&mut byte) => None,
    }
}

async fn devlist(shared: &Shared, mut stream: TcpStream, peer: IpAddr, running: Option<Duration>) {
    let exports = shared.exports.borrow().clone();
    match shared.importer.devlist(&exports, peer, running).await {
        Ok(devices) => {
            let reply = wire::encode_devlist(&devices);
            let sent = timeout(REPLY_DEADLINE, stream.write_all(&reply)).await;
            if !matches!(sent, Ok(Ok(()))) {
                tracing::debug!(%peer, "failed to send a device list");
            }
        }
        Err(error) => tracing::warn!(%error, "failed to list the devices"),
    }
}

async fn import(
    shared: &Shared,
    stream: TcpStream,
    busid: BusId,
    granted: Option<wire::Device>,
    peer: IpAddr,
) -> Result<Begun, RefusedImport> {
    let failed = |error: io::Error| RefusedImport::Kernel(busid.clone(), error.to_string());
    let stream = stream.into_std().map_err(failed)?;
    let refused = stream.try_clone();
    let (importer, mut exports) = (&shared.importer, shared.exports.clone());
    let result = importer
        .import(&mut exports, stream, &busid, granted, peer)
        .await;
    result.map_err(|Refusal { status, reason }| {
        let told = refused.and_then(|stream| match status {
            Some(status) => socket::send_now(stream, &wire::encode_import(Err(status))),
            None => SockRef::from(&stream).set_linger(Some(Duration::ZERO)),
        });
        if let Err(error) = told {
            tracing::debug!(%peer, %error, "failed to tell of a refusal");
        }
        reason
    })
}

async fn live(shared: &Shared, begun: Begun) {
    let Begun {
        session,
        former,
        inherited,
    } = begun;
    let facts = session.facts.clone();
    let (busid, devid) = (facts.busid, facts.devid);
    tracing::info!(%busid, %devid, peer = %facts.peer, "imported");
    if let Some(former) = former {
        former.reported().await;
    }
    if let Some(devid) = inherited {
        let busid = busid.clone();
        shared.reports.fact(Event::HungUp { busid, devid }).await;
    }
    let imported = Event::Imported {
        busid: busid.clone(),
        devid,
        peer: facts.peer,
    };
    shared.reports.fact(imported).await;
    session.hung_up().await;
    tracing::info!(%busid, %devid, "hung up");
    shared.importer.until_free(&session).await;
    shared.reports.fact(Event::HungUp { busid, devid }).await;
    session.set_reported();
    shared.importer.sessions.remove(&session);
}
