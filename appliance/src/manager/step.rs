//! Takes in one input.

use std::{collections::BTreeSet, time::Duration};

use protocol::{
    BusId, DevId,
    line::{Answer, Attachment, Request, VmStatus},
};

use super::{
    Identity, Remembered, coming,
    input::{Command, Effect, Input},
    kept::{Keep, Scope},
    naming, plan, power, record,
    state::{Act, Device, HANG_UP_OR_UNPLUG, NEWER, RECHECK, Session, State, VmPort},
};
use crate::{
    history::{Event, Kind},
    usb::{Change, StubStatus, UsbDevice},
    usbipd::{self, RefusedImport},
    vm::{self, Pairing},
};

/// What is known after `input`, and what is to be done about it. `now` is the time since the start
/// of the process and never goes back.
#[must_use]
pub fn step(mut state: State, now: Duration, input: Input) -> (State, Vec<Effect>) {
    let mut effects = Vec::new();
    state.now = now;
    match input {
        Input::Recalled(list) => {
            state.memory = list.into_iter().map(|m| (m.identity.clone(), m)).collect();
        }
        Input::Kept(list) => {
            for keep in list {
                state.kept.take(&keep);
            }
        }
        Input::Usb(change) => usb(&mut state, change, &mut effects),
        Input::Grace(grace) => state.grace = grace,
        Input::Bound(busid, devid, result) => act_done(&mut state, &busid, devid, result, true),
        Input::Unbound(busid, devid, result) => act_done(&mut state, &busid, devid, result, false),
        Input::SessionEnded(busid, devid, result) => {
            act_done(&mut state, &busid, devid, result, true);
        }
        Input::PowerCycled(busid, devid, result) => {
            power::cycled(&mut state, &busid, devid, result);
        }
        Input::Usbipd(event) => usbipd(&mut state, event, &mut effects),
        Input::Vm(event) => vm(&mut state, event, &mut effects),
        Input::Command(command) => obey(&mut state, command, &mut effects),
        Input::Tick => {}
    }
    power::forget(&mut state);
    plan::plan(&mut state, &mut effects);
    record::record(&mut state, &mut effects);
    (state, effects)
}

fn usb(state: &mut State, change: Change, effects: &mut Vec<Effect>) {
    let before = state.devices.len();
    match change {
        Change::Snapshot(devices) => {
            let there: BTreeSet<BusId> = devices.iter().map(|d| d.busid.clone()).collect();
            let gone = state.devices.keys().filter(|busid| !there.contains(busid));
            for busid in gone.cloned().collect::<Vec<_>>() {
                unplugged(state, &busid);
            }
            if state.devices.len() < before {
                effects.push(Effect::Sweep);
            }
            for facts in devices {
                present(state, facts);
            }
            state.coming.clear();
            state.scanned = true;
            state.ruled_unseen = false;
        }
        Change::Coming(facts) => coming::begins(state, facts, effects),
        Change::Present(facts) => present(state, facts),
        Change::Gone(busid) => {
            state.coming.remove(&busid);
            if unplugged(state, &busid) {
                effects.push(Effect::Sweep);
                state.ask_status_by(state.now + RECHECK);
            }
        }
    }
}

/// Returns whether it was there.
fn unplugged(state: &mut State, busid: &BusId) -> bool {
    let Some(device) = state.devices.remove(busid) else {
        return false;
    };
    naming::left(state, &device);
    true
}

fn present(state: &mut State, mut facts: UsbDevice) {
    let now = state.now;
    let known = state.devices.get(&facts.busid);
    if known.is_none_or(|device| device.facts.devid != facts.devid) {
        let busid = facts.busid.clone();
        unplugged(state, &busid);
        power::back(state, &busid);
        let coming = state.coming.remove(&busid);
        let coming = coming.filter(|coming| coming.facts.devid == facts.devid);
        let mut device = Device::new(facts, now);
        device.since = coming.map_or(now, |coming| coming.since);
        device.heir_of = naming::heir_of(state, &device.facts);
        state.devices.insert(busid, device);
        return;
    }
    let Some(device) = state.devices.get_mut(&facts.busid) else {
        return;
    };
    device.read = now;
    if facts.stub == device.facts.stub {
        device.doubted = None;
    } else if device.busy.is_some() {
        // Read in the middle of it; its end is told.
        facts.stub = device.facts.stub;
    } else if device.doubted.is_some_and(|since| now >= since + NEWER) {
        device.doubted = None;
        device.changed = Some(now);
    } else {
        // Read before what we were told since, perhaps: look once more.
        let since = *device.doubted.get_or_insert(now);
        facts.stub = device.facts.stub;
        device.facts = facts;
        state.rescan_by(since + NEWER);
        return;
    }
    device.facts = facts;
}

/// A bind, unbind or end of session is over; with success the device is `bound` and free, or not.
fn act_done(
    state: &mut State,
    busid: &BusId,
    devid: DevId,
    result: Result<(), String>,
    bound: bool,
) {
    let now = state.now;
    let Some(device) = state
        .devices
        .get_mut(busid)
        .filter(|d| d.facts.devid == devid)
    else {
        return;
    };
    let was = device.busy.take();
    device.changed = Some(now);
    match result {
        Ok(()) => {
            device.fresh = was == Some(Act::Binding);
            device.failure = None;
            device.doubted = None;
            device.abandoned = false;
            device.facts.stub = bound.then_some(StubStatus::Available);
            device.facts.driver = Some(if bound { "usbip-host" } else { "usb" }.to_owned());
        }
        Err(message) => {
            device.fail(now, message, None);
            state.rescan_by(now);
        }
    }
}

fn usbipd(state: &mut State, event: usbipd::Event, effects: &mut Vec<Effect>) {
    let now = state.now;
    let (busid, devid, stub) = match event {
        usbipd::Event::Imported { busid, devid, .. } => (busid, devid, StubStatus::Used),
        usbipd::Event::HungUp { busid, devid } => (busid, devid, StubStatus::Available),
        usbipd::Event::Refused { peer, reason } => {
            if let RefusedImport::Kernel(busid, _) = &reason
                && let Some(device) = state.devices.get_mut(busid)
            {
                device.fresh = false;
            }
            let event = Event::new(Kind::Refused).by(peer);
            effects.push(Effect::Append(event.saying(reason.to_string())));
            return;
        }
    };
    if stub == StubStatus::Used && !state.listening() {
        effects.push(Effect::Kick);
    }
    let Some(device) = state
        .devices
        .get_mut(&busid)
        .filter(|d| d.facts.devid == devid)
    else {
        return;
    };
    device.facts.stub = Some(stub);
    device.fresh = false;
    device.changed = Some(now);
    device.doubted = None;
    device.abandoned = false;
    device.attached_at = (stub == StubStatus::Used).then_some(now);
    if stub == StubStatus::Available && device.busy.is_none() {
        device.hold_off = now + HANG_UP_OR_UNPLUG;
    }
}

fn vm(state: &mut State, event: vm::Event, effects: &mut Vec<Effect>) {
    let now = state.now;
    match event {
        vm::Event::Paired(pairing) => {
            if pairing != state.pairing {
                // Another user of the same VM keeps what the VM has.
                let other = |old: &Pairing| pairing.as_ref().is_none_or(|new| new.host != old.host);
                if state.pairing.as_ref().is_some_and(other) {
                    for device in state.devices.values_mut() {
                        device.abandoned = device.is_used();
                    }
                }
                state.addresses.clear();
                state.vm_ports.clear();
                state.free_ports = None;
            }
            state.session = if pairing.is_some() {
                Session::Down(None)
            } else {
                Session::NotPaired
            };
            state.unpaired = pairing.is_none();
            record::paired(state, pairing.as_ref(), effects);
            state.pairing = pairing;
        }
        vm::Event::Resolved(addresses) => state.addresses = addresses.into_iter().collect(),
        vm::Event::Up { hello, address } => {
            state.addresses.insert(address);
            state.addresses.extend(hello.address);
            state.vm_ports.clear();
            state.naming.begin();
            state.session = Session::Up {
                hello,
                since: now,
                listed: None,
            };
            state.status_at = Some(now);
            state.rescan_by(now);
            for device in state.devices.values_mut() {
                device.hold_off = Duration::ZERO;
                if let Some(failure) = &mut device.failure {
                    failure.next_try = now;
                }
            }
        }
        vm::Event::Down(failure) => {
            state.pending.clear();
            state.session = Session::Down(Some(failure));
            // What failed on the VM's side is now for the session's failure to explain.
            for device in state.devices.values_mut().filter(|d| d.facts.is_bound()) {
                device.failure = None;
            }
        }
        vm::Event::Reply { request, answer } => replied(state, request, answer, effects),
        vm::Event::Settled(attachment) => {
            if let Some(port) = state
                .vm_ports
                .get_mut(&(attachment.busid.clone(), attachment.devid))
            {
                let timings = port.attachment.timings;
                port.attachment = Attachment {
                    timings,
                    ..attachment
                };
            }
        }
    }
}

fn replied(state: &mut State, request: Request, answer: Answer, effects: &mut Vec<Effect>) {
    let now = state.now;
    let Some((_, asked)) = state.pending.remove(&request.to_string()) else {
        return;
    };
    match (request, answer) {
        (Request::Connect(..), Answer::Attached(attachment)) => {
            attached(state, attachment, effects);
        }
        (Request::Connect(busid, devid), Answer::Error(failure)) => {
            if let Some(device) = state
                .devices
                .get_mut(&busid)
                .filter(|d| Some(d.facts.devid) == devid)
            {
                // Why it could not be bound says more than that the VM did not get it.
                if device.facts.is_bound() || device.busy.is_some() {
                    device.fail(now, failure.message, failure.remedy);
                }
            }
            // sysfs may say why: another generation, a reset that failed. The kernel tells of neither.
            state.rescan_by(now);
            // It may have gone half-way.
            state.ask_status_by(now + RECHECK);
        }
        (Request::Disconnect(busid, Some(devid)), Answer::Detached { .. }) => {
            state.vm_ports.remove(&(busid.clone(), devid));
            if let Some(device) = state.devices.get_mut(&busid) {
                device.changed = Some(now);
            }
        }
        (Request::Disconnect(busid, Some(devid)), _) => {
            if let Some(port) = state.vm_ports.get_mut(&(busid, devid)) {
                port.next_try = now + RECHECK;
            }
            state.ask_status_by(now + RECHECK);
        }
        (Request::Status, Answer::Status(status)) => listed(state, asked, status),
        (Request::Status, _) => state.ask_status_by(now + RECHECK),
        (Request::Aliases(told), answer) => state.naming.answered(now, told, &answer),
        _ => {}
    }
}

fn attached(state: &mut State, attachment: Attachment, effects: &mut Vec<Effect>) {
    let now = state.now;
    let key = (attachment.busid.clone(), attachment.devid);
    let up_since = if let Session::Up { since, .. } = state.session {
        since
    } else {
        now
    };
    if let Some(device) = state
        .devices
        .get_mut(&attachment.busid)
        .filter(|d| d.facts.devid == attachment.devid)
    {
        device.failure = None;
        device.changed = Some(now);
        if attachment.timings.is_some() {
            device.attached_at = Some(now);
        }
        if device.plug_to_tty.is_none() && device.since >= up_since {
            device.plug_to_tty = now.checked_sub(device.since);
        }
        if !device.is_used() {
            state.rescan_by(now + NEWER);
        }
    }
    remember_tty(state, &attachment, effects);
    state.vm_ports.insert(
        key,
        VmPort {
            attachment,
            seen: now,
            next_try: Duration::ZERO,
        },
    );
    // How many ports are free now.
    state.ask_status_by(now + RECHECK);
}

fn remember_tty(state: &mut State, attachment: &Attachment, effects: &mut Vec<Effect>) {
    let Some(device) = state.devices.get(&attachment.busid) else {
        return;
    };
    let Some(tty) = attachment.ttys.first().map(|tty| tty.node.clone()) else {
        return;
    };
    remember(state, &Identity::of(&device.facts), effects, |memory| {
        memory.tty = Some(tty);
    });
}

/// Devices whose names are remembered; twice as many as the history keeps, so that there is room for new
/// ones in each run.
const MOST_REMEMBERED: usize = 2000;

/// Change what is remembered of a device, and have it kept if that made a difference.
fn remember(
    state: &mut State,
    identity: &Identity,
    effects: &mut Vec<Effect>,
    change: impl FnOnce(&mut Remembered),
) {
    // A board can make up another serial number each time.
    if state.memory.len() >= MOST_REMEMBERED && !state.memory.contains_key(identity) {
        return;
    }
    let memory = state
        .memory
        .entry(identity.clone())
        .or_insert_with(|| Remembered {
            identity: identity.clone(),
            tty: None,
        });
    let before = memory.clone();
    change(memory);
    if *memory != before {
        effects.push(Effect::Remember(memory.clone()));
    }
}

fn listed(state: &mut State, asked: Duration, status: VmStatus) {
    let now = state.now;
    if let Session::Up { listed, .. } = &mut state.session {
        *listed = Some(asked);
    }
    state.free_ports = Some((status.ports_free, status.ports_total));
    // What we learned after asking is newer than the list.
    state.vm_ports.retain(|(busid, devid), port| {
        port.seen > asked
            || status
                .attachments
                .iter()
                .any(|a| a.busid == *busid && a.devid == *devid)
    });
    for attachment in status.attachments {
        let key = (attachment.busid.clone(), attachment.devid);
        if let Some(port) = state.vm_ports.get_mut(&key) {
            let timings = port.attachment.timings;
            port.attachment = Attachment {
                timings,
                ..attachment
            };
        } else {
            let port = VmPort {
                attachment,
                seen: now,
                next_try: Duration::ZERO,
            };
            state.vm_ports.insert(key, port);
        }
    }
}

fn obey(state: &mut State, command: Command, effects: &mut Vec<Effect>) {
    record::asked(state, &command, effects);
    let chosen = match command {
        Command::AttachAll => None,
        Command::Attach(busid, devid) => Some((busid, devid, false)),
        Command::Detach(busid, devid) => Some((busid, devid, true)),
        Command::Release(scope) => {
            keep(state, Keep::Held(scope, false), effects);
            return;
        }
        Command::PowerCycle(busid, devid) => {
            power::begin(state, busid, devid, effects);
            return;
        }
        Command::Name(scope, alias) => {
            keep(state, Keep::Alias(scope, alias), effects);
            return;
        }
        Command::Rule(scope, ruling) => {
            keep(state, Keep::Rule(scope, ruling), effects);
            // The facts may have changed since they were read, a disk been mounted for example.
            state.ruled_unseen = true;
            state.rescan_by(state.now);
            return;
        }
    };
    let held = chosen.as_ref().is_some_and(|(.., held)| *held);
    let chosen: Vec<BusId> = state
        .devices
        .values()
        .filter(|device| {
            state.verdict(&device.facts).exports()
                && chosen.as_ref().is_none_or(|(busid, devid, _)| {
                    device.facts.busid == *busid
                        && devid.is_none_or(|devid| device.facts.devid == devid)
                })
        })
        .map(|device| device.facts.busid.clone())
        .collect();
    for busid in chosen {
        let Some(device) = state.devices.get_mut(&busid) else {
            continue;
        };
        device.failure = None;
        device.hold_off = Duration::ZERO;
        let scopes = state.kept.held(&device.facts, device.heir_of.as_ref());
        let scopes: Vec<Scope> = scopes.cloned().collect();
        match (held, scopes.is_empty()) {
            (true, true) => {
                let scope = device.lasting();
                keep(state, Keep::Held(scope, true), effects);
            }
            (true, false) => {}
            (false, _) => {
                for scope in scopes {
                    keep(state, Keep::Held(scope, false), effects);
                }
            }
        }
    }
    state.ask_status_by(state.now);
    state.rescan_by(state.now);
}

fn keep(state: &mut State, keep: Keep, effects: &mut Vec<Effect>) {
    if state.kept.take(&keep) {
        effects.push(Effect::Keep(keep));
    }
}
