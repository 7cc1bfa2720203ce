//! The manager against a simulated Pi, VM and network, in virtual time.
//!
//! Whatever happens in whatever order, afterwards every device is attached exactly once; and on the
//! way no session that works is ended without cause.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use proptest::prelude::*;
use protocol::{
    BusId, DevId, Speed,
    line::{
        Answer, Attachment, CAN_ALIAS, Failure, FailureKind, Named, Request, Tty, VmHello, VmStatus,
    },
};

use super::{
    Command, Effect, Identity, Input, Keep, Kept, Remembered, Ruling, Scope, State, step,
    view::DeviceState,
};
use crate::{
    history::{self, Kind},
    usb::{Change, StubStatus, UsbDevice, Verdict},
    usbipd, vm,
};

const PORTS: u8 = 4;
const GRACE: u64 = 30_000;

/// Something that happens to the world.
#[derive(Debug, Clone)]
enum Act {
    Plug(u8),
    Unplug(u8),
    /// Comes back under another product id, as a board that is being flashed.
    Reenumerate(u8),
    VmReboots,
    /// The same, and usb-boot-attach is quicker than the session.
    VmRebootsAndAttaches,
    LinkLost {
        ms: u64,
    },
    PiReboots,
    ProcessRestarts,
    /// The next answer from the helper never comes.
    LoseReply,
    /// Somebody runs `usbip detach` on the VM.
    ForeignDetach(u8),
    Detach(u8),
    Attach(u8),
    AttachAll,
    /// A person ends the pairing, and makes it again later.
    PairingEnds {
        ms: u64,
    },
    /// A rule about one port, or that there is none any more.
    Rule(u8, Option<Ruling>),
    /// One of three names for what is in a port, two of which clash, or none.
    Name(u8, Option<u8>),
    PowerCycle {
        port: u8,
        works: bool,
    },
}

fn acts() -> impl Strategy<Value = Vec<(Act, u64)>> {
    let port = || 1..=PORTS;
    let act = prop_oneof![
        6 => port().prop_map(Act::Plug),
        3 => port().prop_map(Act::Unplug),
        2 => port().prop_map(Act::Reenumerate),
        1 => Just(Act::VmReboots),
        1 => Just(Act::VmRebootsAndAttaches),
        1 => prop_oneof![100u64..4_000, 4_000u64..20_000, (GRACE + 1_000)..60_000]
            .prop_map(|ms| Act::LinkLost { ms }),
        1 => Just(Act::PiReboots),
        1 => Just(Act::ProcessRestarts),
        1 => Just(Act::LoseReply),
        1 => port().prop_map(Act::ForeignDetach),
        1 => port().prop_map(Act::Detach),
        1 => port().prop_map(Act::Attach),
        1 => Just(Act::AttachAll),
        1 => (0u64..8_000).prop_map(|ms| Act::PairingEnds { ms }),
        1 => (port(), prop_oneof![Just(None), Just(Some(Ruling::Ignore)), Just(Some(Ruling::Export))])
            .prop_map(|(port, ruling)| Act::Rule(port, ruling)),
        1 => (port(), proptest::option::of(0u8..3)).prop_map(|(port, name)| Act::Name(port, name)),
        1 => (port(), any::<bool>()).prop_map(|(port, works)| Act::PowerCycle { port, works }),
    ];
    // Mostly close together, so that things overlap; now and then a pause.
    let gap = prop_oneof![4 => 0u64..400, 2 => 400u64..5_000, 1 => 5_000u64..40_000];
    proptest::collection::vec((act, gap), 1..25)
}

type Conn = u32;

#[derive(Debug, Clone)]
struct Plugged {
    devid: DevId,
    product: u16,
    bound: bool,
    conn: Option<Conn>,
}

#[derive(Debug, Clone)]
struct Attached {
    busid: BusId,
    devid: DevId,
    conn: Conn,
}

#[derive(Debug, Clone)]
enum Event {
    Input(Input),
    /// An order reaches the thing that carries it out.
    Carry(Effect),
    /// The VM's end of an import is attached.
    VmAttach(Attached, Option<Request>),
    /// The server looks whether it can hand over what it has granted.
    HandOver(Attached),
    SessionUp,
    SessionDown,
    BootAttach,
    PairingBegins,
    CutEnds {
        beyond_grace: bool,
    },
    /// A port that was off is on again; who ordered it hears of it.
    PowerOn(BusId, DevId, u16),
}

#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one thing that is the case or not"
)]
struct World {
    now: u64,
    sequence: u64,
    queue: BTreeMap<(u64, u64), (Epochs, Event)>,
    epochs: Epochs,
    rng: u64,
    state: State,
    memory: BTreeMap<Identity, Remembered>,
    /// Names and rules as they are stored.
    kept: Kept,
    /// What made it so.
    keeps: Vec<Keep>,
    /// What the VM was told about names since its boot.
    told: Option<Vec<Named>>,
    /// Whether the next switching of a port works.
    switches: bool,
    plugged: BTreeMap<BusId, Plugged>,
    devnum: u16,
    next_conn: Conn,
    vm_ports: Vec<Attached>,
    /// Imports that were granted while the device was being bound.
    granted: BTreeMap<BusId, Conn>,
    /// When each connection was made.
    births: BTreeMap<Conn, u64>,
    vm_boot: u32,
    /// None when there is a pairing; else since when there is none, or this process runs.
    unpaired: Option<u64>,
    session: bool,
    cut: bool,
    lose_reply: bool,
    /// By the history, which devices are there and whether they are attached; none: it was not said yet.
    history: BTreeMap<BusId, Option<bool>>,
    wrongs: Vec<String>,
    log: Vec<String>,
    fifo: [u64; 3],
}

/// What an event belongs to: it is void once the process or the session it was meant for is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Epochs {
    process: u32,
    session: u32,
}

fn busid(port: u8) -> BusId {
    format!("1-{port}").parse().unwrap()
}

impl World {
    fn new(seed: u64) -> Self {
        let mut world = Self {
            now: 0,
            sequence: 0,
            queue: BTreeMap::new(),
            epochs: Epochs {
                process: 0,
                session: 0,
            },
            rng: seed | 1,
            state: State::new(Duration::from_millis(GRACE)),
            memory: BTreeMap::new(),
            kept: Kept::default(),
            keeps: Vec::new(),
            told: None,
            switches: true,
            plugged: BTreeMap::new(),
            devnum: 1,
            next_conn: 0,
            vm_ports: Vec::new(),
            granted: BTreeMap::new(),
            births: BTreeMap::new(),
            vm_boot: 1,
            unpaired: None,
            session: false,
            cut: false,
            lose_reply: false,
            history: BTreeMap::new(),
            wrongs: Vec::new(),
            log: Vec::new(),
            fifo: [0; 3],
        };
        world.start_process();
        world
    }

    fn random(&mut self, range: std::ops::Range<u64>) -> u64 {
        self.rng ^= self.rng << 13;
        self.rng ^= self.rng >> 7;
        self.rng ^= self.rng << 17;
        range.start + self.rng % (range.end - range.start)
    }

    fn at(&mut self, delay: u64, event: Event) {
        self.sequence += 1;
        self.queue
            .insert((self.now + delay, self.sequence), (self.epochs, event));
    }

    /// Deliver in order with what was sent before on the same channel.
    fn tell(&mut self, channel: usize, input: Input) {
        let delay = self.random(0..40);
        let due = self.fifo[channel].max(self.now + delay);
        self.fifo[channel] = due;
        self.at(due - self.now, Event::Input(input));
    }

    fn tell_usb(&mut self, change: Change) {
        self.tell(0, Input::Usb(change));
    }

    fn tell_usbipd(&mut self, event: usbipd::Event) {
        self.tell(1, Input::Usbipd(event));
    }

    fn tell_vm(&mut self, event: vm::Event) {
        self.tell(2, Input::Vm(event));
    }

    fn start_process(&mut self) {
        self.epochs.process += 1;
        self.epochs.session += 1;
        self.session = false;
        self.state = State::new(Duration::from_millis(GRACE));
        self.fifo = [self.now; 3];
        self.history.clear();
        for conn in std::mem::take(&mut self.granted).into_values() {
            if !self.cut {
                self.vm_ports.retain(|port| port.conn != conn);
            }
        }
        let memory = self.memory.values().cloned().collect();
        self.input(Input::Recalled(memory));
        self.input(Input::Kept(self.keeps.clone()));
        let snapshot = self.snapshot();
        self.tell_usb(snapshot);
        if let Some(since) = &mut self.unpaired {
            *since = self.now;
            self.tell_vm(vm::Event::Paired(None));
        } else {
            self.follow_vm();
        }
    }

    /// The link reads the record of the pairing.
    fn follow_vm(&mut self) {
        let pairing = vm::Pairing {
            host: "vm".into(),
            user: "dev".into(),
        };
        self.tell_vm(vm::Event::Paired(Some(pairing)));
        self.tell_vm(vm::Event::Resolved(vec!["10.9.0.2".parse().unwrap()]));
        let delay = self.random(100..3_000);
        self.at(delay, Event::SessionUp);
    }

    fn facts(&self, busid: &BusId) -> Option<UsbDevice> {
        let plugged = self.plugged.get(busid)?;
        Some(UsbDevice {
            busid: busid.clone(),
            devid: plugged.devid,
            speed: Speed::Full,
            vendor: 0x303a,
            product: plugged.product,
            bcd_device: 0,
            class: [0; 3],
            configuration: 1,
            configurations: 1,
            interfaces: vec![[2, 2, 0]],
            manufacturer: None,
            product_name: None,
            serial: None,
            port_path: busid.to_string(),
            driver: Some(if plugged.bound { "usbip-host" } else { "usb" }.into()),
            stub: plugged.bound.then_some(if plugged.conn.is_some() {
                StubStatus::Used
            } else {
                StubStatus::Available
            }),
            verdict: Verdict::Export("cdc_acm serial".into()),
        })
    }

    fn snapshot(&self) -> Change {
        Change::Snapshot(
            self.plugged
                .keys()
                .filter_map(|busid| self.facts(busid))
                .collect(),
        )
    }

    /// The end of a connection as the Pi's kernel sees it.
    fn pi_hangs_up(&mut self, busid: &BusId) {
        let Some(plugged) = self.plugged.get_mut(busid) else {
            return;
        };
        if let Some(conn) = plugged.conn.take() {
            let devid = plugged.devid;
            self.tell_usbipd(usbipd::Event::HungUp {
                busid: busid.clone(),
                devid,
            });
            if !self.cut {
                self.vm_ports.retain(|port| port.conn != conn);
            }
        }
    }

    /// The end of a connection as the VM's kernel sees it.
    fn vm_hangs_up(&mut self, conn: Conn) {
        self.vm_ports.retain(|port| port.conn != conn);
        let owner = self
            .plugged
            .iter()
            .find(|(_, p)| p.conn == Some(conn))
            .map(|(b, _)| b.clone());
        if let (Some(busid), false) = (owner, self.cut) {
            self.pi_hangs_up(&busid);
        }
    }

    fn unplug(&mut self, busid: &BusId) {
        self.pi_hangs_up(busid);
        if self.plugged.remove(busid).is_some() {
            self.tell_usb(Change::Gone(busid.clone()));
        }
    }

    fn plug(&mut self, busid: &BusId, product: u16) {
        if self.plugged.contains_key(busid) {
            return;
        }
        self.devnum += 1;
        let devid = DevId::new(1, self.devnum);
        let plugged = Plugged {
            devid,
            product,
            bound: false,
            conn: None,
        };
        self.plugged.insert(busid.clone(), plugged);
        let facts = self.facts(busid).unwrap();
        // Uevents can be missed.
        if self.random(0..4) > 0 {
            self.tell_usb(Change::Coming(UsbDevice {
                configuration: 0,
                driver: None,
                ..facts.clone()
            }));
        }
        self.tell_usb(Change::Present(facts));
    }

    fn pairing_begins(&mut self) {
        let Some(since) = self.unpaired.take() else {
            return;
        };
        // What was handed over while the end of the pairing was on its way is ended as well.
        if self.now > since + 1_000 && self.plugged.values().any(|p| p.conn.is_some()) {
            self.wrongs
                .push(format!("{} attached without a pairing", self.now));
        }
        self.follow_vm();
    }

    fn drop_session(&mut self, after: u64, back: u64) {
        if self.unpaired.is_some() {
            return;
        }
        self.session = false;
        self.epochs.session += 1;
        self.at(after, Event::SessionDown);
        self.at(back.max(after + 1), Event::SessionUp);
    }

    fn act(&mut self, act: &Act) {
        self.log.push(format!("{} ACT {act:?}", self.now));
        match act {
            Act::Plug(port) => self.plug(&busid(*port), 0x1001),
            Act::Unplug(port) => self.unplug(&busid(*port)),
            Act::Reenumerate(port) => {
                if let Some(product) = self.plugged.get(&busid(*port)).map(|p| p.product) {
                    self.unplug(&busid(*port));
                    self.plug(&busid(*port), if product == 0x1001 { 9 } else { 0x1001 });
                }
            }
            Act::VmReboots | Act::VmRebootsAndAttaches => {
                self.vm_boot += 1;
                self.vm_ports.clear();
                self.told = None;
                let (after, back) = (self.random(10..5_000), self.random(5_000..12_000));
                if matches!(act, Act::VmRebootsAndAttaches) {
                    self.at(back - 100, Event::BootAttach);
                }
                self.drop_session(after, back);
            }
            Act::LinkLost { ms } => {
                if self.cut {
                    return;
                }
                self.cut = true;
                self.at(
                    *ms,
                    Event::CutEnds {
                        beyond_grace: *ms > GRACE,
                    },
                );
                let after = self.random(2_000..5_000).min(ms + 1_000);
                let back = ms + self.random(100..3_000);
                self.drop_session(after, back);
            }
            Act::PiReboots => {
                for plugged in self.plugged.values_mut() {
                    plugged.bound = false;
                    plugged.conn = None;
                }
                // The devices get the same numbers again, and the VM's ports are left dangling.
                self.start_process();
            }
            Act::ProcessRestarts => self.start_process(),
            Act::LoseReply => self.lose_reply = true,
            Act::ForeignDetach(port) => {
                let conn = self
                    .vm_ports
                    .iter()
                    .find(|p| p.busid == busid(*port))
                    .map(|p| p.conn);
                if let Some(conn) = conn {
                    self.vm_hangs_up(conn);
                }
            }
            Act::PairingEnds { ms } => {
                if self.unpaired.is_none() {
                    self.unpaired = Some(self.now);
                    self.session = false;
                    self.epochs.session += 1;
                    self.tell_vm(vm::Event::Down(lost()));
                    self.tell_vm(vm::Event::Paired(None));
                    self.at(*ms, Event::PairingBegins);
                }
            }
            Act::Detach(port) => self.command(Command::Detach(busid(*port), None)),
            Act::Attach(port) => self.command(Command::Attach(busid(*port), None)),
            Act::AttachAll => self.command(Command::AttachAll),
            Act::Rule(port, ruling) => {
                let scope = Scope::Port(busid(*port).to_string());
                self.command(Command::Rule(scope, *ruling));
            }
            Act::Name(port, name) => {
                let scope = Scope::Port(busid(*port).to_string());
                let names = ["board", "board-1", "sensor"];
                let alias = name.map(|n| names[usize::from(n)].parse().unwrap());
                self.command(Command::Name(scope, alias));
            }
            Act::PowerCycle { port, works } => {
                self.switches = *works;
                self.command(Command::PowerCycle(busid(*port), None));
            }
        }
    }

    fn command(&mut self, command: Command) {
        self.input(Input::Command(command));
    }

    /// Whether a device is to be on the VM.
    fn is_wanted(&self, facts: &UsbDevice) -> bool {
        let held = self.kept.held(facts, None).next().is_some();
        !held && self.kept.verdict(facts).exports()
    }

    fn input(&mut self, input: Input) {
        self.log.push(format!("{} IN {input:?}", self.now));
        let (state, effects) = step(
            std::mem::take(&mut self.state),
            Duration::from_millis(self.now),
            input,
        );
        self.state = state;
        for effect in effects {
            self.log.push(format!("{} OUT {effect:?}", self.now));
            if let Effect::Remember(memory) = &effect {
                self.memory.insert(memory.identity.clone(), memory.clone());
                continue;
            }
            if let Effect::Keep(keep) = &effect {
                assert!(self.kept.take(keep), "kept again: {keep:?}");
                self.keeps.push(keep.clone());
                continue;
            }
            if let Effect::Append(event) = &effect {
                self.recorded(event);
                continue;
            }
            if let Effect::Saw(_) = &effect {
                continue;
            }
            match &effect {
                Effect::EndSession(busid, devid) => self.check_cause("end", busid, *devid),
                Effect::Send(Request::Disconnect(busid, Some(devid))) => {
                    self.check_cause("disconnect", busid, *devid);
                }
                _ => {}
            }
            let delay = self.random(0..20);
            self.at(delay, Event::Carry(effect));
        }
    }

    /// What is recorded has to follow from what was recorded before.
    fn recorded(&mut self, event: &history::Event) {
        let Some(busid) = event.device.as_ref().map(|device| device.busid.clone()) else {
            return;
        };
        let before = self.history.get(&busid).copied();
        let (right, after) = match event.kind {
            Kind::Found => (before.is_none(), Some(None)),
            Kind::Plugged => (before.is_none(), Some(Some(false))),
            Kind::Unplugged => (before.is_some(), None),
            Kind::Attached => (
                before.is_some_and(|attached| attached != Some(true)),
                Some(Some(true)),
            ),
            Kind::Detached => (
                before.is_some_and(|attached| attached != Some(false)),
                Some(Some(false)),
            ),
            _ => (before.is_some(), before),
        };
        if !right {
            self.wrongs
                .push(format!("{} {event:?} after {before:?}", self.now));
        }
        match after {
            Some(after) => self.history.insert(busid, after),
            None => self.history.remove(&busid),
        };
    }

    fn run(&mut self, until: u64) {
        let mut steps = 0;
        loop {
            let wake = u64::try_from(self.state.next_wake().as_millis()).unwrap() + 1;
            let next = self.queue.keys().next().copied();
            steps += 1;
            assert!(
                steps < 50_000,
                "no rest:\n{}",
                self.log[self.log.len() - 50..].join("\n")
            );
            match next {
                Some((at, _)) if at <= wake.max(self.now) && at <= until => {
                    let (_, (epochs, event)) = self.queue.pop_first().unwrap();
                    self.now = self.now.max(at);
                    self.happen(epochs, event);
                }
                _ if wake <= until => {
                    self.now = self.now.max(wake);
                    self.input(Input::Tick);
                }
                _ => break,
            }
        }
        self.now = until;
    }

    fn happen(&mut self, epochs: Epochs, event: Event) {
        let this_process = epochs.process == self.epochs.process;
        match event {
            Event::Input(input) if this_process => self.input(input),
            Event::Carry(effect) if this_process => self.carry(effect),
            Event::SessionUp if epochs.session == self.epochs.session => self.session_up(),
            Event::SessionDown if epochs == self.epochs => {
                self.input(Input::Vm(vm::Event::Down(lost())));
            }
            Event::PairingBegins => self.pairing_begins(),
            Event::HandOver(attached) if this_process => self.hand_over(attached),
            Event::VmAttach(attached, request) => self.vm_attached(&attached, request, epochs),
            Event::BootAttach => {
                for busid in self.state.exports().devices.into_keys() {
                    self.import(&busid, None);
                }
            }
            Event::CutEnds { beyond_grace } => self.cut_ends(beyond_grace),
            Event::PowerOn(busid, devid, product) => {
                self.plug(&busid, product);
                if this_process {
                    self.tell(0, Input::PowerCycled(busid, devid, Ok(())));
                }
            }
            _ => {}
        }
    }

    fn session_up(&mut self) {
        if self.cut {
            self.at(500, Event::SessionUp);
            return;
        }
        self.session = true;
        // What the helper does with the Pi's greeting: dead ports of an earlier boot go.
        let live = self.live();
        self.vm_ports.retain(|port| live.contains(&port.conn));
        let address = "10.9.0.2".parse().unwrap();
        let hello = VmHello {
            protocol: 1,
            version: "0.1.0".into(),
            boot_id: format!("vm boot {}", self.vm_boot),
            host_name: "vm".into(),
            address: Some(address),
            capabilities: vec![CAN_ALIAS.into()],
        };
        self.tell_vm(vm::Event::Up { hello, address });
    }

    fn cut_ends(&mut self, beyond_grace: bool) {
        self.cut = false;
        if beyond_grace {
            let busids: Vec<BusId> = self.plugged.keys().cloned().collect();
            for busid in busids {
                self.pi_hangs_up(&busid);
            }
        }
        // Resets reach whoever still holds an end of a dead connection.
        let live = self.live();
        self.vm_ports.retain(|port| live.contains(&port.conn));
    }

    /// The connections of which the Pi has an end.
    fn live(&self) -> BTreeSet<Conn> {
        let handed_over = self.plugged.values().filter_map(|p| p.conn);
        handed_over.chain(self.granted.values().copied()).collect()
    }

    fn works(&self, busid: &BusId, devid: DevId) -> bool {
        self.plugged.get(busid).is_some_and(|plugged| {
            plugged.devid == devid
                && self.vm_ports.iter().any(|port| {
                    port.busid == *busid && Some(port.conn) == plugged.conn && port.devid == devid
                })
        })
    }

    fn check_cause(&mut self, what: &str, busid: &BusId, devid: DevId) {
        let wanted = self.facts(busid).is_none_or(|facts| self.is_wanted(&facts));
        // An import that has just replaced another may be taken for it; nobody has used it yet.
        let conn = self.plugged.get(busid).and_then(|p| p.conn);
        let young = conn.is_some_and(|conn| self.births[&conn] + 250 > self.now);
        if self.works(busid, devid) && wanted && !young && !self.state.unpaired {
            self.wrongs.push(format!(
                "{} {what} of {busid} {devid}, which works",
                self.now
            ));
        }
    }

    fn carry(&mut self, effect: Effect) {
        match effect {
            Effect::Rescan => {
                let snapshot = self.snapshot();
                self.tell_usb(snapshot);
            }
            Effect::Bind(busid, devid) => {
                let found = self.plugged.get_mut(&busid).filter(|p| p.devid == devid);
                let result = found
                    .map(|p| p.bound = true)
                    .ok_or_else(|| "is gone".to_owned());
                self.tell(0, Input::Bound(busid.clone(), devid, result));
                if let Some(facts) = self.facts(&busid) {
                    self.tell_usb(Change::Present(facts));
                }
            }
            Effect::Unbind(busid, devid) => {
                let there = self.plugged.get(&busid).is_some_and(|p| p.devid == devid);
                if there {
                    self.pi_hangs_up(&busid);
                }
                if let Some(plugged) = self.plugged.get_mut(&busid).filter(|_| there) {
                    plugged.bound = false;
                }
                let result = there.then_some(()).ok_or_else(|| "is gone".to_owned());
                self.tell(0, Input::Unbound(busid.clone(), devid, result));
                if let Some(facts) = self.facts(&busid) {
                    self.tell_usb(Change::Present(facts));
                }
            }
            Effect::PowerCycle(busid, devid) => {
                let found = self.plugged.get(&busid).filter(|p| p.devid == devid);
                match found.map(|plugged| plugged.product) {
                    Some(product) if self.switches => {
                        self.unplug(&busid);
                        let delay = self.random(300..2_500);
                        self.at(delay, Event::PowerOn(busid, devid, product));
                    }
                    _ => {
                        let result = Err("this port cannot be switched".to_owned());
                        self.tell(0, Input::PowerCycled(busid, devid, result));
                    }
                }
            }
            Effect::EndSession(busid, devid) => {
                self.pi_hangs_up(&busid);
                self.tell(0, Input::SessionEnded(busid, devid, Ok(())));
            }
            Effect::Send(request) => self.helper(request),
            Effect::Sweep | Effect::Kick => {}
            other => panic!("unexpected {other:?}"),
        }
    }

    fn reply(&mut self, request: Request, answer: Answer, delay: u64) {
        let failure = Failure {
            kind: FailureKind::Timeout,
            message: "no answer".into(),
            remedy: None,
        };
        let (answer, delay) = if std::mem::take(&mut self.lose_reply) {
            (Answer::Error(failure), 5_000)
        } else {
            (answer, delay)
        };
        self.at(
            delay,
            Event::Input(Input::Vm(vm::Event::Reply { request, answer })),
        );
    }

    fn helper(&mut self, request: Request) {
        if !self.session || self.cut {
            let failure = Failure {
                kind: FailureKind::Timeout,
                message: "no session".into(),
                remedy: None,
            };
            self.reply(request, Answer::Error(failure), 5);
            return;
        }
        match request {
            Request::Status => {
                let status = VmStatus {
                    boot_id: format!("vm boot {}", self.vm_boot),
                    attachments: self.vm_ports.iter().map(attachment).collect(),
                    ports_free: 8,
                    ports_total: 8,
                };
                let delay = self.random(1..60);
                self.reply(request, Answer::Status(status), delay);
            }
            Request::Aliases(ref named) => {
                self.told = Some(named.clone());
                let delay = self.random(1..40);
                self.reply(request, Answer::Linked {}, delay);
            }
            Request::Connect(ref busid, _) => {
                let busid = busid.clone();
                self.import(&busid, Some(request));
            }
            Request::Disconnect(ref busid, devid) => {
                let devid = devid.unwrap();
                let conn = self
                    .vm_ports
                    .iter()
                    .find(|port| port.busid == *busid && port.devid == devid)
                    .map(|port| port.conn);
                if let Some(conn) = conn {
                    self.vm_hangs_up(conn);
                }
                let delay = self.random(5..100);
                self.reply(
                    request,
                    Answer::Detached {
                        was_attached: conn.is_some(),
                    },
                    delay,
                );
            }
            other => panic!("unexpected {other:?}"),
        }
    }

    fn import(&mut self, busid: &BusId, request: Option<Request>) {
        let wanted = if let Some(Request::Connect(_, devid)) = &request {
            *devid
        } else {
            None
        };
        let mine =
            |port: &&Attached| port.busid == *busid && wanted.is_none_or(|w| w == port.devid);
        if let Some(port) = self.vm_ports.iter().find(mine).cloned() {
            if let Some(request) = request {
                self.reply(request, Answer::Attached(attachment(&port)), 3);
            }
            return;
        }
        let old: Vec<Conn> = self
            .vm_ports
            .iter()
            .filter(|p| p.busid == *busid)
            .map(|p| p.conn)
            .collect();
        for conn in old {
            self.vm_hangs_up(conn);
        }
        // The old connection is asked, and a dead one gives way.
        if let Some(conn) = self.plugged.get(busid).and_then(|p| p.conn)
            && !self.vm_ports.iter().any(|port| port.conn == conn)
            && !self
                .queue
                .values()
                .any(|(_, e)| matches!(e, Event::VmAttach(a, _) if a.conn == conn))
        {
            self.pi_hangs_up(busid);
        }
        let exports = self.state.exports();
        if let Some(device) = exports.fresh.get(busid)
            && wanted.is_none_or(|wanted| wanted == device.devid)
            && !exports.peers.is_empty()
            && !self.granted.contains_key(busid)
        {
            self.next_conn += 1;
            let attached = Attached {
                busid: busid.clone(),
                devid: device.devid,
                conn: self.next_conn,
            };
            self.births.insert(self.next_conn, self.now);
            self.granted.insert(busid.clone(), self.next_conn);
            let delay = self.random(1..40);
            self.at(delay, Event::VmAttach(attached.clone(), request));
            self.at(0, Event::HandOver(attached));
            return;
        }
        let exported = exports.devices.contains_key(busid) && !exports.peers.is_empty();
        let free = self
            .plugged
            .get_mut(busid)
            .filter(|p| p.bound && p.conn.is_none() && exported);
        let refused = |message: &str| {
            let message = message.to_owned();
            Answer::Error(Failure {
                kind: FailureKind::Refused,
                message,
                remedy: None,
            })
        };
        match free {
            Some(plugged) if wanted.is_none_or(|devid| devid == plugged.devid) => {
                self.next_conn += 1;
                plugged.conn = Some(self.next_conn);
                self.births.insert(self.next_conn, self.now);
                let devid = plugged.devid;
                let attached = Attached {
                    busid: busid.clone(),
                    devid,
                    conn: self.next_conn,
                };
                let peer = "10.9.0.2".parse().unwrap();
                self.tell_usbipd(usbipd::Event::Imported {
                    busid: busid.clone(),
                    devid,
                    peer,
                });
                let delay = self.random(1..40);
                self.at(delay, Event::VmAttach(attached, request));
            }
            _ => {
                if let Some(request) = request {
                    self.reply(request, refused("not exported, or in use"), 3);
                }
            }
        }
    }

    /// Hand over what was granted, wait a little longer for it, or reset the connection.
    fn hand_over(&mut self, attached: Attached) {
        let busid = &attached.busid;
        let exports = self.state.exports();
        if exports.fresh.contains_key(busid) && !exports.devices.contains_key(busid) {
            self.at(5, Event::HandOver(attached));
            return;
        }
        self.granted.remove(busid);
        let free = self.plugged.get_mut(busid).filter(|p| {
            p.devid == attached.devid
                && p.bound
                && p.conn.is_none()
                && exports.devices.contains_key(busid)
        });
        if let Some(plugged) = free {
            plugged.conn = Some(attached.conn);
            let peer = "10.9.0.2".parse().unwrap();
            self.tell_usbipd(usbipd::Event::Imported {
                busid: busid.clone(),
                devid: attached.devid,
                peer,
            });
        } else {
            self.vm_hangs_up(attached.conn);
        }
    }

    fn vm_attached(&mut self, attached: &Attached, request: Option<Request>, epochs: Epochs) {
        let live = self.live().contains(&attached.conn);
        if live {
            self.vm_ports.push(attached.clone());
        }
        let Some(request) = request else { return };
        if epochs != self.epochs {
            return;
        }
        let answer = if live {
            Answer::Attached(attachment(attached))
        } else {
            let message = "did not enumerate".to_owned();
            Answer::Error(Failure {
                kind: FailureKind::Timeout,
                message,
                remedy: None,
            })
        };
        let delay = self.random(100..400);
        self.reply(request, answer, delay);
    }
}

fn lost() -> vm::Failure {
    vm::Failure {
        kind: vm::FailureKind::Lost,
        message: "the VM does not answer".into(),
        remedy: None,
    }
}

fn attachment(port: &Attached) -> Attachment {
    Attachment {
        busid: port.busid.clone(),
        devid: port.devid,
        port: port.conn,
        local_busid: None,
        ttys: vec![Tty {
            node: format!("/dev/ttyACM{}", port.conn),
            by_id: None,
            driver: None,
        }],
        timings: None,
    }
}

fn check_converged(world: &World) -> Result<(), String> {
    for (busid, plugged) in &world.plugged {
        let facts = world.facts(busid).unwrap();
        let wanted = world.is_wanted(&facts);
        let exports = world.kept.verdict(&facts).exports();
        let count = world
            .vm_ports
            .iter()
            .filter(|port| port.busid == *busid)
            .count();
        if !wanted {
            if count != 0 || plugged.conn.is_some() || plugged.bound != exports {
                return Err(format!("{busid} is not wanted there but attached or bound"));
            }
        } else if count != 1 || !world.works(busid, plugged.devid) {
            return Err(format!("{busid} is on {count} ports of the VM"));
        }
        let view = world.state.view();
        let seen = view.devices.iter().find(|d| d.facts.busid == *busid);
        let right = matches!(
            (wanted, exports, seen.map(|d| &d.state)),
            (false, true, Some(DeviceState::Bound { held: true }))
                | (false, false, Some(DeviceState::Skipped { .. }))
                | (
                    true,
                    true,
                    Some(DeviceState::Attached {
                        attachment: Some(_),
                        silent: false
                    })
                )
        );
        if !right {
            return Err(format!("{busid} is shown as {:?}", seen.map(|d| &d.state)));
        }
        let recorded = world.history.get(busid);
        if !recorded.is_some_and(|attached| attached.is_none_or(|attached| attached == wanted)) {
            return Err(format!("{busid} is recorded as {recorded:?}"));
        }
    }
    let named = world.plugged.iter().filter_map(|(busid, plugged)| {
        let facts = world.facts(busid)?;
        let (_, alias) = world.kept.alias(&facts, None)?;
        Some(Named {
            busid: busid.clone(),
            devid: plugged.devid,
            alias: alias.clone(),
        })
    });
    let named: Vec<Named> = named.collect();
    if world.told.as_ref() != Some(&named) {
        return Err(format!("the VM was told {:?}, not {named:?}", world.told));
    }
    if let Some(port) = world.state.cycles.keys().next() {
        return Err(format!("{port} is still being switched"));
    }
    match world
        .vm_ports
        .iter()
        .find(|port| !world.plugged.contains_key(&port.busid))
    {
        Some(port) => Err(format!("{} is a ghost on the VM", port.busid)),
        None => Ok(()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_world_converges(acts in acts(), seed: u64) {
        let mut world = World::new(seed);
        for (act, gap) in &acts {
            world.act(act);
            let until = world.now + gap;
            world.run(until);
        }
        let until = world.now + 180_000;
        world.run(until);
        let outcome = check_converged(&world);
        let tail = || world.log.join("\n");
        prop_assert!(world.wrongs.is_empty(), "{:?}\n{}", world.wrongs, tail());
        prop_assert!(outcome.is_ok(), "{:?}\n{}", outcome, tail());
    }
}
