//! A port that is switched off and on: to everybody else an unplug and a plug.

use std::time::Duration;

use protocol::{BusId, DevId};

use super::{
    input::Effect,
    state::{Act, State},
};
use crate::usb::{UsbDevice, Verdict};

/// How long a board may take to come back once its port is on again: boot loaders wait for an upload,
/// and the kernel tries a reluctant device for a while.
const COMES_BACK: Duration = Duration::from_secs(20);
/// How long people are told that it did not, or that the port cannot be switched.
const TOLD: Duration = Duration::from_mins(1);

/// A port that is switched off and on, or was a moment ago.
#[derive(Debug, Clone)]
pub(super) struct Cycle {
    /// What was in it.
    pub(super) facts: UsbDevice,
    /// When it ended, and how; none while it runs.
    pub(super) ended: Option<(Duration, Result<(), String>)>,
}

impl Cycle {
    /// Whether the device is expected back.
    pub(super) fn is_awaited(&self, now: Duration) -> bool {
        match &self.ended {
            None => true,
            Some((at, result)) => result.is_ok() && now < *at + COMES_BACK,
        }
    }

    /// When the next thing about it changes by itself.
    pub(super) fn next_change(&self, now: Duration) -> Option<Duration> {
        let (at, _) = self.ended.as_ref()?;
        if self.is_awaited(now) {
            Some(*at + COMES_BACK)
        } else {
            self.forgotten_at()
        }
    }

    fn forgotten_at(&self) -> Option<Duration> {
        self.ended.as_ref().map(|(at, result)| match result {
            Ok(()) => *at + COMES_BACK + TOLD,
            Err(_) => *at + TOLD,
        })
    }
}

/// A person wants it. Where something else is being done to the device, nothing happens; nor to what is
/// never exported, such as a hub or the Pi's network.
pub(super) fn begin(
    state: &mut State,
    busid: BusId,
    devid: Option<DevId>,
    effects: &mut Vec<Effect>,
) {
    let Some(device) = state.devices.get_mut(&busid).filter(|device| {
        device.busy.is_none()
            && !matches!(device.facts.verdict, Verdict::Refuse(_))
            && devid.is_none_or(|devid| devid == device.facts.devid)
    }) else {
        return;
    };
    device.busy = Some(Act::Cycling);
    let cycle = Cycle {
        facts: device.facts.clone(),
        ended: None,
    };
    effects.push(Effect::PowerCycle(busid.clone(), device.facts.devid));
    state.cycles.insert(busid, cycle);
}

/// It is over, or could not be done.
pub(super) fn cycled(state: &mut State, busid: &BusId, devid: DevId, result: Result<(), String>) {
    let now = state.now;
    if let Some(device) = state.devices.get_mut(busid)
        && device.facts.devid == devid
    {
        device.busy = None;
        device.changed = Some(now);
    }
    state.rescan_by(now);
    let Some(cycle) = state.cycles.get_mut(busid) else {
        return;
    };
    let replaced = state
        .devices
        .get(busid)
        .is_some_and(|device| device.facts.devid != devid);
    if replaced {
        state.cycles.remove(busid);
    } else {
        cycle.ended = Some((now, result));
    }
}

/// Something is in the port again.
pub(super) fn back(state: &mut State, busid: &BusId) {
    if state
        .cycles
        .get(busid)
        .is_some_and(|cycle| cycle.ended.is_some())
    {
        state.cycles.remove(busid);
    }
}

/// Forget what people have been told for long enough.
pub(super) fn forget(state: &mut State) {
    let now = state.now;
    state
        .cycles
        .retain(|_, cycle| cycle.forgotten_at().is_none_or(|at| now < at));
}
