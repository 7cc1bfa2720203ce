//! What the manager knows, for people and programs.

use std::time::Duration;

use protocol::{
    BusId, DevId,
    line::{Attachment, VmHello},
};
use serde::Serialize;

use super::{
    Identity,
    state::{Device, Session, State},
};
use crate::{
    usb::{UsbDevice, Verdict},
    vm,
};

/// A picture of everything. Durations are whole milliseconds since the start of the process.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct View {
    /// The pairing, none when there is none.
    pub pairing: Option<vm::Pairing>,
    /// The session with the VM.
    pub session: SessionView,
    /// Plugged-in devices in busid order, without root hubs.
    pub devices: Vec<DeviceView>,
    /// vhci ports of the VM for low-, full- and high-speed devices: free, total.
    pub vhci_ports: Option<(u32, u32)>,
}

/// The session with the VM.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum SessionView {
    /// No vm.conf.
    NotPaired,
    /// Not up; with the latest failure, if one happened yet.
    Down {
        /// Why.
        failure: Option<vm::Failure>,
    },
    /// Up.
    Up {
        /// The VM's greeting.
        hello: VmHello,
    },
}

/// A plugged-in device.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DeviceView {
    /// Facts from sysfs.
    #[serde(flatten)]
    pub facts: UsbDevice,
    /// Its lasting identity.
    pub identity: Identity,
    /// How it stands.
    #[serde(flatten)]
    pub state: DeviceState,
    /// From plug to tty, in milliseconds, for a device plugged in while the session was up.
    pub plug_to_tty_ms: Option<u64>,
}

/// How a device stands.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum DeviceState {
    /// Left alone.
    Skipped {
        /// Why.
        why: String,
    },
    /// Exportable, not attached, and nothing is on its way.
    Bound {
        /// Held back by a person.
        held: bool,
    },
    /// On its way to the VM.
    Attaching,
    /// Attached to the VM.
    Attached {
        /// How the VM has it; none until its list has come.
        attachment: Option<Attachment>,
        /// The VM does not answer at the moment; the attachment is kept for the grace time.
        silent: bool,
    },
    /// Something is wrong.
    Failed {
        /// What.
        message: String,
        /// What mends it.
        remedy: Option<String>,
        /// When it is tried again.
        next_try_ms: u64,
    },
}

impl State {
    /// A picture of everything.
    #[must_use]
    pub fn view(&self) -> View {
        View {
            pairing: self.pairing.clone(),
            session: match &self.session {
                Session::NotPaired => SessionView::NotPaired,
                Session::Down(failure) => SessionView::Down {
                    failure: failure.clone(),
                },
                Session::Up { hello, .. } => SessionView::Up {
                    hello: hello.clone(),
                },
            },
            devices: self
                .devices
                .values()
                .map(|device| self.device_view(device))
                .collect(),
            vhci_ports: self.free_ports,
        }
    }

    fn device_view(&self, device: &Device) -> DeviceView {
        DeviceView {
            facts: device.facts.clone(),
            identity: Identity::of(&device.facts),
            state: self.device_state(device),
            plug_to_tty_ms: device.plug_to_tty.map(millis),
        }
    }

    fn device_state(&self, device: &Device) -> DeviceState {
        let (busid, devid): (&BusId, DevId) = (&device.facts.busid, device.facts.devid);
        if let Verdict::Skip(why) = &device.facts.verdict {
            return DeviceState::Skipped { why: why.clone() };
        }
        // A hang-up may be the first sign of an unplug; until that is known nothing is said.
        let hung_up = device.hold_off > self.now && self.listening();
        if device.is_used() || hung_up {
            let port = self.vm_ports.get(&(busid.clone(), devid));
            let attachment = port.map(|port| port.attachment.clone());
            if attachment.is_none() && self.is_moving(busid, devid) {
                return DeviceState::Attaching;
            }
            return DeviceState::Attached {
                attachment,
                silent: !self.listening(),
            };
        }
        let held = self.is_held(&device.facts);
        if let (false, Some(failure)) = (held, &device.failure) {
            return DeviceState::Failed {
                message: failure.message.clone(),
                remedy: failure.remedy.clone(),
                next_try_ms: millis(failure.next_try),
            };
        }
        if !held && (device.busy.is_some() || !device.facts.is_bound() || self.listening()) {
            return DeviceState::Attaching;
        }
        DeviceState::Bound { held }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
