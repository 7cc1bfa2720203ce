//! The machinery itself: two guests, a device of QEMU's own, and the stock tools between them.
//!
//! Needs root, QEMU and a minute; runs in a group of its own.

#![expect(clippy::unwrap_used, reason = "a test ends where something fails")]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use testbed::agent::Transfer;
use testbed::pair::{Options, Pair};
use testbed::pattern;
use testbed::redir::Kind;
use testbed::usb::What;

const BYTES: usize = 128 << 10;

/// Plays the far end of the wire: sends a pattern, collects as much.
fn far_end(mut wire: UnixStream) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        wire.set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        let mut out = wire.try_clone().unwrap();
        let sender = thread::spawn(move || out.write_all(&pattern::bytes(2, BYTES)).unwrap());
        let mut got = vec![0; BYTES];
        wire.read_exact(&mut got).unwrap();
        sender.join().unwrap();
        got
    })
}

fn attach_and_transfer(pair: &Pair, number: u32, busid: &str) {
    let node = format!("/sys/bus/usb/devices/{busid}");
    pair.pi
        .wait_until(&format!(
            "[ \"$(basename $(readlink {node}/driver))\" = usb ]"
        ))
        .unwrap();
    pair.pi.check(&format!("usbip bind -b {busid}")).unwrap();
    pair.vm.check("modprobe vhci_hcd").unwrap();
    pair.vm
        .check(&format!("usbip attach -r 10.9.0.1 -b {busid}"))
        .unwrap();
    let tty = pair.vm.wait_until("ls /dev/serial/by-id/*").unwrap();

    let tty = pair.vm.open_tty(&tty, 921_600).unwrap();
    let far_end = far_end(pair.pi.stream(number).unwrap());
    let transfer = Transfer {
        seed: 1,
        send: BYTES,
        receive: BYTES,
        idle_ms: 10_000,
    };
    let result = tty.transfer(transfer, Duration::from_secs(90)).unwrap();
    assert_eq!(result.failure, None);
    assert_eq!(
        result.received_sha256,
        pattern::sha256(&pattern::bytes(2, BYTES))
    );
    assert_eq!(
        pattern::sha256(&far_end.join().unwrap()),
        pattern::sha256(&pattern::bytes(1, BYTES))
    );
    eprintln!("{BYTES} bytes both ways in {:.2} s", result.seconds);
}

#[test]
fn a_device_passes_bytes_through_both_machines_before_and_after_reboots() {
    let begin = Instant::now();
    let step = |what: &str| eprintln!("{:6.2} s  {what}", begin.elapsed().as_secs_f64());
    let pair = Pair::start(&Options::default(), &|line| step(line)).unwrap();
    step("both are up");

    assert_eq!(pair.pi.check("cat /proc/1/comm").unwrap(), "init");
    assert_eq!(pair.vm.check("cat /proc/1/comm").unwrap(), "systemd");
    pair.vm.wait_until("ping -c 1 -W 1 10.9.0.1").unwrap();

    // The kernel's log is dated by this host's clock.
    let clock = pair.pi.clock().unwrap();
    let plug = Instant::now();
    let number = pair
        .pi
        .plug(What::QemuSerial, Some("3"), Some("TB0001"))
        .unwrap();
    pair.pi
        .wait_until("[ -e /sys/bus/usb/devices/1-3/idVendor ]")
        .unwrap();
    let log = pair.pi.kernel_log(&clock, plug).unwrap();
    let seen = log
        .iter()
        .find(|line| line.text.contains("usb 1-3: new full-speed"))
        .unwrap();
    assert!(seen.at > plug && seen.at < Instant::now(), "{seen:?}");
    step("the Pi has seen the device");

    pair.pi.check("usbipd -D").unwrap();
    attach_and_transfer(&pair, number, "1-3");
    step("bytes passed");

    pair.cut().unwrap();
    assert_ne!(pair.vm.sh("ping -c 1 -W 1 10.9.0.1").unwrap().code, Some(0));
    pair.uncut().unwrap();
    pair.vm.wait_until("ping -c 1 -W 1 10.9.0.1").unwrap();
    step("cut and uncut");

    let boot_id = "cat /proc/sys/kernel/random/boot_id";
    let before = pair.vm.check(boot_id).unwrap();
    pair.vm.check("echo kept >/root/kept && sync").unwrap();
    pair.pi.check("echo kept >/data/kept && sync").unwrap();
    thread::scope(|scope| {
        let pi = scope.spawn(|| pair.pi.reboot());
        pair.vm.kill();
        pair.vm.boot().unwrap();
        pi.join().unwrap().unwrap();
    });
    step("the Pi rebooted, the VM killed and back");
    assert_ne!(pair.vm.check(boot_id).unwrap(), before);
    assert_eq!(pair.vm.check("cat /root/kept").unwrap(), "kept");
    assert_eq!(pair.pi.check("cat /data/kept").unwrap(), "kept");

    pair.pi.check("usbipd -D").unwrap();
    attach_and_transfer(&pair, number, "1-3");
    step("bytes passed again");

    // With a hub go the devices in it, and all of its ports can be used again.
    for _ in 0..2 {
        let hub = pair.pi.plug(What::QemuHub, Some("15"), None).unwrap();
        pair.pi
            .plug(Kind::Cp2102, Some("15.2"), Some("0042"))
            .unwrap();
        let serial = "cat /sys/bus/usb/devices/1-15.2/serial";
        assert_eq!(pair.pi.wait_until(serial).unwrap(), "0042");
        pair.pi.unplug(hub).unwrap();
        pair.pi
            .wait_until("! [ -e /sys/bus/usb/devices/1-15.2 ]")
            .unwrap();
    }
    // A port that has held a played device takes one of QEMU's own.
    let played = pair.pi.plug(Kind::Cp2102, Some("4"), None).unwrap();
    pair.pi.unplug(played).unwrap();
    pair.pi.plug(What::QemuKeyboard, Some("4"), None).unwrap();
    step("hubs and sockets");

    pair.pi.unplug(number).unwrap();
    pair.vm.wait_until("! ls /dev/ttyUSB*").unwrap();
    step("unplugged");
}
