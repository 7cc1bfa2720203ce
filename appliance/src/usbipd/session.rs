//! The imports that run: what is known of each, and asking its peer whether it still knows it.

use std::{
    collections::{BTreeMap, HashSet},
    io,
    net::{IpAddr, Shutdown, TcpStream},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use protocol::{BusId, DevId};
use tokio::{sync::SetOnce, time::timeout};

use super::{
    hangup::{HangUp, HangupWatch},
    socket,
};

/// A running import, for people and for the manager.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionFacts {
    /// The device.
    pub busid: BusId,
    /// Its generation.
    pub devid: DevId,
    /// The importer.
    pub peer: IpAddr,
    /// When the kernel got the socket.
    pub since: Instant,
}

/// A running import. The kernel has the socket; this keeps the file it was handed over from, to
/// notice the end and to ask the peer.
pub(super) struct Session {
    pub(super) facts: SessionFacts,
    socket: Arc<TcpStream>,
    hang_up: HangUp,
    reported: SetOnce<()>,
}

impl Session {
    /// Must begin before the hand-over, so that no end is missed.
    pub(super) fn new(
        facts: SessionFacts,
        socket: Arc<TcpStream>,
        watch: &Arc<HangupWatch>,
    ) -> io::Result<Self> {
        let hang_up = watch.watch(Arc::clone(&socket))?;
        Ok(Self {
            facts,
            socket,
            hang_up,
            reported: SetOnce::new(),
        })
    }

    /// Wait for the connection's end.
    pub(super) async fn hung_up(&self) {
        self.hang_up.wait().await;
    }

    /// Whether the connection has ended.
    pub(super) fn has_hung_up(&self) -> bool {
        self.hang_up.happened()
    }

    /// The end of this session has been reported.
    pub(super) fn set_reported(&self) {
        // Set twice or once, it says the same.
        let _ = self.reported.set(());
    }

    /// Wait until the end of this session has been reported.
    pub(super) async fn reported(&self) {
        self.reported.wait().await;
    }

    /// Ask the peer whether it still knows this connection; true when the connection ended within
    /// `patience`. A peer that was restarted answers with a reset within a round trip.
    pub(super) async fn ends_when_asked(&self, patience: Duration, grace: Duration) -> bool {
        if self.hang_up.happened() {
            return true;
        }
        if let Err(error) = socket::ask(&self.socket) {
            tracing::warn!(busid = %self.facts.busid, %error, "failed to ask a peer");
        }
        let ended = timeout(patience, self.hung_up()).await.is_ok();
        if !ended {
            self.set_grace(grace);
        }
        ended
    }

    /// End it, as the peer would.
    pub(super) fn end(&self) {
        if let Err(error) = self.socket.shutdown(Shutdown::Both) {
            // It has ended already, as a rule.
            tracing::debug!(busid = %self.facts.busid, %error, "failed to shut a session down");
        }
    }

    fn set_grace(&self, grace: Duration) {
        if let Err(error) = socket::set_grace(&self.socket, grace) {
            tracing::warn!(busid = %self.facts.busid, %error, "failed to set the grace time");
        }
    }
}

/// The running imports of this process, and the devices whose import is under way.
#[derive(Default)]
pub(super) struct Sessions {
    running: Mutex<BTreeMap<BusId, Arc<Session>>>,
    claimed: Mutex<HashSet<BusId>>,
}

impl Sessions {
    fn running(&self) -> MutexGuard<'_, BTreeMap<BusId, Arc<Session>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn claimed(&self) -> MutexGuard<'_, HashSet<BusId>> {
        self.claimed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The latest session of a device; it may have hung up.
    pub(super) fn of(&self, busid: &BusId) -> Option<Arc<Session>> {
        self.running().get(busid).cloned()
    }

    /// All sessions.
    pub(super) fn all(&self) -> Vec<Arc<Session>> {
        self.running().values().cloned().collect()
    }

    /// A session has begun. Returns the one whose place it takes, which has hung up.
    pub(super) fn insert(&self, session: Arc<Session>) -> Option<Arc<Session>> {
        self.running().insert(session.facts.busid.clone(), session)
    }

    /// A session is over.
    pub(super) fn remove(&self, session: &Arc<Session>) {
        let mut running = self.running();
        let busid = &session.facts.busid;
        if running.get(busid).is_some_and(|s| Arc::ptr_eq(s, session)) {
            running.remove(busid);
        }
    }

    /// Apply a new grace time to the sockets of running sessions.
    pub(super) fn set_grace(&self, grace: Duration) {
        for session in self.all() {
            session.set_grace(grace);
        }
    }

    /// Have a device for oneself while its session is changed; `None` when somebody else has it.
    pub(super) fn claim(self: &Arc<Self>, busid: &BusId) -> Option<Claim> {
        let free = self.claimed().insert(busid.clone());
        free.then(|| Claim {
            sessions: Arc::clone(self),
            busid: busid.clone(),
        })
    }
}

/// The right to change a device's session, given back when dropped.
pub(super) struct Claim {
    sessions: Arc<Sessions>,
    busid: BusId,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.sessions.claimed().remove(&self.busid);
    }
}
