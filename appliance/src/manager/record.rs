//! What of it all is history.
//!
//! Level-triggered as everything here: what is the case is compared with what was recorded last, so
//! that no path to it is forgotten and none is recorded twice.

use std::collections::BTreeMap;

use protocol::{BusId, DevId};

use super::{
    input::{Command, Effect},
    state::{Device, Session, State},
};
use crate::{
    history::{AttachDetail, Event, Kind, Sighting, Subject},
    usb::Verdict,
    vm::{FailureKind, Pairing},
};

/// What was recorded last.
#[derive(Debug, Clone, Default)]
pub(super) struct Recorded {
    /// Whether devices were; those of the first time were there before.
    scanned: bool,
    devices: BTreeMap<BusId, RecordedDevice>,
    session: RecordedSession,
    /// Whether the pairing is known; the first that is told was so before.
    paired: bool,
}

#[derive(Debug, Clone)]
struct RecordedDevice {
    devid: DevId,
    subject: Subject,
    sighting: Sighting,
    bound: bool,
    attached: bool,
    failure: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum RecordedSession {
    #[default]
    None,
    Up,
    Down(FailureKind),
}

/// Record what is new.
pub(super) fn record(state: &mut State, effects: &mut Vec<Effect>) {
    let mut recorded = std::mem::take(&mut state.recorded);
    if state.scanned {
        gone(&mut recorded, state, effects);
        for device in state.devices.values() {
            present(&mut recorded, state, device, effects);
        }
        recorded.scanned = true;
    }
    session(&mut recorded, state, effects);
    state.recorded = recorded;
}

fn append(effects: &mut Vec<Effect>, event: Event) {
    effects.push(Effect::Append(event));
}

fn gone(recorded: &mut Recorded, state: &State, effects: &mut Vec<Effect>) {
    recorded.devices.retain(|busid, device| {
        let now = state.devices.get(busid);
        let there = now.is_some_and(|now| now.facts.devid == device.devid);
        if !there {
            let event = Event::new(Kind::Unplugged).about(device.subject.clone());
            append(effects, event);
            let sighting = Sighting {
                plugged: false,
                ..device.sighting.clone()
            };
            effects.push(Effect::Saw(sighting));
        }
        there
    });
}

fn present(recorded: &mut Recorded, state: &State, device: &Device, effects: &mut Vec<Effect>) {
    let facts = &device.facts;
    let subject = Subject::of(facts);
    let found = !recorded.scanned;
    let known = recorded.devices.entry(facts.busid.clone());
    let known = known.or_insert_with(|| {
        let kind = if found { Kind::Found } else { Kind::Plugged };
        let event = Event::new(kind).about(subject.clone());
        append(
            effects,
            match state.verdict(facts) {
                Verdict::Skip(why) | Verdict::Refuse(why) => {
                    event.saying(format!("left alone: {why}"))
                }
                Verdict::Export(_) => event,
            },
        );
        let sighting = Sighting::of(facts, !found);
        effects.push(Effect::Saw(sighting.clone()));
        RecordedDevice {
            devid: facts.devid,
            subject: subject.clone(),
            sighting,
            bound: found && facts.is_bound(),
            attached: found && device.is_used(),
            failure: None,
        }
    });
    let event = |kind| Event::new(kind).about(subject.clone());
    if facts.is_bound() && !known.bound {
        append(effects, event(Kind::Bound));
    }
    known.bound = facts.is_bound();

    let port = state.vm_ports.get(&(facts.busid.clone(), facts.devid));
    // A hang-up may be the first sign of an unplug; until that is known nothing is recorded.
    let hung_up = device.hold_off > state.now && state.listening();
    match port {
        Some(port) if device.is_used() && !known.attached => {
            known.attached = true;
            let ms = device
                .plug_to_tty
                .map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
            let detail = AttachDetail::of(&port.attachment, ms);
            append(
                effects,
                Event {
                    attached: Some(detail),
                    ..event(Kind::Attached)
                },
            );
        }
        _ if known.attached && !device.is_used() && !hung_up => {
            known.attached = false;
            let why = if state.is_held(device) {
                "held back"
            } else {
                "the connection ended"
            };
            append(effects, event(Kind::Detached).saying(why));
        }
        _ => {}
    }

    let failure = device.failure.as_ref().filter(|_| !state.is_held(device));
    if let Some(failure) = failure
        && known.failure.as_ref() != Some(&failure.message)
    {
        append(effects, event(Kind::Failed).saying(&failure.message));
    }
    known.failure = failure.map(|failure| failure.message.clone());
}

fn session(recorded: &mut Recorded, state: &State, effects: &mut Vec<Effect>) {
    let before = recorded.session;
    recorded.session = match &state.session {
        Session::Up { hello, .. } => {
            if before != RecordedSession::Up {
                let (name, version) = (&hello.host_name, &hello.version);
                let message = format!("{name}, vm-helper {version}");
                append(effects, Event::new(Kind::SessionUp).saying(message));
            }
            RecordedSession::Up
        }
        Session::Down(Some(failure)) => {
            let now = RecordedSession::Down(failure.kind);
            let kind = if before == RecordedSession::Up {
                Kind::SessionLost
            } else {
                Kind::SessionFailed
            };
            if before != now {
                append(effects, Event::new(kind).saying(&failure.message));
            }
            now
        }
        Session::Down(None) | Session::NotPaired => {
            if before == RecordedSession::Up {
                let event = Event::new(Kind::SessionLost);
                append(effects, event.saying("the pairing was changed"));
            }
            RecordedSession::None
        }
    };
}

/// The pairing will be this.
pub(super) fn paired(state: &mut State, now: Option<&Pairing>, effects: &mut Vec<Effect>) {
    let known = std::mem::replace(&mut state.recorded.paired, true);
    if known && now != state.pairing.as_ref() {
        let message = match now {
            Some(pairing) => format!("paired with {}@{}", pairing.user, pairing.host),
            None => "the pairing was removed".to_owned(),
        };
        append(effects, Event::new(Kind::Pairing).saying(message));
    }
}

/// Somebody asked for this.
pub(super) fn asked(state: &State, command: &Command, effects: &mut Vec<Effect>) {
    let (busid, message) = match command {
        Command::AttachAll => (None, "attach all".to_owned()),
        Command::Attach(busid, _) => (Some(busid), "attach".to_owned()),
        Command::Detach(busid, _) => (Some(busid), "detach".to_owned()),
        Command::Release(scope) => (None, format!("hold {scope} back no longer")),
        Command::PowerCycle(busid, _) => (Some(busid), "power-cycle its port".to_owned()),
        Command::Name(scope, Some(alias)) => (None, format!("name {scope} {alias}")),
        Command::Name(scope, None) => (None, format!("forget the name of {scope}")),
        Command::Rule(scope, Some(ruling)) => (None, format!("always {} {scope}", ruling.word())),
        Command::Rule(scope, None) => (None, format!("forget the rule for {scope}")),
    };
    let device = busid.and_then(|busid| state.devices.get(busid));
    append(
        effects,
        Event {
            device: device.map(|device| Subject::of(&device.facts)),
            ..Event::new(Kind::Action).saying(message)
        },
    );
}
