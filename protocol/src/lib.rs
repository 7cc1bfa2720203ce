//! What both ends of usbip-pi speak, without any I/O.
//!
//! - [`id`]: busid, devid and speed, the names of a device on the wire and in sysfs
//! - [`alias`]: the name that a person gave a device
//! - [`wire`]: the USB/IP handshake on TCP port 3240
//! - [`join`]: pairing from the VM's side, over the portal
//! - [`line`]: the words the Pi sends to `usb-event-handler` and the JSON lines it answers with

pub mod alias;
pub mod id;
pub mod join;
pub mod line;
pub mod wire;

pub use alias::{Alias, AliasError};
pub use id::{BusId, DevId, Speed};

/// TCP port of USB/IP (IANA; `USBIP_PORT_STRING` in the kernel's tools/usb/usbip).
pub const USBIP_PORT: u16 = 3240;
