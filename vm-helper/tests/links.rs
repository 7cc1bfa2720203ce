//! The links under the names that people gave devices.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

mod play;

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
};

use play::{Machine, Pi, device};
use protocol::line::{Answer, Named, Request};
use vm_helper::{attach::Vm, handler, links};

const PI_BOOT: &str = "22222222-0000-4000-8000-000000000002";

/// Where each link leads, by name.
fn links_of(machine: &Machine) -> Vec<(String, String)> {
    let Ok(entries) = fs::read_dir(machine.root.path("/dev/usb-pi")) else {
        return Vec::new();
    };
    let mut found: Vec<_> = entries
        .map(|entry| {
            let entry = entry.unwrap();
            let target = fs::read_link(entry.path()).unwrap();
            let name = entry.file_name().into_string().unwrap();
            (name, target.to_str().unwrap().to_owned())
        })
        .collect();
    found.sort();
    found
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected
        .iter()
        .map(|(name, target)| ((*name).to_owned(), (*target).to_owned()))
        .collect()
}

fn named(words: &[&str]) -> Vec<Named> {
    words.iter().map(|word| word.parse().unwrap()).collect()
}

fn bed(devices: &[(&str, u16)]) -> (Machine, Pi, Vm) {
    let machine = Machine::new();
    fs::create_dir_all(machine.root.path("/dev")).unwrap();
    let pi = Pi::with(devices.iter().map(|(b, n)| device(b, *n)).collect());
    let mut vm = machine.vm(&pi);
    vm.pi_boot_id = Some(PI_BOOT.into());
    (machine, pi, vm)
}

fn ask(vm: &Vm, line: &str) -> Answer {
    let request: Request = line.parse().unwrap();
    handler::answer(vm, &request).answer
}

#[test]
fn a_name_becomes_a_link_whichever_comes_first() {
    let (machine, _pi, vm) = bed(&[("1-1.1", 4), ("1-1.2", 5)]);
    ask(&vm, "connect 1-1.1 00010004");
    assert_eq!(links_of(&machine), []);
    let told = "aliases 1-1.1,00010004,board 1-1.2,00010005,sensor 1-1.3,00010006,not-here";
    assert_eq!(ask(&vm, told), Answer::Linked {});
    assert_eq!(links_of(&machine), pairs(&[("board", "../ttyUSB0")]));
    ask(&vm, "connect 1-1.2 00010005");
    let both = pairs(&[("board", "../ttyUSB0"), ("sensor", "../ttyUSB1")]);
    assert_eq!(links_of(&machine), both);
    let dir = fs::metadata(machine.root.path("/dev/usb-pi")).unwrap();
    assert_eq!(dir.permissions().mode() & 0o022, 0);

    // A new name takes the place of the old one; a detached device has none.
    ask(&vm, "aliases 1-1.1,00010004,probe 1-1.2,00010005,sensor");
    ask(&vm, "disconnect 1-1.2");
    assert_eq!(links_of(&machine), pairs(&[("probe", "../ttyUSB0")]));
    ask(&vm, "aliases");
    assert!(!machine.root.path("/dev/usb-pi").exists());
}

#[test]
fn each_tty_of_a_device_has_a_link() {
    let (machine, _pi, vm) = bed(&[("1-1.1", 4)]);
    ask(&vm, "connect 1-1.1");
    // A second interface with its tty.
    let interface = "/sys/bus/usb/devices/3-1/3-1:1.1";
    let tty = machine
        .root
        .path(&format!("{interface}/ttyUSB7/tty/ttyUSB7"));
    fs::create_dir_all(tty).unwrap();
    let driver = machine.root.path(&format!("{interface}/driver"));
    symlink("../drivers/ftdi_sio", driver).unwrap();
    links::told(&vm, &named(&["1-1.1,00010004,jtag"])).unwrap();
    let both = pairs(&[("jtag", "../ttyUSB0"), ("jtag-1", "../ttyUSB7")]);
    assert_eq!(links_of(&machine), both);
}

#[test]
fn what_is_plugged_in_later_does_not_inherit_the_name() {
    let (machine, pi, vm) = bed(&[("1-1.1", 4)]);
    ask(&vm, "connect 1-1.1 00010004");
    ask(&vm, "aliases 1-1.1,00010004,board");
    pi.devices.lock().unwrap()[0] = device("1-1.1", 6);
    ask(&vm, "connect 1-1.1 00010006");
    assert_eq!(links_of(&machine), []);
}

#[test]
fn another_boot_of_the_pi_ends_its_names() {
    let (machine, _pi, mut vm) = bed(&[("1-1.1", 4)]);
    ask(&vm, "connect 1-1.1 00010004");
    ask(&vm, "aliases 1-1.1,00010004,board");
    assert_eq!(links_of(&machine).len(), 1);
    let boot = "33333333-0000-4000-8000-000000000003";
    vm.pi_boot_id = Some(boot.into());
    ask(
        &vm,
        &format!("hello protocol=1 version=0.1.0 boot={boot} grace=30"),
    );
    assert_eq!(links_of(&machine), []);
    // The devid of the new boot's device is the same by chance.
    ask(&vm, "connect 1-1.1 00010004");
    assert_eq!(links_of(&machine), []);
}

#[test]
fn a_name_does_not_outlive_its_tty() {
    let (machine, _pi, vm) = bed(&[("1-1.1", 4)]);
    ask(&vm, "connect 1-1.1 00010004");
    ask(&vm, "aliases 1-1.1,00010004,board");
    // As udev's rule does when the tty has gone, without a word from the Pi.
    let interface = "/sys/bus/usb/devices/3-1/3-1:1.0/ttyUSB0";
    fs::remove_dir_all(machine.root.path(interface)).unwrap();
    links::refresh(&vm).unwrap();
    assert_eq!(links_of(&machine), []);
}

#[test]
fn nothing_outside_the_folder_is_touched() {
    let (machine, _pi, vm) = bed(&[("1-1.1", 4)]);
    ask(&vm, "connect 1-1.1 00010004");
    let elsewhere = machine.root.path("/home");
    fs::create_dir_all(&elsewhere).unwrap();
    fs::write(elsewhere.join("precious"), "").unwrap();
    symlink(&elsewhere, machine.root.path("/dev/usb-pi")).unwrap();
    let answer = ask(&vm, "aliases 1-1.1,00010004,board");
    assert!(matches!(answer, Answer::Error(_)), "{answer:?}");
    assert!(elsewhere.join("precious").exists());
    assert!(!elsewhere.join("board").exists());
    // Attaching works all the same.
    ask(&vm, "disconnect 1-1.1");
    assert!(matches!(ask(&vm, "connect 1-1.1"), Answer::Attached(_)));
}

#[test]
fn damaged_words_of_the_pi_are_no_words() {
    let (machine, _pi, vm) = bed(&[("1-1.1", 4)]);
    ask(&vm, "connect 1-1.1 00010004");
    ask(&vm, "aliases 1-1.1,00010004,board");
    let file = machine.root.path("/run/usbip-vm/aliases");
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains("board"));
    fs::write(&file, text.replace("board", "../../etc/passwd")).unwrap();
    links::refresh(&vm).unwrap();
    assert_eq!(links_of(&machine), []);
}
