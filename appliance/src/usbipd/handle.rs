//! The manager's way to the sessions.

use std::{io, sync::Arc};

use protocol::{BusId, DevId};

use super::{server::Shared, session::SessionFacts};
use crate::usb::StubStatus;

/// Lists and ends sessions. Cheap to clone.
#[derive(Clone)]
pub struct Handle(pub(super) Arc<Shared>);

/// Why a session was not ended.
#[derive(Debug, thiserror::Error)]
pub enum EndError {
    /// The device was unplugged or replugged, or nobody imports it; so that session is over.
    #[error("{0} has no session of that generation")]
    Over(BusId),
    /// An import of the device is under way, so what was known of its session may be outdated.
    #[error("an import of {0} is under way")]
    Changing(BusId),
    /// The kernel refused.
    #[error("failed to end the session of {busid}")]
    Kernel {
        /// The device.
        busid: BusId,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl Handle {
    /// End the session of a device, whichever process began it. [`Event::HungUp`](super::Event) of
    /// it follows.
    pub async fn end_session(&self, busid: &BusId, devid: DevId) -> Result<(), EndError> {
        let importer = &self.0.importer;
        let failed = |source| EndError::Kernel {
            busid: busid.clone(),
            source,
        };
        let _claim = importer
            .sessions
            .claim(busid)
            .ok_or_else(|| EndError::Changing(busid.clone()))?;
        let asked = busid.clone();
        let device = importer.kernel.call(move |e| e.device(&asked)).await;
        device
            .map_err(failed)?
            .filter(|device| device.devid == devid && device.stub == Some(StubStatus::Used))
            .ok_or_else(|| EndError::Over(busid.clone()))?;
        let ended = busid.clone();
        importer
            .kernel
            .call(move |e| e.end_session(&ended))
            .await
            .map_err(failed)?;
        importer.inherited.end(busid);
        Ok(())
    }

    /// Grant the VM a new device on the connection on which it waits for one, if it does. Does not
    /// block.
    pub fn give(&self, busid: &BusId) {
        let exports = self.0.exports.borrow();
        if let Some(device) = exports.fresh.get(busid) {
            self.0.waiting.give(device, |peer| exports.is_peer(peer));
        }
    }

    /// Close the connection on which the VM waits for a new device.
    pub fn end_waiting(&self) {
        self.0.waiting.end();
    }

    /// The sessions that this process began.
    #[must_use]
    pub fn sessions(&self) -> Vec<SessionFacts> {
        let sessions = self.0.importer.sessions.all();
        sessions
            .iter()
            .filter(|session| !session.has_hung_up())
            .map(|session| session.facts.clone())
            .collect()
    }

    /// The sessions of an earlier process that still run.
    #[must_use]
    pub fn inherited(&self) -> Vec<(BusId, DevId)> {
        self.0.importer.inherited.list()
    }

    /// Refusals that were not reported, because there were too many at once.
    #[must_use]
    pub fn unreported_refusals(&self) -> u64 {
        self.0.reports.unreported()
    }
}
