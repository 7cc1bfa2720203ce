//! A USB device as the rest of the appliance sees it.

use protocol::{BusId, DevId, Speed, wire};
use serde::Serialize;

/// Facts about one plugged-in USB device, read from `/sys/bus/usb/devices/BUSID`.
///
/// Texts come from the device and are hostile: any Unicode, escape before showing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UsbDevice {
    /// Name in sysfs.
    pub busid: BusId,
    /// Bus and device number; changes on every replug.
    pub devid: DevId,
    /// Speed.
    pub speed: Speed,
    /// idVendor
    pub vendor: u16,
    /// idProduct
    pub product: u16,
    /// bcdDevice
    pub bcd_device: u16,
    /// bDeviceClass, bDeviceSubClass, bDeviceProtocol
    pub class: [u8; 3],
    /// bConfigurationValue of the active configuration, 0 for none, as while bound.
    pub configuration: u8,
    /// bNumConfigurations
    pub configurations: u8,
    /// Interfaces of the active configuration, or of the first when none is active, as while bound:
    /// class, subclass, protocol.
    pub interfaces: Vec<[u8; 3]>,
    /// iManufacturer
    pub manufacturer: Option<String>,
    /// iProduct
    pub product_name: Option<String>,
    /// iSerialNumber
    pub serial: Option<String>,
    /// The physical port: the sysfs path below `/sys/devices` up to the root hub, without the bus
    /// number, then the ports, such as `platform/soc/…/usb:1.4`, or `usb3:` on a USB 3 bus. The same after every reboot.
    pub port_path: String,
    /// The device's driver: `usb` (not ours yet), `usbip-host` (bound), or none.
    pub driver: Option<String>,
    /// `usbip_status`, while bound to usbip-host.
    pub stub: Option<StubStatus>,
    /// Whether it is to be exported, and why.
    pub verdict: Verdict,
}

impl UsbDevice {
    /// Whether usbip-host has it.
    #[must_use]
    pub fn is_bound(&self) -> bool {
        self.stub.is_some()
    }

    /// As an importer is told of it.
    #[must_use]
    pub fn on_the_wire(&self) -> wire::Device {
        wire::Device {
            path: format!("/sys/bus/usb/devices/{}", self.busid),
            busid: self.busid.clone(),
            devid: self.devid,
            speed: self.speed,
            vendor: self.vendor,
            product: self.product,
            bcd_device: self.bcd_device,
            class: self.class,
            configuration: self.configuration,
            configurations: self.configurations,
            interfaces: self.interfaces.clone(),
        }
    }
}

/// `usbip_status` of a bound device (`enum usbip_device_status`, drivers/usb/usbip/usbip_common.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StubStatus {
    /// 1: nobody imports it.
    Available,
    /// 2: imported.
    Used,
    /// 3: a reset failed; unbind and bind again.
    Error,
}

/// What the policy says about a device, with a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "verdict", content = "reason")]
pub enum Verdict {
    /// Export it; the reason names the driver that will have it on the VM, as `cp210x serial`.
    Export(String),
    /// Leave it alone; the reason says why. A person may decide otherwise.
    Skip(String),
    /// Never export it: this Pi needs it itself, or it cannot be exported.
    Refuse(String),
}

impl Verdict {
    /// Whether it is to be exported.
    #[must_use]
    pub fn exports(&self) -> bool {
        matches!(self, Self::Export(_))
    }
}

/// What happened on the bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Everything that is there now; what is not in it is gone. Sent first, on request, and when
    /// events were lost.
    Snapshot(Vec<UsbDevice>),
    /// A device that is to be exported is being given its driver. Its texts and configuration are
    /// still missing; [`Change::Present`] or [`Change::Gone`] follows within milliseconds.
    Coming(UsbDevice),
    /// A device is there, or its facts changed.
    Present(UsbDevice),
    /// A device was unplugged.
    Gone(BusId),
}
