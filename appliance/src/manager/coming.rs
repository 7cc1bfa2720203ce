//! Devices that are being given their driver: the VM is told of one before it can be read whole, where
//! what is still missing makes no difference.

use std::time::Duration;

use protocol::{BusId, DevId, line::Request};

use super::{input::Effect, plan, state::State};
use crate::usb::UsbDevice;

/// A device of which the VM was told.
#[derive(Debug, Clone)]
pub(super) struct Coming {
    /// Without texts and configuration.
    pub(super) facts: UsbDevice,
    pub(super) since: Duration,
}

/// A device is on its way: have it attached at once, if that is certain to be right.
pub(super) fn begins(state: &mut State, facts: UsbDevice, effects: &mut Vec<Effect>) {
    let since = state.now;
    let (busid, devid) = (facts.busid.clone(), facts.devid);
    let coming = Coming { facts, since };
    let new = !state.devices.contains_key(&busid)
        && !state.vm_ports.contains_key(&(busid.clone(), devid))
        && !state.is_moving(&busid, devid);
    if new && state.takes_coming() && state.is_welcome(&coming) {
        state.coming.insert(busid.clone(), coming);
        plan::send(state, Request::Connect(busid, Some(devid)), effects);
    }
}

impl State {
    /// Whether a device that comes can be attached before its serial number is known.
    pub(super) fn takes_coming(&self) -> bool {
        let connects = |request: &Request| matches!(request, Request::Connect(..));
        let mut pending = self.pending.values();
        let is_awaited = |other| self.coming_until(other).is_some_and(|at| self.now < at);
        self.scanned
            && self.listed().is_some()
            && !self.kept.depends_on_serial()
            // Which of several gets which name depends on their serial numbers.
            && !pending.any(|(request, _)| connects(request))
            && !self.devices.values().any(is_awaited)
    }

    /// Whether a device is to be exported, whatever its serial number is.
    pub(super) fn is_welcome(&self, coming: &Coming) -> bool {
        !self.kept.depends_on_serial() && self.verdict(&coming.facts).exports()
    }

    /// Whether a device is about to be there.
    pub(super) fn is_coming(&self, busid: &BusId, devid: DevId) -> bool {
        (self.coming.get(busid)).is_some_and(|coming| coming.facts.devid == devid)
    }
}
