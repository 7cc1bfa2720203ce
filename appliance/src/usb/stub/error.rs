//! What can go wrong with usbip-host.

use std::io;

use protocol::BusId;

use super::SLOTS;

/// Why a device could not be bound, unbound or handed over.
#[derive(Debug, thiserror::Error)]
pub enum StubError {
    /// The kernel has no usbip-host.
    #[error("the kernel module usbip_host is not loaded")]
    NoModule,
    /// The device is not plugged in.
    #[error("{0} is not plugged in")]
    NotPluggedIn(BusId),
    /// Another device is at its place.
    #[error("{0} was replugged")]
    Replugged(BusId),
    /// All slots of usbip-host's table are taken; the device was left as it was.
    #[error(
        "failed to add {busid} to usbip-host's table: its {SLOTS} slots are taken by {entries}"
    )]
    TableFull {
        /// The device.
        busid: BusId,
        /// The busids in the table.
        entries: String,
    },
    /// `match_busid`; the device was left as it was.
    #[error("failed to add {busid} to usbip-host's table")]
    Add {
        /// The device.
        busid: BusId,
        /// Why.
        source: io::Error,
    },
    /// The driver that had the device would not let it go.
    #[error("failed to take {busid} from its driver {driver}")]
    Release {
        /// The device.
        busid: BusId,
        /// The driver.
        driver: &'static str,
        /// Why.
        source: io::Error,
    },
    /// usbip-host would not take the device; it was given back to the driver `usb`.
    #[error("failed to bind {busid} to usbip-host")]
    Bind {
        /// The device.
        busid: BusId,
        /// Why.
        source: io::Error,
    },
    /// The driver `usb` did not take the device back.
    #[error("failed to give {busid} back to the driver usb")]
    GiveBack {
        /// The device.
        busid: BusId,
        /// Why.
        source: io::Error,
    },
    /// `usbip_sockfd`
    #[error("failed to hand a connection for {busid} to the kernel")]
    HandOver {
        /// The device.
        busid: BusId,
        /// Why.
        source: io::Error,
    },
    /// The kernel did not end a session.
    #[error("failed to end the session of {busid}")]
    End {
        /// The device.
        busid: BusId,
        /// Why; `TimedOut` when it is still in use after five seconds.
        source: io::Error,
    },
    /// The device's reset failed when its session ended: [`recover`](super::Stub::recover) it.
    #[error("{0} failed to reset when its session ended")]
    Broken(BusId),
}
