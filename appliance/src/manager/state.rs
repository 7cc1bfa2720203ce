//! What the manager knows.

use std::{
    collections::{BTreeMap, HashSet},
    net::IpAddr,
    time::Duration,
};

use protocol::{
    BusId, DevId,
    line::{Attachment, Request, VmHello},
};

use super::{
    Identity, Kept, Remembered, Scope, coming::Coming, naming::Naming, power::Cycle,
    record::Recorded,
};
use crate::{
    usb::{StubStatus, UsbDevice, Verdict},
    usbipd::Exports,
    vm::{self, Pairing},
};

/// How often everything is compared, whatever the events say.
pub const RECONCILE: Duration = Duration::from_secs(30);
/// How soon the VM is asked again when its list contradicts ours for a device that changed meanwhile.
pub const RECHECK: Duration = Duration::from_secs(1);
/// How long an import may take from the Pi's hand-over to the VM's attach. A session younger than
/// this is not disproved by its absence from the VM's list.
pub const IMPORT_IN_FLIGHT: Duration = Duration::from_secs(3);
/// How much newer than news from the VM sysfs must have been read to overrule it.
pub const NEWER: Duration = Duration::from_millis(100);
/// How long after a hang-up the device is left alone: an unplug closes the socket a moment before
/// the kernel reports it.
pub const HANG_UP_OR_UNPLUG: Duration = Duration::from_millis(250);
/// A connect older than this no longer keeps the next one waiting.
pub const SLOW_CONNECT: Duration = Duration::from_millis(1500);
/// Unless the next one could take the name of the tty it had: the first attach after the VM's boot
/// loads drivers, which takes seconds on a slow machine.
pub const SLOW_NAME: Duration = Duration::from_secs(6);
const FIRST_RETRY: Duration = Duration::from_millis(500);
const LAST_RETRY: Duration = Duration::from_secs(30);

/// Everything the manager knows. Times are since the start of the process.
#[derive(Debug, Clone, Default)]
pub struct State {
    pub(super) now: Duration,
    pub(super) grace: Duration,
    pub(super) pairing: Option<Pairing>,
    /// There is no vm.conf. Not the same as having no pairing, which is so also before it was read.
    pub(super) unpaired: bool,
    pub(super) addresses: HashSet<IpAddr>,
    pub(super) session: Session,
    pub(super) devices: BTreeMap<BusId, Device>,
    /// Those that the VM was told of before they were there.
    pub(super) coming: BTreeMap<BusId, Coming>,
    /// The VM's vhci ports by the last status and the answers since; by devid, since a replugged
    /// device can be there in two generations for a moment.
    pub(super) vm_ports: BTreeMap<(BusId, DevId), VmPort>,
    pub(super) free_ports: Option<(u32, u32)>,
    /// Requests on their way, and since when.
    pub(super) pending: BTreeMap<String, (Request, Duration)>,
    pub(super) memory: BTreeMap<Identity, Remembered>,
    pub(super) kept: Kept,
    pub(super) naming: Naming,
    /// Ports that are switched off and on, or were a moment ago.
    pub(super) cycles: BTreeMap<BusId, Cycle>,
    /// Whether a first snapshot of the bus has come.
    pub(super) scanned: bool,
    pub(super) rescan_at: Option<Duration>,
    /// A rule was made, and the bus has not been read since.
    pub(super) ruled_unseen: bool,
    pub(super) status_at: Option<Duration>,
    pub(super) recorded: Recorded,
}

/// The session with the VM.
#[derive(Debug, Clone, Default)]
pub enum Session {
    /// No vm.conf.
    #[default]
    NotPaired,
    /// Not up (yet); the latest failure, if there was one.
    Down(Option<vm::Failure>),
    /// Up.
    Up {
        /// The VM's greeting.
        hello: VmHello,
        /// Since when.
        since: Duration,
        /// When the VM was asked for the list of ports that we have; none: it has not come yet.
        listed: Option<Duration>,
    },
}

/// A plugged-in device.
#[derive(Debug, Clone)]
pub struct Device {
    pub(super) facts: UsbDevice,
    /// When it was first seen in this generation.
    pub(super) since: Duration,
    /// A bind, unbind or end of session on its way.
    pub(super) busy: Option<Act>,
    /// When its import state last changed or was ordered to; none: before this process.
    pub(super) changed: Option<Duration>,
    /// When its facts were last read from sysfs.
    pub(super) read: Duration,
    /// Not to be connected before; gives an unplug the time to be told from a hang-up.
    pub(super) hold_off: Duration,
    /// Since when sysfs contradicts what we were told; believed when it still does a moment later.
    pub(super) doubted: Option<Duration>,
    /// Bound by this process, and not imported since: whoever asks for it can have it.
    pub(super) fresh: bool,
    /// Imported by a VM that is no longer the paired one.
    pub(super) abandoned: bool,
    pub(super) failure: Option<Failure>,
    /// From first seen to tty, for the attach made in this generation.
    pub(super) plug_to_tty: Option<Duration>,
    /// When it was attached in this generation; none: it is not, or was before this process.
    pub(super) attached_at: Option<Duration>,
    /// The board of which it seems to be another guise; see [`super::naming`].
    pub(super) heir_of: Option<Scope>,
}

/// What is being done to a device on the Pi.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Bind or rebind.
    Binding,
    /// Unbind.
    Unbinding,
    /// End of its session.
    Ending,
    /// Its port is switched off and on.
    Cycling,
}

/// Why a device is not where it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// One sentence.
    pub message: String,
    /// What mends it.
    pub remedy: Option<String>,
    /// When it is tried again.
    pub next_try: Duration,
    /// Failures in a row.
    pub attempts: u32,
}

/// A vhci port that holds one of our devices.
#[derive(Debug, Clone)]
pub struct VmPort {
    pub(super) attachment: Attachment,
    /// When we learned of it.
    pub(super) seen: Duration,
    /// No disconnect before; set when one failed.
    pub(super) next_try: Duration,
}

impl State {
    /// Nothing known yet.
    #[must_use]
    pub fn new(grace: Duration) -> Self {
        Self {
            grace,
            ..Self::default()
        }
    }

    /// When [`super::Input::Tick`] is due.
    #[must_use]
    pub fn next_wake(&self) -> Duration {
        let retries = self
            .devices
            .values()
            .filter(|d| d.busy.is_none())
            .filter_map(|device| device.failure.as_ref().map(|failure| failure.next_try));
        let slow = self
            .pending
            .values()
            .filter(|(request, _)| matches!(request, Request::Connect(..)))
            .flat_map(|(_, since)| [*since + SLOW_CONNECT, *since + SLOW_NAME]);
        let held_off = self.devices.values().map(|device| device.hold_off);
        let disconnects = self.vm_ports.values().map(|port| port.next_try);
        let cycles = self
            .cycles
            .values()
            .filter_map(|cycle| cycle.next_change(self.now));
        let coming = self
            .devices
            .values()
            .filter_map(|device| self.coming_until(device));
        retries
            .chain(slow)
            .chain(held_off)
            .chain(disconnects)
            .chain(cycles)
            .chain(coming)
            .chain(self.naming.next_try.filter(|_| self.listening()))
            .filter(|at| *at > self.now)
            .chain(self.rescan_at)
            .chain(
                self.status_at
                    .filter(|_| self.listening() && !self.is_pending(&Request::Status)),
            )
            .min()
            .unwrap_or(self.now + RECONCILE)
    }

    /// Who may import what, now.
    #[must_use]
    pub fn exports(&self) -> Exports {
        let mut devices = BTreeMap::new();
        let mut fresh = BTreeMap::new();
        for (busid, device) in &self.devices {
            let bound = device.facts.is_bound() && device.busy.is_none();
            let is_fresh = device.is_being_bound() || bound && device.fresh && !device.is_used();
            if !(bound || is_fresh) || !self.is_wanted(device) {
                continue;
            }
            let export = device.facts.on_the_wire();
            if is_fresh {
                fresh.insert(busid.clone(), export.clone());
            }
            if bound {
                devices.insert(busid.clone(), export);
            }
        }
        let coming = self.coming.iter().filter(|(_, c)| self.is_welcome(c));
        fresh.extend(coming.map(|(busid, c)| (busid.clone(), c.facts.on_the_wire())));
        let peers = if self.pairing.is_some() && !self.is_a_stranger() {
            self.addresses.clone()
        } else {
            HashSet::new()
        };
        Exports {
            peers,
            devices,
            fresh,
            grace: self.grace,
        }
    }

    /// Whether who answers at the VM's address is not known to be the VM. One that does not answer is
    /// given its devices: a VM that boots asks for them before it lets the Pi in.
    fn is_a_stranger(&self) -> bool {
        matches!(
            &self.session,
            Session::Down(Some(failure)) if matches!(
                failure.kind,
                vm::FailureKind::HostKeyChanged | vm::FailureKind::HostKeyUnknown
            )
        )
    }

    /// Whether a device is to be on the VM.
    pub(super) fn is_wanted(&self, device: &Device) -> bool {
        self.verdict(&device.facts).exports() && !self.is_held(device)
    }

    /// Whether a person holds a device back.
    pub(super) fn is_held(&self, device: &Device) -> bool {
        let mut held = self.kept.held(&device.facts, device.heir_of.as_ref());
        held.next().is_some()
    }

    /// Whether a device is to be exported, with the rules that people made.
    pub(super) fn verdict(&self, facts: &UsbDevice) -> Verdict {
        self.kept.verdict(facts)
    }

    /// Whether a session is up.
    pub(super) fn listening(&self) -> bool {
        matches!(self.session, Session::Up { .. })
    }

    /// Kind and number of the tty that a device had last.
    pub(super) fn remembered_tty(&self, facts: &UsbDevice) -> Option<(&str, u32)> {
        let node = self.memory.get(&Identity::of(facts))?.tty.as_deref()?;
        let kind = node.trim_end_matches(|c: char| c.is_ascii_digit());
        Some((kind, node[kind.len()..].parse().unwrap_or(u32::MAX)))
    }

    /// Until when others wait with their names for a device that is to be attached and is not: its
    /// dead session is being ended, say, or it is being bound. None where nothing is on its way.
    pub(super) fn coming_until(&self, device: &Device) -> Option<Duration> {
        let Session::Up { since, .. } = self.session else {
            return None;
        };
        let facts = &device.facts;
        let key = (facts.busid.clone(), facts.devid);
        let has_name = self.vm_ports.contains_key(&key);
        (self.is_wanted(device) && !has_name && device.failure.is_none())
            .then(|| since.max(device.changed.unwrap_or(device.since)) + SLOW_NAME)
    }

    pub(super) fn is_pending(&self, request: &Request) -> bool {
        self.pending.contains_key(&request.to_string())
    }

    /// When the VM was told to attach this generation, while it has not answered.
    pub(super) fn told_at(&self, busid: &BusId, devid: DevId) -> Option<Duration> {
        let request = Request::Connect(busid.clone(), Some(devid));
        let (_, since) = self.pending.get(&request.to_string())?;
        Some(*since)
    }

    /// Whether a connect or disconnect of this generation is on its way.
    pub(super) fn is_moving(&self, busid: &BusId, devid: DevId) -> bool {
        self.told_at(busid, devid).is_some()
            || self.is_pending(&Request::Disconnect(busid.clone(), Some(devid)))
    }

    /// When the VM was asked for the list that we have.
    pub(super) fn listed(&self) -> Option<Duration> {
        if let Session::Up { listed, .. } = self.session {
            listed
        } else {
            None
        }
    }

    pub(super) fn rescan_by(&mut self, at: Duration) {
        self.rescan_at = Some(self.rescan_at.map_or(at, |due| due.min(at)));
    }

    pub(super) fn ask_status_by(&mut self, at: Duration) {
        self.status_at = Some(self.status_at.map_or(at, |due| due.min(at)));
    }
}

impl Device {
    pub(super) fn new(facts: UsbDevice, now: Duration) -> Self {
        Self {
            facts,
            since: now,
            busy: None,
            changed: None,
            read: now,
            hold_off: Duration::ZERO,
            doubted: None,
            fresh: false,
            abandoned: false,
            failure: None,
            plug_to_tty: None,
            attached_at: None,
            heir_of: None,
        }
    }

    /// What is kept about it is kept by this.
    pub(super) fn lasting(&self) -> Scope {
        Scope::serial(&self.facts)
            .or_else(|| self.heir_of.clone())
            .unwrap_or_else(|| Scope::port(&self.facts))
    }

    /// Whether it will be bound and free in a moment, unless something is wrong with it.
    pub(super) fn is_being_bound(&self) -> bool {
        self.facts.stub.is_none() && self.busy == Some(Act::Binding) && self.failure.is_none()
    }

    pub(super) fn is_used(&self) -> bool {
        self.facts.stub == Some(StubStatus::Used)
    }

    /// Whether nothing keeps the next try waiting.
    pub(super) fn is_due(&self, now: Duration) -> bool {
        self.failure
            .as_ref()
            .is_none_or(|failure| failure.next_try <= now)
    }

    pub(super) fn fail(&mut self, now: Duration, message: String, remedy: Option<String>) {
        let attempts = self.failure.as_ref().map_or(0, |failure| failure.attempts) + 1;
        let wait = (FIRST_RETRY * 2u32.saturating_pow(attempts - 1).min(64)).min(LAST_RETRY);
        self.failure = Some(Failure {
            message,
            remedy,
            next_try: now + wait,
            attempts,
        });
    }
}
