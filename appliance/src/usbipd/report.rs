//! Telling the manager what happened, without being held up by it or flooding it.

use std::{
    net::IpAddr,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::mpsc;

use super::{Event, RefusedImport};

/// Refusals reported per second, for strangers and for the paired VM each. A port scan must not
/// drown the history.
const REFUSALS_PER_SECOND: u32 = 5;

/// The way to the manager.
pub(super) struct Reports {
    events: mpsc::Sender<Event>,
    strangers: Mutex<Meter>,
    paired: Mutex<Meter>,
    unreported: AtomicU64,
}

impl Reports {
    pub(super) fn new(events: mpsc::Sender<Event>) -> Self {
        Self {
            events,
            strangers: Mutex::new(Meter::new()),
            paired: Mutex::new(Meter::new()),
            unreported: AtomicU64::new(0),
        }
    }

    /// Report the begin or end of a session: waits for room, so none is lost. Only the task of that
    /// session is held up by a manager that lags.
    pub(super) async fn fact(&self, event: Event) {
        if self.events.send(event).await.is_err() {
            tracing::debug!("nobody listens to the server's events");
        }
    }

    /// Report a refusal, unless there are too many or there is no room; those are counted.
    pub(super) fn refused(&self, peer: IpAddr, reason: RefusedImport) {
        let meter = match reason {
            RefusedImport::Stranger => &self.strangers,
            _ => &self.paired,
        };
        let within = meter
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .admits(Instant::now());
        if !within {
            self.unreported.fetch_add(1, Ordering::Relaxed);
            return;
        }
        tracing::info!(%peer, %reason, "refused");
        if self
            .events
            .try_send(Event::Refused { peer, reason })
            .is_err()
        {
            self.unreported.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Refusals that were not reported.
    pub(super) fn unreported(&self) -> u64 {
        self.unreported.load(Ordering::Relaxed)
    }
}

/// Counts within windows of a second.
struct Meter {
    window: Instant,
    admitted: u32,
}

impl Meter {
    fn new() -> Self {
        Self {
            window: Instant::now(),
            admitted: 0,
        }
    }

    fn admits(&mut self, now: Instant) -> bool {
        if now.duration_since(self.window) >= Duration::from_secs(1) {
            self.window = now;
            self.admitted = 0;
        }
        self.admitted = self.admitted.saturating_add(1);
        self.admitted <= REFUSALS_PER_SECOND
    }
}
