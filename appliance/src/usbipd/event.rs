//! What the server is told and what it reports.

use std::{
    collections::{BTreeMap, HashSet},
    net::IpAddr,
    time::Duration,
};

use protocol::{BusId, DevId, wire};

/// Who may import what. The manager publishes it; the server obeys from the next request on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exports {
    /// Addresses of the paired VM. Everybody else is refused before a device is named.
    pub peers: HashSet<IpAddr>,
    /// Devices that may be imported: bound, and held back by nobody.
    pub devices: BTreeMap<BusId, wire::Device>,
    /// Devices that are about to be bound, or are and were not imported yet: an import of one is granted
    /// at once, and gets it when it is bound.
    pub fresh: BTreeMap<BusId, wire::Device>,
    /// How long a silent peer keeps its devices.
    pub grace: Duration,
}

impl Exports {
    /// Whether this is an address of the paired VM, whichever form it has.
    #[must_use]
    pub fn is_peer(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let mut peers = self.peers.iter();
        peers.any(|known| known.to_canonical() == address)
    }
}

/// What happened at port 3240 and on the sockets handed to the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The kernel has the socket; the device is USED.
    Imported {
        /// The device.
        busid: BusId,
        /// Its generation.
        devid: DevId,
        /// The importer.
        peer: IpAddr,
    },
    /// The connection of an import ended, whoever ended it.
    HungUp {
        /// The device.
        busid: BusId,
        /// Its generation.
        devid: DevId,
    },
    /// A request was refused.
    Refused {
        /// Who asked.
        peer: IpAddr,
        /// Why.
        reason: RefusedImport,
    },
}

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RefusedImport {
    /// Not the paired VM.
    #[error("only the paired VM may import")]
    Stranger,
    /// Bytes that are no USB/IP request.
    #[error("malformed request: {0}")]
    Malformed(String),
    /// No whole request in time.
    #[error("no whole request within the time limit")]
    Timeout,
    /// Not exported, or held back.
    #[error("{0} is not exported")]
    NotExported(BusId),
    /// Imported already by a peer that is alive.
    #[error("{0} is in use")]
    Busy(BusId),
    /// The kernel refused.
    #[error("{0}: {1}")]
    Kernel(BusId, String),
    /// Too many connections at once.
    #[error("too many connections")]
    TooMany,
}
