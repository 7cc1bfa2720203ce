//! Names, rules and holds, alone and as the manager follows them.

use std::{net::IpAddr, time::Duration};

use protocol::{
    Alias, BusId, DevId, Speed,
    line::{Answer, Attachment, CAN_ALIAS, Failure, FailureKind, Request, Tty, VmHello},
};

use super::{
    super::{Command, Effect, Input, State, step, view::DeviceState},
    *,
};
use crate::{
    usb::{Change, StubStatus},
    vm::{self, Event, Pairing},
};

fn device(busid: &str, devnum: u16, serial: Option<&str>) -> UsbDevice {
    UsbDevice {
        busid: busid.parse().unwrap(),
        devid: DevId::new(1, devnum),
        speed: Speed::Full,
        vendor: 0x303a,
        product: 0x1001,
        bcd_device: 0x0100,
        class: [0; 3],
        configuration: 0,
        configurations: 1,
        interfaces: Vec::new(),
        manufacturer: None,
        product_name: None,
        serial: serial.map(str::to_owned),
        port_path: format!("usb:{busid}"),
        driver: Some("usbip-host".to_owned()),
        stub: Some(StubStatus::Available),
        verdict: Verdict::Export("cdc_acm serial".to_owned()),
    }
}

fn alias(name: &str) -> Alias {
    name.parse().unwrap()
}

/// A manager that is told one thing after the other, a tenth of a second apart.
struct Told {
    state: State,
    now: Duration,
}

impl Told {
    fn new() -> Self {
        let mut told = Self {
            state: State::new(Duration::from_secs(30)),
            now: Duration::ZERO,
        };
        told.hear(Input::Usb(Change::Snapshot(Vec::new())));
        told
    }

    fn hear(&mut self, input: Input) -> Vec<Effect> {
        self.now += Duration::from_millis(100);
        let (state, effects) = step(std::mem::take(&mut self.state), self.now, input);
        self.state = state;
        effects
    }

    fn command(&mut self, command: Command) -> Vec<Effect> {
        self.hear(Input::Command(command))
    }

    fn plug(&mut self, facts: UsbDevice) {
        self.hear(Input::Usb(Change::Present(facts)));
    }

    fn unplug(&mut self, busid: &str) {
        self.hear(Input::Usb(Change::Gone(busid.parse().unwrap())));
    }

    fn name_of(&self, busid: &str) -> Option<String> {
        let view = self.state.view();
        let device = view
            .devices
            .iter()
            .find(|d| d.facts.busid.as_str() == busid);
        device.unwrap().alias.as_ref().map(Alias::to_string)
    }

    fn session(&mut self, capabilities: &[&str]) -> Vec<Effect> {
        let pairing = Pairing {
            host: "vm".into(),
            user: "dev".into(),
        };
        self.hear(Input::Vm(Event::Paired(Some(pairing))));
        let hello = VmHello {
            protocol: 1,
            version: "0.1.0".into(),
            boot_id: "vm".into(),
            host_name: "vm".into(),
            address: None,
            capabilities: capabilities.iter().map(|c| (*c).to_owned()).collect(),
        };
        let address = "10.9.0.2".parse().unwrap();
        self.hear(Input::Vm(Event::Up { hello, address }))
    }
}

/// What the VM is told about names, if it is.
fn told(effects: &[Effect]) -> Option<String> {
    effects.iter().find_map(|effect| match effect {
        Effect::Send(request @ Request::Aliases(_)) => Some(request.to_string()),
        _ => None,
    })
}

#[test]
fn scopes_round_trip_as_text() {
    let facts = device("1-1", 2, Some("34:85:18:ab:cd:ef"));
    for scope in [
        Scope::lasting(&facts),
        Scope::port(&facts),
        Scope::product(&facts),
    ] {
        assert_eq!(scope.to_string().parse(), Ok(scope));
    }
    for text in ["", "serial ", "product 1:2", "product 10c4", "colour red"] {
        assert!(text.parse::<Scope>().is_err(), "{text}");
    }
}

#[test]
fn a_name_follows_the_board_by_its_serial_number_whatever_it_runs() {
    let mut told = Told::new();
    let rom = device("1-1", 2, Some("34:85:18:AB:CD:EF"));
    told.plug(rom.clone());
    told.command(Command::Name(Scope::lasting(&rom), Some(alias("esp"))));
    assert_eq!(told.name_of("1-1").as_deref(), Some("esp"));
    // The program has another product id, writes its serial number otherwise, and is in another port.
    told.unplug("1-1");
    let mut program = device("1-2", 3, Some("348518abcdef"));
    (program.vendor, program.product) = (0x2341, 0x0070);
    told.plug(program);
    assert_eq!(told.name_of("1-2").as_deref(), Some("esp"));
}

#[test]
fn a_boot_loader_without_serial_number_is_known_by_its_port_for_a_moment() {
    let mut told = Told::new();
    let board = device("1-1", 2, Some("ABC123"));
    told.plug(board.clone());
    told.command(Command::Name(Scope::lasting(&board), Some(alias("leo"))));
    told.unplug("1-1");
    let mut loader = device("1-1", 3, None);
    loader.product = 0x0009;
    told.plug(loader.clone());
    assert_eq!(told.name_of("1-1").as_deref(), Some("leo"));

    // Another maker's, another port's, or one that comes later is another board.
    told.unplug("1-1");
    let mut other = device("1-1", 4, None);
    other.vendor = 0x1a86;
    told.plug(other);
    assert_eq!(told.name_of("1-1"), None);
    told.plug(device("1-2", 5, None));
    assert_eq!(told.name_of("1-2"), None);
    told.plug(board);
    told.unplug("1-1");
    told.now += Duration::from_secs(6);
    loader.devid = DevId::new(1, 7);
    told.plug(loader);
    assert_eq!(told.name_of("1-1"), None);
}

#[test]
fn without_a_serial_number_a_name_belongs_to_the_port() {
    let mut told = Told::new();
    // A filler is none.
    let clone = device("1-1", 2, Some("0001"));
    told.plug(clone.clone());
    told.command(Command::Name(Scope::lasting(&clone), Some(alias("left"))));
    told.unplug("1-1");
    told.plug(device("1-2", 3, Some("0001")));
    assert_eq!(told.name_of("1-2"), None);
    told.plug(device("1-1", 4, None));
    assert_eq!(told.name_of("1-1").as_deref(), Some("left"));
    // It is shown, and can be taken away, when nothing is plugged in.
    told.unplug("1-1");
    let view = told.state.view();
    assert_eq!((view.aliases.len(), &view.aliases[0].busid), (1, &None));
    let effects = told.command(Command::Name(view.aliases[0].scope.clone(), None));
    let forgotten = |effect: &Effect| matches!(effect, Effect::Keep(Keep::Alias(_, None)));
    assert!(effects.iter().any(forgotten));
    assert_eq!(told.state.view().aliases, []);
}

#[test]
fn a_name_that_another_device_has_is_not_taken() {
    let mut told = Told::new();
    let (a, b) = (device("1-1", 2, Some("A1")), device("1-2", 3, Some("B2")));
    told.plug(a.clone());
    told.plug(b.clone());
    told.command(Command::Name(Scope::lasting(&a), Some(alias("board"))));
    for name in ["board", "BOARD", "board-1"] {
        let effects = told.command(Command::Name(Scope::lasting(&b), Some(alias(name))));
        let kept = effects.iter().any(|e| matches!(e, Effect::Keep(_)));
        assert!(!kept, "{name}");
    }
    // Its own may be changed to one that clashes with the old one.
    told.command(Command::Name(Scope::lasting(&a), Some(alias("board-1"))));
    assert_eq!(told.name_of("1-1").as_deref(), Some("board-1"));
}

#[test]
fn the_vm_is_told_names_once_and_again_after_a_failure() {
    let mut told_state = Told::new();
    let facts = device("1-1", 2, Some("A1"));
    told_state.plug(facts.clone());
    told_state.command(Command::Name(Scope::lasting(&facts), Some(alias("esp"))));
    assert_eq!(told(&told_state.session(&[])), None, "an older helper");
    let effects = told_state.session(&[CAN_ALIAS]);
    assert_eq!(told(&effects).as_deref(), Some("aliases 1-1,00010002,esp"));

    let request: Request = "aliases 1-1,00010002,esp".parse().unwrap();
    let failure = Answer::Error(Failure {
        kind: FailureKind::System,
        message: "failed to write".into(),
        remedy: None,
    });
    let reply = |answer| {
        Input::Vm(Event::Reply {
            request: request.clone(),
            answer,
        })
    };
    assert_eq!(told(&told_state.hear(reply(failure))), None);
    // What the VM could not do is no failure of the device.
    let view = told_state.state.view();
    assert!(!matches!(view.devices[0].state, DeviceState::Failed { .. }));
    told_state.now += Duration::from_secs(2);
    assert!(told(&told_state.hear(Input::Tick)).is_some());
    assert_eq!(told(&told_state.hear(reply(Answer::Linked {}))), None);
    told_state.now += Duration::from_mins(1);
    assert_eq!(told(&told_state.hear(Input::Tick)), None);
    // The empty list is told as well.
    let effects = told_state.command(Command::Name(Scope::lasting(&facts), None));
    assert_eq!(told(&effects).as_deref(), Some("aliases"));
}

#[test]
fn the_narrowest_rule_decides_and_none_exports_what_the_pi_needs() {
    let mut facts = device("1-1", 2, Some("A1"));
    let mut kept = Kept::default();
    let mut rule = |scope, ruling| assert!(kept.take(&Keep::Rule(scope, Some(ruling))));
    rule(Scope::product(&facts), Ruling::Ignore);
    rule(Scope::serial(&facts).unwrap(), Ruling::Export);
    assert!(kept.verdict(&facts).exports());
    let sibling = device("1-2", 3, Some("B2"));
    let Verdict::Skip(why) = kept.verdict(&sibling) else {
        panic!("it is to be left alone");
    };
    assert!(why.contains("303a:1001"), "{why}");

    facts.verdict = Verdict::Skip("only a disk, no serial port".into());
    assert!(kept.verdict(&facts).exports());
    facts.verdict = Verdict::Refuse("it carries a mounted file system (sda1)".into());
    assert_eq!(kept.verdict(&facts), facts.verdict);
}

#[test]
fn an_old_page_does_not_act_on_another_board() {
    let mut told = Told::new();
    told.plug(device("1-1", 2, Some("A1")));
    let busid: BusId = "1-1".parse().unwrap();
    let old = Some(DevId::new(1, 1));
    told.command(Command::Detach(busid.clone(), old));
    let effects = told.command(Command::PowerCycle(busid.clone(), old));
    assert!(!effects.iter().any(|e| matches!(e, Effect::PowerCycle(..))));
    let state = |told: &Told| told.state.view().devices[0].state.clone();
    assert_eq!(state(&told), DeviceState::Bound { held: false });
    told.command(Command::Detach(busid, Some(DevId::new(1, 2))));
    assert_eq!(state(&told), DeviceState::Bound { held: true });
}

/// Whether the one board that is plugged in is held back.
fn held(told: &Told) -> bool {
    told.state.view().devices[0].state == DeviceState::Bound { held: true }
}

#[test]
fn a_board_that_is_held_back_stays_so_in_its_boot_loader() {
    let mut told = Told::new();
    let busid: BusId = "1-1".parse().unwrap();
    let program = device("1-1", 2, Some("34:85:18:AB:CD:EF"));
    told.plug(program.clone());
    let effects = told.command(Command::Detach(busid.clone(), None));
    let scope = Scope::Serial("348518ABCDEF".into());
    assert!(effects.contains(&Effect::Keep(Keep::Held(scope.clone(), true))));
    // Detached in another tab, too: nothing more to keep.
    let effects = told.command(Command::Detach(busid.clone(), None));
    assert!(
        !effects
            .iter()
            .any(|effect| matches!(effect, Effect::Keep(_)))
    );

    // Its boot loaders: one with the same serial number, one with none.
    for (devnum, serial) in [(3, Some("348518abcdef")), (4, None)] {
        let mut loader = device("1-1", devnum, serial);
        loader.product = 0x0009;
        told.plug(loader);
        assert!(held(&told), "{serial:?}");
    }
    // Attached while it is in the latter, it stays free.
    let effects = told.command(Command::Attach(busid.clone(), None));
    assert!(effects.contains(&Effect::Keep(Keep::Held(scope, false))));
    assert!(!held(&told));
    told.plug(program);
    assert!(!held(&told));
}

#[test]
fn of_too_many_holds_the_last_is_refused_and_that_is_seen() {
    let mut told = Told::new();
    let filled = (1..MOST_KEPT).map(|n| Keep::Held(Scope::Serial(format!("N{n}")), true));
    told.hear(Input::Kept(filled.collect()));
    let busids: [BusId; 2] = ["1-1".parse().unwrap(), "1-2".parse().unwrap()];
    told.plug(device("1-1", 2, Some("A1")));
    told.plug(device("1-2", 3, Some("B2")));
    let can_be_held = |told: &Told| {
        let view = told.state.view();
        [0, 1].map(|at| view.devices[at].can_be_held)
    };
    assert_eq!(can_be_held(&told), [true, true]);
    told.command(Command::Detach(busids[0].clone(), None));
    assert_eq!(can_be_held(&told), [true, false]);
    let effects = told.command(Command::Detach(busids[1].clone(), None));
    assert!(!effects.iter().any(|e| matches!(e, Effect::Keep(_))));
    let state = told.state.view().devices[1].state.clone();
    assert_eq!(state, DeviceState::Bound { held: false });
    told.command(Command::Attach(busids[0].clone(), None));
    assert_eq!(can_be_held(&told), [true, true]);
}

#[test]
fn holds_are_listed_and_let_go_also_of_boards_that_are_not_plugged_in() {
    let mut told = Told::new();
    let [gone, here] = ["A1", "B2"].map(|serial| Scope::Serial(serial.into()));
    let kept = [&gone, &here].map(|scope| Keep::Held(scope.clone(), true));
    told.hear(Input::Kept(kept.to_vec()));
    told.plug(device("1-2", 3, Some("B2")));
    let busids = |told: &Told| {
        let holds = told.state.view().holds.into_iter();
        holds.map(|one| one.busid).collect::<Vec<_>>()
    };
    let busid: BusId = "1-2".parse().unwrap();
    assert_eq!(busids(&told), [None, Some(busid.clone())]);

    for scope in [gone, here] {
        let effects = told.command(Command::Release(scope.clone()));
        assert!(effects.contains(&Effect::Keep(Keep::Held(scope, false))));
    }
    assert!(busids(&told).is_empty());
    let state = told.state.view().devices[0].state.clone();
    assert_eq!(state, DeviceState::Bound { held: false });
}

#[test]
fn without_a_serial_number_the_port_is_held_back_but_no_other_board_in_it() {
    let mut told = Told::new();
    let busid: BusId = "1-1".parse().unwrap();
    told.plug(device("1-1", 2, None));
    told.command(Command::Detach(busid.clone(), None));
    // Its boot loader has a number; the port is held, and so is what came of the board in it.
    let mut loader = device("1-1", 3, Some("ABC123"));
    loader.product = 0x0009;
    told.plug(loader.clone());
    assert!(held(&told));
    told.unplug("1-1");
    told.now += Duration::from_secs(6);
    loader.devid = DevId::new(1, 5);
    told.plug(loader);
    assert!(!held(&told), "another board");
    told.plug(device("1-1", 6, None));
    assert!(held(&told));
    told.command(Command::AttachAll);
    assert!(!held(&told));
}

#[test]
fn a_port_that_is_switched_keeps_its_place_and_tells_how_it_went() {
    let mut told = Told::new();
    told.plug(device("1-1", 2, Some("A1")));
    let busid: BusId = "1-1".parse().unwrap();
    let devid = DevId::new(1, 2);
    let state = |told: &Told| told.state.view().devices[0].state.clone();
    let effects = told.command(Command::PowerCycle(busid.clone(), None));
    assert!(effects.contains(&Effect::PowerCycle(busid.clone(), devid)));
    assert_eq!(state(&told), DeviceState::Cycling);
    // A double click.
    let effects = told.command(Command::PowerCycle(busid.clone(), None));
    assert!(!effects.iter().any(|e| matches!(e, Effect::PowerCycle(..))));

    let failed = Err("this port cannot be switched".to_owned());
    told.hear(Input::PowerCycled(busid.clone(), devid, failed.clone()));
    let view = told.state.view();
    assert_eq!(view.devices[0].power_failure, failed.err());
    assert_eq!(view.devices[0].state, DeviceState::Bound { held: false });

    told.command(Command::PowerCycle(busid.clone(), None));
    told.unplug("1-1");
    assert_eq!(state(&told), DeviceState::Cycling);
    told.hear(Input::PowerCycled(busid.clone(), devid, Ok(())));
    assert_eq!(state(&told), DeviceState::Cycling);
    told.now += Duration::from_secs(21);
    told.hear(Input::Tick);
    assert_eq!(state(&told), DeviceState::Missing);
    told.plug(device("1-1", 3, Some("A1")));
    assert_eq!(state(&told), DeviceState::Bound { held: false });
    assert_eq!(told.state.view().devices[0].power_failure, None);
}

#[test]
fn the_port_of_what_is_never_exported_is_not_switched() {
    let mut told = Told::new();
    let mut hub = device("1-1", 2, None);
    hub.verdict = Verdict::Refuse("a hub".into());
    told.plug(hub);
    let effects = told.command(Command::PowerCycle("1-1".parse().unwrap(), None));
    assert!(!effects.iter().any(|e| matches!(e, Effect::PowerCycle(..))));
}

#[test]
fn a_rule_exports_a_disk_only_once_it_was_looked_whether_it_is_mounted() {
    for (found, binds) in [
        (Verdict::Skip("only a disk".into()), true),
        (Verdict::Refuse("sda1 is mounted".into()), false),
    ] {
        let mut told = Told::new();
        let mut disk = device("1-1", 2, Some("D1"));
        (disk.driver, disk.stub) = (Some("usb".to_owned()), None);
        disk.verdict = Verdict::Skip("only a disk".into());
        told.plug(disk.clone());
        let bind = Effect::Bind(disk.busid.clone(), disk.devid);
        let effects = told.command(Command::Rule(Scope::product(&disk), Some(Ruling::Export)));
        assert!(effects.contains(&Effect::Rescan) && !effects.contains(&bind));
        disk.verdict = found;
        let effects = told.hear(Input::Usb(Change::Snapshot(vec![disk])));
        assert_eq!(effects.contains(&bind), binds);
    }
}

#[test]
fn who_shows_another_host_key_is_given_nothing() {
    let mut told = Told::new();
    told.session(&[]);
    let address: IpAddr = "10.9.0.2".parse().unwrap();
    for (kind, given) in [
        (vm::FailureKind::Lost, true),
        (vm::FailureKind::HostKeyChanged, false),
        (vm::FailureKind::Unreachable, true),
        (vm::FailureKind::HostKeyUnknown, false),
    ] {
        told.hear(Input::Vm(Event::Down(vm::Failure {
            kind,
            message: String::new(),
            remedy: None,
        })));
        assert_eq!(told.state.exports().peers.contains(&address), given);
    }
}

#[test]
fn a_board_that_makes_up_serial_numbers_fills_no_memory() {
    let mut told = Told::new();
    told.session(&[]);
    for number in 0..2100 {
        let facts = device("1-1", 2 + number % 100, Some(&format!("N{number}")));
        let devid = facts.devid;
        told.plug(facts);
        let tty = Tty {
            node: "/dev/ttyACM0".into(),
            by_id: None,
            driver: None,
        };
        let request = Request::Connect("1-1".parse().unwrap(), Some(devid));
        let sent = (request.clone(), told.now);
        told.state.pending.insert(request.to_string(), sent);
        let answer = Answer::Attached(Attachment {
            busid: "1-1".parse().unwrap(),
            devid,
            port: 0,
            local_busid: None,
            ttys: vec![tty],
            timings: None,
        });
        told.hear(Input::Vm(Event::Reply { request, answer }));
    }
    assert_eq!(told.state.memory.len(), 2000);
}
