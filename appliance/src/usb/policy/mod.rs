//! Which devices are exported.
//!
//! The drivers' own id tables decide what is a serial device ([`ids`]). What carries this Pi's
//! network or a mounted file system, and everything with an Ethernet function, is refused before:
//! on some models the board's own network port is a USB device.

mod ids;

use super::{
    descriptors::{Interface, of_configuration},
    device::Verdict,
    usage::Usage,
};

/// USB base classes (usb.org, "Defined Class Codes").
const CLASS_HID: u8 = 0x03;
const CLASS_STORAGE: u8 = 0x08;
const CLASS_HUB: u8 = 0x09;

/// Ids that cdc_acm's table names only to leave them alone (`IGNORE_DEVICE` in
/// drivers/usb/class/cdc-acm.c of Linux 6.12); module aliases do not show that flag.
const CDC_ACM_IGNORES: [(u16, u16); 18] = [
    (0x04e2, 0x1400),
    (0x04e2, 0x1401),
    (0x04e2, 0x1402),
    (0x04e2, 0x1403),
    (0x04e2, 0x1410),
    (0x04e2, 0x1411),
    (0x04e2, 0x1412),
    (0x04e2, 0x1414),
    (0x04e2, 0x1420),
    (0x04e2, 0x1422),
    (0x04e2, 0x1424),
    (0x04e8, 0x685d),
    (0x058b, 0x0041),
    (0x108c, 0x0159),
    (0x108c, 0x0168),
    (0x108c, 0x0169),
    (0x27c6, 0x5395),
    (0x32a7, 0x0000),
];

/// What the policy looks at.
#[derive(Debug, Clone)]
pub struct Facts<'a> {
    /// idVendor
    pub vendor: u16,
    /// idProduct
    pub product: u16,
    /// bDeviceClass
    pub device_class: u8,
    /// Interfaces of all configurations, alternate settings included.
    pub interfaces: &'a [Interface],
    /// bConfigurationValue of the active configuration, 0 for none.
    pub configuration: u8,
    /// What this Pi uses the device for.
    pub usage: &'a Usage,
    /// Whether the device itself is attached over USB/IP, to a vhci port of this machine.
    pub on_vhci: bool,
}

/// Decides about a device.
#[must_use]
pub fn verdict(facts: &Facts) -> Verdict {
    if let Some(reason) = refusal(facts) {
        return Verdict::Refuse(reason);
    }
    let interfaces = of_configuration(facts.interfaces, facts.configuration);
    let id = (facts.vendor, facts.product);
    let driver = ids::find(ids::Kind::Serial, id, &interfaces)
        .filter(|driver| *driver != "cdc_acm" || !CDC_ACM_IGNORES.contains(&id));
    if let Some(driver) = driver {
        return Verdict::Export(format!("{driver} serial"));
    }
    let only = |class| {
        facts.device_class == class
            || !interfaces.is_empty() && interfaces.iter().all(|i| i.class[0] == class)
    };
    Verdict::Skip(if only(CLASS_HID) {
        "only a keyboard, mouse or other input device, no serial port".to_owned()
    } else if only(CLASS_STORAGE) {
        "only a disk, no serial port".to_owned()
    } else if let Some(driver) = ids::find(ids::Kind::Other, id, &interfaces) {
        format!("{driver} devices are not supported yet")
    } else {
        format!("no serial driver knows {:04x}:{:04x}", id.0, id.1)
    })
}

/// Why a device must not be exported, whatever else it can do.
fn refusal(facts: &Facts) -> Option<String> {
    if facts.on_vhci {
        return Some("itself attached over USB/IP".to_owned());
    }
    if facts.device_class == CLASS_HUB || facts.interfaces.iter().any(|i| i.class[0] == CLASS_HUB) {
        return Some("a hub: what is plugged into it is exported, not the hub".to_owned());
    }
    if let Some(name) = &facts.usage.network {
        return Some(format!("it is this Pi's network interface {name}"));
    }
    if let Some(function) = facts.interfaces.iter().find_map(|i| ethernet(i.class)) {
        return Some(format!("an Ethernet adapter ({function})"));
    }
    let id = (facts.vendor, facts.product);
    if let Some(driver) = ids::find(ids::Kind::Network, id, facts.interfaces) {
        return Some(format!("an Ethernet adapter ({driver})"));
    }
    let disk = facts.usage.mounted.as_ref()?;
    Some(format!("it carries a mounted file system ({disk})"))
}

/// The Ethernet function an interface of this class has.
///
/// Subclasses of class 02 from the USB CDC specification 1.2, table 4, and its NCM, EEM and MBIM
/// supplements, whatever the protocol; RNDIS as rndis_host of Linux knows it.
fn ethernet(class: [u8; 3]) -> Option<&'static str> {
    match class {
        [0x02, 0x06, _] => Some("CDC ECM"),
        [0x02, 0x0a, _] => Some("CDC MDLM"),
        [0x02, 0x0c, _] => Some("CDC EEM"),
        [0x02, 0x0d, _] => Some("CDC NCM"),
        [0x02, 0x0e, _] => Some("CDC MBIM"),
        [0x02, 0x02, 0xff] | [0xe0, 0x01, 0x03] | [0xef, 0x01 | 0x04, 0x01] => Some("RNDIS"),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
