//! What is plugged in: facts from sysfs, the serial policy, and binding to usbip-host.
//!
//! - [`device`]: a USB device as the rest of the appliance sees it
//! - [`sysfs`]: reading the devices that are there
//! - [`uevent`]: noticing changes
//! - `policy`: which devices are exported
//! - [`stub`]: binding to usbip-host, sessions, and its table of busids
//! - [`ports`]: fast enumeration on the Pi's ports
//! - [`power`]: switching a port off and on
//!
//! Everything here blocks: call it from a thread, or by `spawn_blocking`.

mod descriptors;
pub mod device;
mod directory;
mod policy;
pub mod ports;
pub mod power;
mod slots;
pub mod stub;
pub mod sysfs;
mod tracker;
pub mod uevent;
mod usage;

#[cfg(test)]
pub(crate) mod tree;

pub use device::{Change, StubStatus, UsbDevice, Verdict};
pub use stub::{Stub, StubError};
pub use sysfs::{Sysfs, SysfsError};
pub use uevent::Monitor;
