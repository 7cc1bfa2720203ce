//! Listening, and the limits of every connection.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::{
        Arc, Weak,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use actix_web::{
    App, HttpServer,
    dev::{Server, Service as _},
    middleware::from_fn,
    web,
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::sleep,
};

use super::{
    Context, guard,
    live::{Live, MOST_READERS},
    routes,
};

/// Connections at once: all live readers, and as many again for pages.
const MOST_CONNECTIONS: usize = 2 * MOST_READERS;

/// Connections that wait to be accepted.
const BACKLOG: u32 = 128;

/// How long a browser's idle connection stays open.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How long nobody asks for anything before the server is stopped.
const UNUSED: Duration = Duration::from_secs(30);

/// How long a request's head may take, and the end of a connection.
const SLOWEST: Duration = Duration::from_secs(5);

/// How long sent bytes may stay unacknowledged before the reader counts as gone: a phone that left
/// the network would otherwise keep its place for a quarter of an hour.
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);

/// Why the portal does not run.
#[derive(Debug, thiserror::Error)]
pub enum PortalError {
    /// The address cannot be listened at.
    #[error("failed to listen at {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The server ended by itself.
    #[error("failed to serve the portal")]
    Serve {
        /// Why.
        source: io::Error,
    },
}

/// A portal that listens.
///
/// The web server behind it runs only while somebody looks: its clock alone wakes the box four times
/// a second. Until then the kernel holds the connections.
pub struct Portal {
    listener: TcpListener,
    address: SocketAddr,
    context: Context,
    live: Live,
    usage: Usage,
}

impl Portal {
    /// Listen; `[::]` includes IPv4. Answers are given while [`Portal::run`] runs.
    pub fn bind(address: SocketAddr, context: Context) -> Result<Self, PortalError> {
        let error = |source| PortalError::Listen { address, source };
        let listener = listen(address).map_err(error)?;
        let address = listener.local_addr().map_err(error)?;
        let live = Live::new(context.clone());
        let usage = Usage::default();
        Ok(Self {
            listener,
            address,
            context,
            live,
            usage,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answer until the shutdown.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) -> Result<(), PortalError> {
        tokio::select! {
            ended = self.run_on_demand() => ended,
            () = shutdown => Ok(()),
        }
    }

    async fn run_on_demand(&self) -> Result<(), PortalError> {
        let error = |source| PortalError::Serve { source };
        loop {
            self.somebody().await.map_err(error)?;
            let server = self.start().map_err(error)?;
            let handle = server.handle();
            tokio::select! {
                ended = server => return ended.map_err(error),
                () = self.nobody() => {}
            }
            // What arrives meanwhile waits for the next one.
            handle.stop(true).await;
        }
    }

    /// Until somebody connects.
    async fn somebody(&self) -> io::Result<()> {
        let listener = self.listener.try_clone()?;
        #[expect(
            deprecated,
            reason = "its successor is an unsafe fn, for the sake of types other than a TcpListener"
        )]
        let listener = AsyncFd::with_interest(listener, Interest::READABLE)?;
        listener.readable().await.map(drop)
    }

    /// Until nobody has asked for anything for a while, and no live reader is left.
    async fn nobody(&self) {
        loop {
            sleep(UNUSED).await;
            if self.usage.is_over() && self.live.readers() == 0 {
                return;
            }
        }
    }

    fn start(&self) -> io::Result<Server> {
        let (context, live, usage) = (self.context.clone(), self.live.clone(), self.usage.clone());
        let server = HttpServer::new(move || {
            let usage = usage.clone();
            // The last one wrapped comes first.
            App::new()
                .app_data(web::Data::new(context.clone()))
                .app_data(web::Data::new(live.clone()))
                .configure(routes::configure)
                .wrap(from_fn(guard::visitor::check))
                .wrap(from_fn(guard::origin::check))
                .wrap(from_fn(guard::host::check))
                .wrap(guard::headers::headers())
                .wrap_fn(move |request, service| {
                    let request_under_way = usage.begin();
                    let answer = service.call(request);
                    async move {
                        let answer = answer.await;
                        drop(request_under_way);
                        answer
                    }
                })
        })
        // One is enough for a house, and each costs memory.
        .workers(1)
        .worker_max_blocking_threads(1)
        .max_connections(MOST_CONNECTIONS)
        .keep_alive(KEEP_ALIVE)
        .client_request_timeout(SLOWEST)
        .client_disconnect_timeout(SLOWEST)
        // A page that was closed frees its place at once, not with the next event.
        .h1_allow_half_closed(false)
        .shutdown_timeout(1)
        .disable_signals()
        .listen(self.listener.try_clone()?)?
        .run();
        Ok(server)
    }
}

/// Requests since somebody asked, and those that have no answer yet.
#[derive(Clone, Default)]
struct Usage {
    begun: Arc<AtomicU32>,
    under_way: Arc<()>,
}

impl Usage {
    /// Under way until dropped.
    fn begin(&self) -> Weak<()> {
        self.begun.fetch_add(1, Ordering::Relaxed);
        Arc::downgrade(&self.under_way)
    }

    /// Whether nobody has asked since the last time, and nobody waits.
    fn is_over(&self) -> bool {
        self.begun.swap(0, Ordering::Relaxed) == 0 && Arc::weak_count(&self.under_way) == 0
    }
}

/// Listen at this address and answer until the shutdown.
pub async fn serve(
    address: SocketAddr,
    context: Context,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), PortalError> {
    Portal::bind(address, context)?.run(shutdown).await
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.cloexec(),
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    // Accepted sockets inherit it.
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG.cast_signed())?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}
