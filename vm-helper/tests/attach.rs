//! Attaching and detaching on a played machine.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

mod play;

use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    net::{Shutdown, TcpStream},
    thread,
};

use play::{Machine, Manners, Pi, busid, device};
use protocol::{
    DevId,
    line::FailureKind,
    wire::{self, Status},
};
use vm_helper::{boot, failure::Error, import::Server};

fn kind(result: Result<impl Sized, Error>) -> FailureKind {
    result.err().unwrap().kind()
}

#[test]
fn a_device_is_attached_shown_and_detached() {
    let machine = Machine::new();
    let pi = Pi::with(vec![device("1-1.1", 4)]);
    let vm = machine.vm(&pi);
    let attached = vm.connect(&busid("1-1.1"), None).unwrap();
    assert_eq!(attached.devid, DevId::new(1, 4));
    assert_eq!(attached.port, 0);
    assert_eq!(attached.ttys[0].node, "/dev/ttyUSB0");
    assert_eq!(attached.ttys[0].driver.as_deref(), Some("ftdi_sio"));
    assert!(attached.timings.is_some());
    assert_eq!(
        machine.read("/var/run/vhci_hcd/port0").unwrap(),
        format!("127.0.0.1 {} 1-1.1\n", pi.port)
    );

    let status = vm.status().unwrap();
    assert_eq!(status.attachments.len(), 1);
    assert_eq!(status.attachments[0].local_busid, Some(busid("3-1")));
    assert_eq!((status.ports_free, status.ports_total), (3, 4));

    assert!(
        !vm.disconnect(&busid("1-1.1"), Some(DevId::new(1, 9)))
            .unwrap()
    );
    assert!(
        vm.disconnect(&busid("1-1.1"), Some(DevId::new(1, 4)))
            .unwrap()
    );
    assert!(!vm.disconnect(&busid("1-1.1"), None).unwrap());
    assert_eq!(machine.attached(), []);
    assert_eq!(machine.read("/var/run/vhci_hcd/port0"), None);
}

#[test]
fn attached_already_is_a_success_without_a_second_import() {
    let machine = Machine::new();
    let pi = Pi::with(vec![device("1-1.1", 4)]);
    let vm = machine.vm(&pi);
    vm.connect(&busid("1-1.1"), None).unwrap();
    let again = vm.connect(&busid("1-1.1"), Some(DevId::new(1, 4))).unwrap();
    assert_eq!((again.port, again.timings), (0, None));
    assert_eq!(again.ttys.len(), 1);
    assert_eq!(pi.imports.lock().unwrap().len(), 1);
}

#[test]
fn many_at_once_for_one_device_import_it_once() {
    let machine = Machine::new();
    let pi = Pi::with(vec![device("1-1.1", 4)]);
    let vm = machine.vm(&pi);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| vm.connect(&busid("1-1.1"), None).unwrap());
        }
    });
    assert_eq!(pi.imports.lock().unwrap().len(), 1);
    assert_eq!(machine.attached(), [(0, DevId::new(1, 4))]);
}

#[test]
fn a_replugged_device_takes_the_place_of_its_predecessor() {
    let machine = Machine::new();
    let pi = Pi::with(vec![device("1-1.1", 4), device("1-1.2", 5)]);
    let vm = machine.vm(&pi);
    vm.connect(&busid("1-1.1"), None).unwrap();
    vm.connect(&busid("1-1.2"), None).unwrap();
    pi.devices.lock().unwrap()[0] = device("1-1.1", 6);
    let attached = vm.connect(&busid("1-1.1"), Some(DevId::new(1, 6))).unwrap();
    assert_eq!(attached.port, 0);
    assert_eq!(
        machine.attached(),
        [(0, DevId::new(1, 6)), (1, DevId::new(1, 5))]
    );
}

#[test]
fn the_same_devid_of_another_boot_is_another_device() {
    let machine = Machine::new();
    let pi = Pi::with(vec![device("1-1.1", 4)]);
    let mut vm = machine.vm(&pi);
    vm.pi_boot_id = Some("a".into());
    vm.connect(&busid("1-1.1"), None).unwrap();
    vm.pi_boot_id = Some("b".into());
    let attached = vm.connect(&busid("1-1.1"), Some(DevId::new(1, 4))).unwrap();
    assert!(attached.timings.is_some());
    assert_eq!(pi.imports.lock().unwrap().len(), 2);
    assert_eq!(machine.attached().len(), 1);
    vm.pi_boot_id = Some("c".into());
    assert_eq!(vm.clear_other_boots().unwrap(), [busid("1-1.1")]);
    assert_eq!(machine.attached(), []);
}

#[test]
fn a_port_that_somebody_took_first_is_passed_over() {
    let machine = Machine::new();
    let pi = Pi::with(vec![device("1-1.1", 4)]);
    machine.busy.lock().unwrap().extend([0, 1]);
    let vm = machine.vm(&pi);
    assert_eq!(vm.connect(&busid("1-1.1"), None).unwrap().port, 2);
    vm.disconnect(&busid("1-1.1"), None).unwrap();
    machine.busy.lock().unwrap().extend([2, 3]);
    assert_eq!(
        kind(vm.connect(&busid("1-1.1"), None)),
        FailureKind::NoFreePort
    );
}

#[test]
fn devices_plugged_together_get_a_port_each() {
    let machine = Machine::new();
    let names = ["1-1.1", "1-1.2", "1-1.3", "1-1.4"];
    let pi = Pi::with((4..).zip(names).map(|(n, name)| device(name, n)).collect());
    let vm = machine.vm(&pi);
    let ports: BTreeSet<u32> = thread::scope(|scope| {
        let attaching = names.map(|name| {
            let vm = &vm;
            scope.spawn(move || vm.connect(&busid(name), None).unwrap().port)
        });
        attaching.map(|thread| thread.join().unwrap()).into()
    });
    assert_eq!(ports.len(), names.len());
    let mut attached: Vec<_> = vm.attached().unwrap();
    attached.sort();
    assert_eq!(attached, names.map(busid), "each record is of its own port");
}

#[test]
fn a_device_that_was_given_is_not_asked_for() {
    let machine = Machine::new();
    let pi = Pi::with(vec![device("1-1.1", 4), device("1-1.2", 5)]);
    let mut vm = machine.vm(&pi);
    vm.wait_for_next();
    vm.gives_next = true;
    vm.wait_for_next();
    vm.wait_for_next();
    let mut next = pi.next();
    assert!(pi.waits.try_recv().is_err(), "one is enough");
    let give = |next: &mut TcpStream, device| {
        next.write_all(&wire::encode_import(Ok(&device))).unwrap();
    };
    give(&mut next, device("1-1.1", 4));
    // It stays for whom it is for.
    vm.connect(&busid("1-1.2"), None).unwrap();
    let given = vm.connect(&busid("1-1.1"), Some(DevId::new(1, 4))).unwrap();
    assert_eq!((given.port, given.devid), (1, DevId::new(1, 4)));
    assert_eq!(*pi.imports.lock().unwrap(), [busid("1-1.2")]);

    // Another generation than the one that was asked for, and a Pi that left.
    vm.wait_for_next();
    give(&mut pi.next(), device("1-1.3", 8));
    pi.devices.lock().unwrap().push(device("1-1.3", 9));
    let third = vm.connect(&busid("1-1.3"), Some(DevId::new(1, 9))).unwrap();
    assert_eq!(third.devid, DevId::new(1, 9));
    vm.wait_for_next();
    pi.next().shutdown(Shutdown::Both).unwrap();
    vm.disconnect(&busid("1-1.2"), None).unwrap();
    vm.connect(&busid("1-1.2"), None).unwrap();
    assert_eq!(pi.imports.lock().unwrap().len(), 3);
    vm.wait_for_next();
    pi.next();
}

#[test]
fn a_controller_that_goes_is_looked_for_again() {
    let machine = Machine::new();
    let pi = Pi::with(vec![device("1-1.1", 4)]);
    let vm = machine.vm(&pi);
    let connect = || vm.connect(&busid("1-1.1"), None);
    connect().unwrap();
    let status = machine.root.path(&format!("{}/status", play::VHCI));
    let ports = fs::read(&status).unwrap();
    fs::remove_file(&status).unwrap();
    assert!(connect().is_err());
    let missing = connect().unwrap_err();
    assert_eq!(missing.kind(), FailureKind::VhciMissing);
    fs::write(&status, ports).unwrap();
    connect().unwrap();
}

#[test]
fn what_comes_from_other_hosts_is_not_ours() {
    let machine = Machine::new();
    let pi = Pi::with(vec![device("1-1.1", 4)]);
    let vm = machine.vm(&pi);
    machine.attach(0, DevId::new(1, 7), "10.0.0.9 3240 1-1.1\n");
    machine.attach(1, DevId::new(1, 8), "127.0.0.1 3240 1-1.3\n");
    let listed: Vec<_> = vm.status().unwrap().attachments;
    assert_eq!(listed.len(), 1, "the stock tool's attachment from our Pi");
    assert_eq!(listed[0].busid, busid("1-1.3"));
    assert!(!vm.disconnect(&busid("1-1.1"), None).unwrap());
    assert_eq!(vm.connect(&busid("1-1.1"), None).unwrap().port, 2);
    assert_eq!(machine.attached().len(), 3);
}

#[test]
fn each_refusal_has_its_kind_and_leaves_nothing_behind() {
    let machine = Machine::new();
    let pi = Pi::with(vec![device("1-1.1", 4)]);
    let vm = machine.vm(&pi);
    let connect = || vm.connect(&busid("1-1.1"), None);
    for status in [
        Status::DeviceBusy,
        Status::DeviceError,
        Status::NotAvailable,
    ] {
        *pi.manners.lock().unwrap() = Manners::Refuse(status);
        let error = connect().unwrap_err();
        assert_eq!(error.kind(), FailureKind::Refused);
        assert!(error.remedy().is_some());
    }
    *pi.manners.lock().unwrap() = Manners::Close;
    assert_eq!(kind(connect()), FailureKind::PiUnreachable);
    *pi.manners.lock().unwrap() = Manners::Normal;
    assert_eq!(kind(vm.connect(&busid("1-9"), None)), FailureKind::Refused);
    assert_eq!(
        kind(vm.connect(&busid("1-1.1"), Some(DevId::new(1, 3)))),
        FailureKind::Superseded
    );
    assert_eq!(machine.attached(), []);
}

#[test]
fn at_boot_devices_come_back_in_the_order_of_their_names() {
    let machine = Machine::new();
    let pi = Pi::with(vec![
        device("1-1.1", 4),
        device("1-1.2", 5),
        device("1-1.3", 6),
    ]);
    let vm = machine.vm(&pi);
    // First plugged in this order, so 1-1.3 is ttyUSB0.
    for name in ["1-1.3", "1-1.1", "1-1.2"] {
        vm.connect(&busid(name), None).unwrap();
    }
    for name in ["1-1.1", "1-1.2", "1-1.3"] {
        vm.disconnect(&busid(name), None).unwrap();
    }
    let outcomes = boot::attach_all(&vm).unwrap();
    let nodes: Vec<(String, String)> = outcomes
        .iter()
        .map(|(device, result)| {
            let attached = result.as_ref().unwrap();
            (device.busid.to_string(), attached.ttys[0].node.clone())
        })
        .collect();
    let pairs = [
        ("1-1.3", "/dev/ttyUSB0"),
        ("1-1.1", "/dev/ttyUSB1"),
        ("1-1.2", "/dev/ttyUSB2"),
    ];
    assert_eq!(
        nodes,
        pairs.map(|(busid, node)| (busid.to_owned(), node.to_owned()))
    );
}

#[test]
fn what_came_from_the_pi_under_its_other_name_is_known() {
    let machine = Machine::new();
    let pi = Pi::with(vec![device("1-1.1", 4)]);
    machine.vm(&pi).connect(&busid("1-1.1"), None).unwrap();
    let called = |name: &str| {
        let mut vm = machine.vm(&pi);
        vm.server = Server::new(name, pi.port);
        vm
    };
    assert_eq!(called("192.0.2.9").status().unwrap().attachments, []);
    let vm = called("localhost");
    assert_eq!(vm.status().unwrap().attachments.len(), 1);
    let again = vm.connect(&busid("1-1.1"), None).unwrap();
    assert_eq!((again.port, again.timings), (0, None));
    assert_eq!(pi.imports.lock().unwrap().len(), 1);
    assert!(vm.disconnect(&busid("1-1.1"), None).unwrap());
    assert_eq!(machine.attached(), []);
}
