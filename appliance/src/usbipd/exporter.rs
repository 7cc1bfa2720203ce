//! What the server needs of the devices.

use std::{io, os::fd::BorrowedFd};

use protocol::{BusId, DevId};

use crate::usb::{StubStatus, UsbDevice};

/// The plugged-in devices and the kernel's usbip-host, as the server sees them.
///
/// Every method blocks; the server calls them off its runtime and with a time limit.
pub trait Exporter: Send + Sync + 'static {
    /// All devices.
    fn devices(&self) -> io::Result<Vec<UsbDevice>>;

    /// One device, or `None` when it is not plugged in.
    fn device(&self, busid: &BusId) -> io::Result<Option<UsbDevice>>;

    /// Bus and device number of a device, or `None` when it is not plugged in.
    fn devid(&self, busid: &BusId) -> io::Result<Option<DevId>>;

    /// `usbip_status` of a device, or `None` when it is not bound or not plugged in.
    fn stub_status(&self, busid: &BusId) -> io::Result<Option<StubStatus>>;

    /// Write `usbip_sockfd`: the kernel takes its own reference to the socket and the device becomes
    /// [`StubStatus::Used`]. Fails unless it is [`StubStatus::Available`].
    fn hand_over(&self, busid: &BusId, socket: BorrowedFd<'_>) -> io::Result<()>;

    /// Write -1 to `usbip_sockfd`: the kernel shuts the connection down.
    fn end_session(&self, busid: &BusId) -> io::Result<()>;
}
