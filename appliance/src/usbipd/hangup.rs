//! Noticing that a connection which the kernel has taken over came to its end.
//!
//! The sockets are in an epoll of their own that asks for EPOLLRDHUP alone, and that epoll is what
//! the runtime watches. Any interest of the runtime's own would either miss a close by the peer
//! (EPOLLPRI) or wake for each packet (EPOLLIN); even EPOLLPRI wakes the thread in the kernel for
//! each packet, since `sock_def_readable` names it.

use std::{
    collections::HashMap,
    io,
    net::TcpStream,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustix::{
    buffer::spare_capacity,
    event::{
        Timespec,
        epoll::{self, CreateFlags, EventData, EventFlags},
    },
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::watch,
};

/// Watches sockets for their end. [`run`](Self::run) must be polled for it to notice anything.
pub(super) struct HangupWatch {
    epoll: AsyncFd<OwnedFd>,
    watched: Mutex<Watched>,
}

#[derive(Default)]
struct Watched {
    next: u64,
    sockets: HashMap<u64, (Arc<TcpStream>, watch::Sender<bool>)>,
}

/// One socket's end. The socket is watched until this is dropped.
pub(super) struct HangUp {
    id: u64,
    happened: watch::Receiver<bool>,
    watch: Arc<HangupWatch>,
}

impl HangupWatch {
    /// Must be called on a tokio runtime.
    pub(super) fn new() -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        #[expect(
            deprecated,
            reason = "its successor is an unsafe fn, for the sake of types other than OwnedFd"
        )]
        let epoll = AsyncFd::with_interest(epoll, Interest::READABLE)?;
        Ok(Self {
            epoll,
            watched: Mutex::default(),
        })
    }

    fn watched(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watch a socket. One that has ended already is noticed too.
    pub(super) fn watch(self: &Arc<Self>, socket: Arc<TcpStream>) -> io::Result<HangUp> {
        let mut watched = self.watched();
        let id = watched.next;
        // EPOLLHUP and EPOLLERR are always reported.
        let flags = EventFlags::RDHUP | EventFlags::ONESHOT;
        epoll::add(&self.epoll, &*socket, EventData::new_u64(id), flags)?;
        let (sender, happened) = watch::channel(false);
        watched.next += 1;
        watched.sockets.insert(id, (socket, sender));
        Ok(HangUp {
            id,
            happened,
            watch: Arc::clone(self),
        })
    }

    /// Notice ends, for ever; returns only when epoll itself fails.
    pub(super) async fn run(&self) -> io::Error {
        loop {
            if let Err(error) = self.notice().await {
                return error;
            }
        }
    }

    async fn notice(&self) -> io::Result<()> {
        let mut ready = self.epoll.readable().await?;
        let mut events = Vec::with_capacity(32);
        let now = Timespec::default();
        match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&now)) {
            Ok(0) => ready.clear_ready(),
            Ok(_) => {
                for event in events {
                    let id = event.data.u64();
                    if let Some((_, sender)) = self.watched().sockets.get(&id) {
                        sender.send_replace(true);
                    }
                }
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

impl HangUp {
    /// Whether the connection has ended.
    pub(super) fn happened(&self) -> bool {
        *self.happened.borrow()
    }

    /// Wait for the connection's end.
    pub(super) async fn wait(&self) {
        // The sender lives as long as self, so the wait cannot fail.
        let _ = self.happened.clone().wait_for(|happened| *happened).await;
    }
}

impl Drop for HangUp {
    fn drop(&mut self) {
        if let Some((socket, _)) = self.watch.watched().sockets.remove(&self.id) {
            // Closing is not enough: the kernel's reference keeps the socket in the epoll.
            if let Err(error) = epoll::delete(&self.watch.epoll, &*socket) {
                tracing::warn!(%error, "failed to stop watching a socket");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        io::{Read, Write},
        net::{Shutdown, TcpListener},
        time::Duration,
    };

    use socket2::SockRef;
    use tokio::time::timeout;

    use super::*;

    const CEILING: Duration = Duration::from_secs(10);

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (listener.accept().unwrap().0, far)
    }

    fn watching() -> Arc<HangupWatch> {
        let watch = Arc::new(HangupWatch::new().unwrap());
        let running = Arc::clone(&watch);
        tokio::spawn(async move { running.run().await });
        watch
    }

    #[tokio::test]
    async fn every_kind_of_end_is_noticed() {
        type End = fn(&TcpStream, TcpStream);
        let ends: [(&str, End); 3] = [
            ("close by the peer", |_, far| drop(far)),
            ("reset by the peer", |_, far| {
                SockRef::from(&far)
                    .set_linger(Some(Duration::ZERO))
                    .unwrap();
                drop(far);
            }),
            ("shutdown at this end", |near, _| {
                near.shutdown(Shutdown::Both).unwrap();
            }),
        ];
        let watch = watching();
        for (name, end) in ends {
            let (near, far) = pair();
            let near = Arc::new(near);
            let hang_up = watch.watch(Arc::clone(&near)).unwrap();
            assert!(!hang_up.happened());
            end(&near, far);
            timeout(CEILING, hang_up.wait()).await.expect(name);
        }
        assert!(watch.watched().sockets.is_empty());
    }

    #[tokio::test]
    async fn an_end_before_the_watch_is_noticed() {
        let watch = watching();
        let (near, far) = pair();
        drop(far);
        let hang_up = watch.watch(Arc::new(near)).unwrap();
        timeout(CEILING, hang_up.wait()).await.unwrap();
    }

    #[tokio::test]
    async fn many_ends_at_once_are_all_noticed() {
        let watch = watching();
        let (hang_ups, peers): (Vec<_>, Vec<_>) = (0..100)
            .map(|_| pair())
            .map(|(near, far)| (watch.watch(Arc::new(near)).unwrap(), far))
            .unzip();
        drop(peers);
        for hang_up in hang_ups {
            timeout(CEILING, hang_up.wait()).await.unwrap();
        }
    }

    fn voluntary_switches(status: &str) -> u64 {
        let status = fs::read_to_string(status).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.unwrap().trim().parse().unwrap()
    }

    #[tokio::test]
    async fn data_wakes_nobody() {
        const PACKETS: u64 = 500;
        let watch = watching();
        let (near, mut far) = pair();
        far.set_nodelay(true).unwrap();
        let near = Arc::new(near);
        let hang_up = watch.watch(Arc::clone(&near)).unwrap();
        // Let the runtime's thread settle in its wait before counting.
        tokio::task::yield_now().await;
        let status = fs::read_link("/proc/thread-self").unwrap();
        let status = format!("/proc/{}/status", status.display());
        let before = voluntary_switches(&status);
        let (done, sent) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let mut byte = [0];
            for _ in 0..PACKETS {
                far.write_all(b"x").unwrap();
                (&*near).read_exact(&mut byte).unwrap();
            }
            done.send(far).unwrap();
        });
        let far = timeout(CEILING, sent).await.unwrap().unwrap();
        let woken = voluntary_switches(&status) - before;
        assert!(woken < 20, "{woken} wake-ups for {PACKETS} packets");
        assert!(!hang_up.happened());
        drop(far);
        timeout(CEILING, hang_up.wait()).await.unwrap();
    }
}
