//! Compares what is with what should be, and orders the difference.

use protocol::{BusId, DevId, line::Request};

use super::{
    input::Effect,
    naming,
    state::{Act, IMPORT_IN_FLIGHT, NEWER, RECHECK, RECONCILE, SLOW_CONNECT, SLOW_NAME, State},
};
use crate::usb::{StubStatus, UsbDevice};

/// Order what is missing. Orders nothing that is on its way already.
pub(super) fn plan(state: &mut State, effects: &mut Vec<Effect>) {
    let busids: Vec<BusId> = state.devices.keys().cloned().collect();
    for busid in &busids {
        on_the_pi(state, busid, effects);
    }
    naming::plan(state, effects);
    if state.scanned && state.listed().is_some() {
        strays_on_the_vm(state, effects);
        connects(state, effects);
    }
    if state.rescan_at.is_none_or(|at| at <= state.now) {
        state.rescan_at = Some(state.now + RECONCILE);
        effects.push(Effect::Rescan);
    }
    if state.listening()
        && state.status_at.is_none_or(|at| at <= state.now)
        && !state.is_pending(&Request::Status)
    {
        state.status_at = Some(state.now + RECONCILE);
        send(state, Request::Status, effects);
    }
}

/// Bind what is to be exported, and end what is stale.
fn on_the_pi(state: &mut State, busid: &BusId, effects: &mut Vec<Effect>) {
    let Some(device) = state.devices.get(busid) else {
        return;
    };
    if device.busy.is_some() || !device.is_due(state.now) {
        return;
    }
    let devid = device.facts.devid;
    let exports = state.verdict(&device.facts).exports();
    // What makes it one that the Pi needs may be newer than what is known.
    let wait = state.ruled_unseen && !device.facts.verdict.exports();
    let order = match device.facts.stub {
        None if exports && wait => None,
        None if exports => Some((Act::Binding, Effect::Bind(busid.clone(), devid))),
        None => None,
        Some(StubStatus::Error) => Some((Act::Binding, Effect::Rebind(busid.clone(), devid))),
        Some(StubStatus::Available) if exports => None,
        Some(StubStatus::Available) => Some((Act::Unbinding, Effect::Unbind(busid.clone(), devid))),
        Some(StubStatus::Used) => is_stale(state, busid, devid)
            .then(|| (Act::Ending, Effect::EndSession(busid.clone(), devid))),
    };
    if let (Some((act, effect)), Some(device)) = (order, state.devices.get_mut(busid)) {
        device.busy = Some(act);
        effects.push(effect);
    }
}

/// Whether an imported device's session is disproved by the VM's list, belongs to a VM that is no
/// longer paired, or is unwanted while the VM cannot be told so.
fn is_stale(state: &mut State, busid: &BusId, devid: DevId) -> bool {
    let Some(device) = state.devices.get(busid) else {
        return false;
    };
    if state.unpaired || device.abandoned {
        return true;
    }
    let unwanted = !state.is_wanted(device);
    if !state.listening() {
        return unwanted;
    }
    let Some(asked) = state.listed() else {
        return false;
    };
    if state.vm_ports.contains_key(&(busid.clone(), devid)) || state.is_moving(busid, devid) {
        return false;
    }
    let decisive = device
        .changed
        .is_none_or(|changed| changed + IMPORT_IN_FLIGHT <= asked);
    if !decisive {
        state.ask_status_by(state.now + RECHECK);
    }
    decisive
}

/// Detach what the VM has and should not have.
fn strays_on_the_vm(state: &mut State, effects: &mut Vec<Effect>) {
    let mut orders = Vec::new();
    let mut unsure = false;
    for ((busid, devid), port) in &state.vm_ports {
        if state.is_moving(busid, *devid) || port.next_try > state.now {
            continue;
        }
        let device = state.devices.get(busid).filter(|d| d.facts.devid == *devid);
        let stray = match device {
            None => !state.is_coming(busid, *devid),
            Some(device) if !state.is_wanted(device) => true,
            Some(device) if device.is_used() => false,
            // The Pi has no session for it, so the VM's end is dead; unless news of an import is
            // still on its way to us. Sysfs and the VM are both asked again before that is believed.
            Some(device) => {
                let latest = device
                    .changed
                    .map_or(port.seen, |changed| changed.max(port.seen));
                let sure = device.busy.is_none()
                    && device.read >= latest + NEWER
                    && state.listed().is_some_and(|asked| asked >= latest);
                unsure |= !sure;
                sure
            }
        };
        if stray {
            orders.push(Request::Disconnect(busid.clone(), Some(*devid)));
        }
    }
    if unsure {
        state.rescan_by(state.now + NEWER);
        state.ask_status_by(state.now + NEWER);
    }
    for request in orders {
        send(state, request, effects);
    }
}

/// Attach what is free or about to be, since the way to the VM and back takes longer than binding;
/// one after the other in the order of the ttys they had, so that they get the
/// same names again.
fn connects(state: &mut State, effects: &mut Vec<Effect>) {
    let now = state.now;
    for (busid, devid) in state.vm_ports.keys() {
        if let Some(device) = state.devices.get_mut(busid)
            && device.facts.devid == *devid
            && device.is_used()
        {
            device.failure = None;
        }
    }
    let next = state
        .devices
        .iter()
        .filter(|(busid, device)| {
            let devid = device.facts.devid;
            let free = device.facts.stub == Some(StubStatus::Available) && device.busy.is_none();
            (free || device.is_being_bound())
                && state.is_wanted(device)
                && device.is_due(now)
                && device.hold_off <= now
                && !state.vm_ports.contains_key(&((*busid).clone(), devid))
                && !state.is_moving(busid, devid)
                && !waits(state, &device.facts)
        })
        .min_by_key(|(busid, device)| {
            let tty = state.remembered_tty(&device.facts);
            (tty.is_none(), tty, (*busid).clone())
        })
        .map(|(busid, device)| Request::Connect(busid.clone(), Some(device.facts.devid)));
    if let Some(request) = next {
        send(state, request, effects);
    }
}

/// Whether a device is to wait for those that are being connected, and for those that come before
/// it in the order of names and will be free in a moment.
fn waits(state: &State, facts: &UsbDevice) -> bool {
    let own = state.remembered_tty(facts);
    let connecting = state.pending.values().any(|(request, since)| {
        let Request::Connect(busid, _) = request else {
            return false;
        };
        let other = state.devices.get(busid);
        let other = other.and_then(|device| state.remembered_tty(&device.facts));
        // A device without a remembered name may become any kind of tty.
        let competes = other.is_some_and(|(kind, _)| own.is_none_or(|(own, _)| own == kind));
        let patience = if competes { SLOW_NAME } else { SLOW_CONNECT };
        state.now < *since + patience
    });
    connecting
        || state.devices.values().any(|other| {
            state
                .coming_until(other)
                .is_some_and(|until| state.now < until)
                && state
                    .remembered_tty(&other.facts)
                    .is_some_and(|(kind, number)| {
                        own.is_none_or(|own| own.0 == kind && number < own.1)
                    })
        })
}

pub(super) fn send(state: &mut State, request: Request, effects: &mut Vec<Effect>) {
    state
        .pending
        .insert(request.to_string(), (request.clone(), state.now));
    effects.push(Effect::Send(request));
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use protocol::{
        DevId, Speed,
        line::{self, Answer, Attachment, Request, Tty, VmHello, VmStatus},
    };

    use super::super::{
        Effect, Identity, Input, Keep, Remembered, Ruling, Scope, State, step, view::DeviceState,
    };
    use crate::{
        usb::{Change, StubStatus, UsbDevice, Verdict},
        usbipd::{self, RefusedImport},
        vm::{Event, Pairing},
    };

    fn device(busid: &str, devnum: u16) -> UsbDevice {
        UsbDevice {
            busid: busid.parse().unwrap(),
            devid: DevId::new(1, devnum),
            speed: Speed::Full,
            vendor: 0x0403,
            product: 0x6001,
            bcd_device: 0x0600,
            class: [0; 3],
            configuration: 0,
            configurations: 1,
            interfaces: Vec::new(),
            manufacturer: None,
            product_name: None,
            serial: Some(format!("FT{devnum}")),
            port_path: busid.to_owned(),
            driver: Some("usbip-host".to_owned()),
            stub: Some(StubStatus::Available),
            verdict: Verdict::Export("ftdi_sio serial".to_owned()),
        }
    }

    /// A VM that has nothing attached, and devices with the ttys they had; "" for none.
    fn paired(devices: &[UsbDevice], had: &[&str]) -> Vec<Input> {
        let recalled = devices.iter().zip(had).filter(|(_, tty)| !tty.is_empty());
        let recalled = recalled
            .map(|(device, tty)| Remembered {
                identity: Identity::of(device),
                tty: Some((*tty).to_owned()),
            })
            .collect();
        let address = "10.9.0.2".parse().unwrap();
        let hello = VmHello {
            protocol: 1,
            version: "0.1.0".into(),
            boot_id: "vm".into(),
            host_name: "vm".into(),
            address: None,
            capabilities: Vec::new(),
        };
        let status = VmStatus {
            boot_id: "vm".into(),
            attachments: Vec::new(),
            ports_free: 8,
            ports_total: 8,
        };
        let pairing = Pairing {
            host: "vm".into(),
            user: "dev".into(),
        };
        vec![
            Input::Recalled(recalled),
            Input::Usb(Change::Snapshot(devices.to_vec())),
            Input::Vm(Event::Paired(Some(pairing))),
            Input::Vm(Event::Up { hello, address }),
            Input::Vm(Event::Reply {
                request: Request::Status,
                answer: Answer::Status(status),
            }),
        ]
    }

    /// The busids that a step connects.
    fn connected(effects: &[Effect]) -> Vec<&str> {
        let connect = |effect| match effect {
            &Effect::Send(Request::Connect(ref busid, _)) => Some(busid.as_str()),
            _ => None,
        };
        effects.iter().filter_map(connect).collect()
    }

    #[test]
    fn a_slow_attach_holds_up_those_that_could_take_its_name() {
        let devices = [
            device("1-1", 2),
            device("1-2", 3),
            device("1-3", 4),
            device("1-4", 5),
        ];
        let had = ["/dev/ttyACM1", "/dev/ttyACM0", "/dev/ttyUSB0", ""];
        let mut state = State::new(Duration::from_secs(30));
        let mut effects = Vec::new();
        for input in paired(&devices, &had) {
            (state, effects) = step(state, Duration::from_millis(1), input);
        }
        assert_eq!(connected(&effects), ["1-2"]);
        // Other names are free after a moment, its own and those of unknown devices later.
        let mut order = Vec::new();
        for millis in (100..20_000).step_by(100) {
            (state, effects) = step(state, Duration::from_millis(millis), Input::Tick);
            order.extend(
                connected(&effects)
                    .into_iter()
                    .map(|busid| (millis, busid.to_owned())),
            );
        }
        let order: Vec<_> = order
            .iter()
            .map(|(at, busid)| (*at, busid.as_str()))
            .collect();
        assert_eq!(order, [(1600, "1-3"), (6100, "1-1"), (12_100, "1-4")]);
    }

    #[test]
    fn the_vm_is_told_while_the_device_is_being_bound() {
        let mut device = device("1-1", 2);
        device.stub = None;
        let mut state = State::new(Duration::from_secs(30));
        let mut orders = Vec::new();
        let mut inputs = paired(&[], &[]);
        inputs.push(Input::Usb(Change::Present(device.clone())));
        for input in inputs {
            (state, orders) = step(state, Duration::from_millis(1), input);
        }
        let bind = Effect::Bind(device.busid.clone(), device.devid);
        assert!(orders.contains(&bind), "{orders:?}");
        assert_eq!(connected(&orders), ["1-1"]);
        let exports = state.exports();
        assert!(exports.fresh.contains_key(&device.busid), "{exports:?}");

        // It cannot be bound: that is what is shown, not that the VM did not get it.
        let failed = Err("no such driver".to_owned());
        let request = Request::Connect(device.busid.clone(), Some(device.devid));
        let refused = Answer::Error(line::Failure {
            kind: line::FailureKind::Refused,
            message: "the Pi refused".to_owned(),
            remedy: None,
        });
        for input in [
            Input::Bound(device.busid.clone(), device.devid, failed),
            Input::Vm(Event::Reply {
                request,
                answer: refused,
            }),
        ] {
            (state, orders) = step(state, Duration::from_millis(2), input);
        }
        assert_eq!(connected(&orders), [""; 0]);
        assert!(!state.exports().fresh.contains_key(&device.busid));
        let state = &state.view().devices[0].state;
        let DeviceState::Failed { message, .. } = state else {
            panic!("{state:?}");
        };
        assert_eq!(message, "no such driver");
    }

    /// A paired VM, and a device that comes.
    fn coming(kept: Vec<Keep>, device: &UsbDevice) -> (State, Vec<Effect>) {
        let mut inputs = paired(&[], &[]);
        inputs[0] = Input::Kept(kept);
        inputs.push(Input::Usb(Change::Coming(UsbDevice {
            serial: None,
            driver: None,
            ..device.clone()
        })));
        let begun = (State::new(Duration::from_secs(30)), Vec::new());
        let now = Duration::from_millis(1);
        (inputs.into_iter()).fold(begun, |(state, _), input| step(state, now, input))
    }

    #[test]
    fn the_vm_is_told_of_a_device_before_its_serial_number_can_be_read() {
        let mut device = device("1-1", 2);
        device.stub = None;
        let (state, orders) = coming(Vec::new(), &device);
        let now = Duration::from_millis(6);
        assert_eq!(connected(&orders), ["1-1"]);
        assert!(state.exports().fresh.contains_key(&device.busid));
        assert!(state.view().devices.is_empty());

        let present = Input::Usb(Change::Present(device.clone()));
        let (whole, orders) = step(state.clone(), now, present);
        let bind = Effect::Bind(device.busid.clone(), device.devid);
        assert!(orders.contains(&bind), "{orders:?}");
        assert_eq!(connected(&orders), [""; 0]);
        assert!(whole.exports().fresh.contains_key(&device.busid));

        // It turns out to be something that this Pi needs, or is pulled.
        let needed = UsbDevice {
            verdict: Verdict::Refuse("it is this Pi's network interface eth1".to_owned()),
            ..device.clone()
        };
        for change in [Change::Present(needed), Change::Gone(device.busid)] {
            let (state, _) = step(state.clone(), now, Input::Usb(change));
            assert!(state.exports().fresh.is_empty());
        }
    }

    #[test]
    fn what_depends_on_the_serial_number_waits_for_it() {
        let mut device = device("1-1", 2);
        device.stub = None;
        let serial = Scope::serial(&device).unwrap();
        for keep in [
            Keep::Held(serial.clone(), true),
            Keep::Rule(serial, Some(Ruling::Ignore)),
        ] {
            let (state, orders) = coming(vec![keep], &device);
            assert_eq!(connected(&orders), [""; 0]);
            let present = Input::Usb(Change::Present(device.clone()));
            let (state, orders) = step(state, Duration::from_millis(6), present);
            assert_eq!(connected(&orders), [""; 0]);
            assert!(state.exports().fresh.is_empty());
        }
    }

    #[test]
    fn a_new_device_can_be_had_at_once_until_somebody_has_had_it() {
        let mut device = device("1-1", 2);
        device.stub = None;
        let (busid, devid) = (device.busid.clone(), device.devid);
        let mut inputs = paired(&[], &[]);
        inputs.push(Input::Usb(Change::Present(device)));
        inputs.push(Input::Bound(busid.clone(), devid, Ok(())));
        let now = Duration::from_millis(1);
        let mut bound = State::new(Duration::from_secs(30));
        for input in inputs {
            (bound, _) = step(bound, now, input);
        }
        let is_exported = |state: &State| {
            let exports = state.exports();
            let fresh = exports.fresh.contains_key(&busid);
            (exports.devices.contains_key(&busid), fresh)
        };
        assert_eq!(is_exported(&bound), (true, true));

        // Or could not get it, although it should have been free.
        let peer = "10.9.0.2".parse().unwrap();
        let reason = RefusedImport::Kernel(busid.clone(), "it failed".to_owned());
        let busid = busid.clone();
        for event in [
            usbipd::Event::Refused { peer, reason },
            usbipd::Event::Imported { busid, devid, peer },
        ] {
            let (state, _) = step(bound.clone(), now, Input::Usbipd(event));
            assert_eq!(is_exported(&state), (true, false));
        }
    }

    #[test]
    fn a_port_that_was_just_taken_is_not_shown_as_free() {
        let device = device("1-1", 2);
        let mut state = State::new(Duration::from_secs(30));
        let mut inputs = paired(std::slice::from_ref(&device), &[""]);
        let (busid, devid) = (device.busid, device.devid);
        inputs.push(Input::Vm(Event::Reply {
            request: Request::Connect(busid.clone(), Some(devid)),
            answer: Answer::Attached(Attachment {
                busid,
                devid,
                port: 0,
                local_busid: None,
                ttys: Vec::new(),
                timings: None,
            }),
        }));
        let mut seen = Vec::new();
        for input in inputs {
            (state, _) = step(state, Duration::from_millis(1), input);
            seen.push(state.view().vhci_ports);
        }
        assert_eq!(seen[seen.len() - 2..], [Some((8, 8)), Some((7, 8))]);
    }

    #[test]
    fn a_name_is_kept_for_a_device_whose_dead_session_is_about_to_end() {
        let mut devices = [device("1-1", 2), device("1-2", 3), device("1-3", 4)];
        devices[0].stub = Some(StubStatus::Used);
        let had = ["/dev/ttyACM0", "/dev/ttyACM1", "/dev/ttyUSB0"];
        let ended = |at: Option<u64>| {
            let mut state = State::new(Duration::from_secs(30));
            let mut order = Vec::new();
            let mut inputs: Vec<_> = paired(&devices, &had)
                .into_iter()
                .map(|input| (0, input))
                .collect();
            for millis in (100..8000).step_by(100) {
                inputs.push((millis, Input::Tick));
                if at == Some(millis) {
                    let (busid, devid) = (devices[0].busid.clone(), devices[0].devid);
                    let event = usbipd::Event::HungUp { busid, devid };
                    inputs.push((millis, Input::Usbipd(event)));
                }
            }
            for (millis, input) in inputs {
                let effects;
                (state, effects) = step(state, Duration::from_millis(millis), input);
                order.extend(
                    connected(&effects)
                        .into_iter()
                        .map(|busid| (millis, busid.to_owned())),
                );
            }
            order
        };
        let first = |order: &[(u64, String)], busid: &str| {
            order
                .iter()
                .find(|(_, one)| one == busid)
                .map(|(at, _)| *at)
        };
        let order = ended(Some(300));
        assert_eq!(first(&order, "1-3"), Some(0), "{order:?}");
        assert!(first(&order, "1-1") < first(&order, "1-2"), "{order:?}");
        // Not for ever.
        let order = ended(None);
        assert_eq!(first(&order, "1-1"), None, "{order:?}");
        assert_eq!(first(&order, "1-2"), Some(6000), "{order:?}");
    }

    #[test]
    fn another_vm_gets_what_the_one_before_had() {
        let mut used = device("1-1", 2);
        used.stub = Some(StubStatus::Used);
        let ended = |pairing: Option<(&str, &str)>| {
            let pairing = pairing.map(|(host, user)| Pairing {
                host: host.into(),
                user: user.into(),
            });
            let mut state = State::new(Duration::from_secs(30));
            let mut inputs = paired(std::slice::from_ref(&used), &[""]);
            inputs.truncate(4);
            inputs.push(Input::Vm(Event::Paired(pairing)));
            let mut orders = Vec::new();
            for (millis, input) in (0..).zip(inputs) {
                let effects;
                (state, effects) = step(state, Duration::from_millis(millis), input);
                orders.extend(effects);
            }
            let end = Effect::EndSession(used.busid.clone(), used.devid);
            (orders.contains(&end), state.exports().peers.len())
        };
        assert_eq!(ended(Some(("vm", "dev"))), (false, 1));
        // Another user there, or the same VM by another way.
        assert!(!ended(Some(("vm", "me"))).0);
        assert_eq!(ended(Some(("other", "dev"))), (true, 0));
        assert_eq!(ended(None), (true, 0));
    }

    #[test]
    fn devices_are_attached_one_by_one_in_the_order_of_the_ttys_they_had() {
        let devices = [
            device("1-1", 2),
            device("1-2", 3),
            device("1-3", 4),
            device("1-4", 5),
        ];
        let had = ["/dev/ttyUSB10", "", "/dev/ttyUSB0", "/dev/ttyUSB9"];
        let mut inputs = paired(&devices, &had);
        let mut state = State::new(Duration::from_secs(30));
        let (mut order, mut millis) = (Vec::new(), 0);
        while !inputs.is_empty() {
            millis += 1;
            let effects;
            (state, effects) = step(state, Duration::from_millis(millis), inputs.remove(0));
            for effect in effects {
                let Effect::Send(Request::Connect(busid, devid)) = effect else {
                    continue;
                };
                order.push(busid.to_string());
                let attachment = Attachment {
                    busid: busid.clone(),
                    devid: devid.unwrap(),
                    port: 0,
                    local_busid: None,
                    ttys: vec![Tty {
                        node: "/dev/ttyUSB0".into(),
                        by_id: None,
                        driver: None,
                    }],
                    timings: None,
                };
                let request = Request::Connect(busid, devid);
                inputs.push(Input::Vm(Event::Reply {
                    request,
                    answer: Answer::Attached(attachment),
                }));
            }
        }
        assert_eq!(order, ["1-3", "1-4", "1-1", "1-2"]);
    }
}
