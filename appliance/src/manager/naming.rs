//! Which device has which name now, and that the VM knows.

use std::{collections::BTreeMap, time::Duration};

use protocol::line::{Answer, CAN_ALIAS, Named, Request};

use super::{
    input::Effect,
    kept::Scope,
    plan::send,
    state::{Device, RECHECK, RECONCILE, Session, State},
};
use crate::usb::UsbDevice;

/// How soon a board that restarts under another product id is back. What comes later into the same
/// port counts as another board: a name that leads to the wrong one is worse than none.
const SAME_BOARD: Duration = Duration::from_secs(5);

/// What is known about names beside the names themselves.
#[derive(Debug, Clone, Default)]
pub(super) struct Naming {
    /// What the VM's links are known to fit, in this session.
    told: Option<Vec<Named>>,
    /// Not to be told before; set when the VM could not do it.
    pub(super) next_try: Option<Duration>,
    failures: u32,
    /// The boards that left, by port: what is kept about them is kept by this, their vendor, and when.
    left: BTreeMap<String, (Scope, u16, Duration)>,
}

impl Naming {
    /// A session begins.
    pub(super) fn begin(&mut self) {
        self.told = None;
        self.next_try = None;
        self.failures = 0;
    }

    /// The VM answered.
    pub(super) fn answered(&mut self, now: Duration, told: Vec<Named>, answer: &Answer) {
        if matches!(answer, Answer::Linked {}) {
            self.begin();
            self.told = Some(told);
        } else {
            // It may have been carried out all the same.
            self.told = None;
            let wait = (RECHECK * 2u32.saturating_pow(self.failures.min(8))).min(RECONCILE);
            self.failures += 1;
            self.next_try = Some(now + wait);
        }
    }

    /// Whether the VM has a device's links under this name.
    pub(super) fn is_told(&self, named: &Named) -> bool {
        self.told.as_ref().is_some_and(|told| told.contains(named))
    }
}

/// A board left. One that comes back without its serial number, or with one that it had not, as
/// some boot loaders do, is known by its port and vendor for a moment.
pub(super) fn left(state: &mut State, device: &Device) {
    let now = state.now;
    let left = &mut state.naming.left;
    left.retain(|_, (.., at)| now < *at + SAME_BOARD);
    let port = device.facts.port_path.clone();
    left.insert(port, (device.lasting(), device.facts.vendor, now));
}

/// The board of which something that was just plugged in seems to be another guise.
pub(super) fn heir_of(state: &State, facts: &UsbDevice) -> Option<Scope> {
    let (scope, vendor, at) = state.naming.left.get(&facts.port_path)?;
    let numbers = matches!(scope, Scope::Serial(_)) && Scope::serial(facts).is_some();
    let same = !numbers && *vendor == facts.vendor && state.now < *at + SAME_BOARD;
    same.then(|| scope.clone())
}

impl State {
    /// Every named device that is plugged in. Of two that claim one name, clones with the same
    /// serial number for example, the first has it.
    pub(super) fn named(&self) -> Vec<Named> {
        let mut list: Vec<Named> = Vec::new();
        for device in self.devices.values() {
            let alias = self.kept.alias(&device.facts, device.heir_of.as_ref());
            if let Some((_, alias)) = alias
                && list.iter().all(|other| other.alias != *alias)
            {
                list.push(Named {
                    busid: device.facts.busid.clone(),
                    devid: device.facts.devid,
                    alias: alias.clone(),
                });
            }
        }
        list
    }
}

/// Tell the VM when it does not know.
pub(super) fn plan(state: &mut State, effects: &mut Vec<Effect>) {
    let Session::Up { hello, .. } = &state.session else {
        return;
    };
    let can = hello.capabilities.iter().any(|can| can == CAN_ALIAS);
    let wait = state.naming.next_try.is_some_and(|at| at > state.now);
    let under_way = state
        .pending
        .values()
        .any(|(request, _)| matches!(request, Request::Aliases(_)));
    if !can || wait || under_way || !state.scanned {
        return;
    }
    let named = state.named();
    if state.naming.told.as_ref() != Some(&named) {
        send(state, Request::Aliases(named), effects);
    }
}
