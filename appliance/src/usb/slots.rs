//! Keeping usbip-host's table of busids from filling up.
//!
//! The table has 16 slots. When a bound device is unplugged, its slot stays taken: `stub_disconnect`
//! sets its state to ADDED, and `del` frees a slot only in state OTHER (drivers/usb/usbip/stub_main.c,
//! Linux 6.12). The one way to that state is a write to `rebind`, which sets it and then goes
//! through the table's pointer to the device that was last bound there, and through that device's
//! pointer to its hub. Without more that is a use after free, as is removing the module; with slab
//! poisoning both crash at once. So a [`Pin`] keeps the two alive: an open usbfs node holds a
//! reference to its device. While a device that is gone is pinned, `rebind` finds it dead, does
//! nothing to it, and frees the slot; no session of another device notices.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use protocol::{BusId, DevId};

use super::sysfs::Sysfs;

/// Keeps the kernel's memory of one bound device and of its hub alive.
#[derive(Debug)]
pub(super) struct Pin {
    /// The device pinned.
    pub(super) devid: DevId,
    _device: File,
    _hub: File,
}

impl Pin {
    /// Pins the device that is now at `busid`. `nodes` is `/dev/bus/usb`.
    pub(super) fn open(sysfs: &Sysfs, nodes: &Path, busid: &BusId) -> io::Result<Self> {
        let gone = || io::Error::new(io::ErrorKind::NotFound, "the device was unplugged");
        let devid = sysfs.devid(busid).ok_or_else(gone)?;
        let hub = match hub_of(busid) {
            Some(hub) => sysfs.devid(&hub).ok_or_else(gone)?,
            // A root hub is always the first device of its bus.
            None => DevId(devid.busnum() << 16 | 1),
        };
        let pin = Self {
            devid,
            _device: File::open(node(nodes, devid))?,
            _hub: File::open(node(nodes, hub))?,
        };
        // The numbers were of this device all along: it is still there.
        if sysfs.devid(busid) == Some(devid) {
            Ok(pin)
        } else {
            Err(gone())
        }
    }
}

fn node(nodes: &Path, devid: DevId) -> PathBuf {
    nodes.join(format!("{:03}/{:03}", devid.busnum(), devid.devnum()))
}

/// The hub a device is plugged into; none for a root hub.
fn hub_of(busid: &BusId) -> Option<BusId> {
    busid.as_str().rsplit_once('.')?.0.parse().ok()
}
