//! What a device is remembered by across replugs and reboots.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::usb::UsbDevice;

/// Serial numbers that makers leave on every piece.
const FILLERS: [&str; 7] = [
    "0",
    "1",
    "0001",
    "0000",
    "00000000",
    "123456",
    "0123456789ABCDEF",
];

/// A device's serial number, where it has one that tells it from others of its kind.
pub(super) fn usable_serial(device: &UsbDevice) -> Option<&str> {
    device.serial.as_deref().map(str::trim).filter(|serial| {
        !serial.is_empty()
            && !FILLERS
                .iter()
                .any(|filler| filler.eq_ignore_ascii_case(serial))
    })
}

/// Vendor, product and serial number; where the serial number is missing or a common filler, vendor
/// and product with the physical port.
///
/// A bootloader has other ids than the program it loads, so it is remembered apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Identity(String);

impl Identity {
    /// The identity of a device that is plugged in.
    #[must_use]
    pub fn of(device: &UsbDevice) -> Self {
        let ids = format!("{:04x}:{:04x}", device.vendor, device.product);
        Self(match usable_serial(device) {
            Some(serial) => format!("{ids} serial {serial}"),
            None => format!("{ids} port {}", device.port_path),
        })
    }

    /// As it is stored.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for Identity {
    fn from(stored: String) -> Self {
        Self(stored)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
