//! The card as a person would have it after flashing: its first start with power cuts, what the box does and does not
//! let in, a wrong `usbip-pi.toml`, a card that can no longer be written, a hang.
//!
//! One test, since each act goes on with the card that the one before has left; in a group of its own.

#![expect(clippy::unwrap_used, reason = "a test ends where something fails")]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use testbed::card::{Card, CardBox, Stage};
use testbed::machine::Machine;
use testbed::trial::{artefact, wait_until};
use testbed::usb::What;

const PORTAL: u16 = 8080;
const USBIP: u16 = 3240;
/// Nobody may reach this one.
const CLOSED: u16 = 9999;
/// The box promises 20 s; the rest is for this host.
const LONGEST_HANG: Duration = Duration::from_mins(1);

/// What a server behind a forwarded port answers within some seconds; nothing when it does not.
fn answer(port: u16, request: &[u8]) -> Vec<u8> {
    let ask = || {
        let mut socket = TcpStream::connect(("127.0.0.1", port))?;
        socket.set_read_timeout(Some(Duration::from_secs(10)))?;
        socket.write_all(request)?;
        let mut bytes = vec![0; 4096];
        let length = socket.read(&mut bytes)?;
        bytes.truncate(length);
        std::io::Result::Ok(bytes)
    };
    ask().unwrap_or_default()
}

fn portal_answers(port: u16) -> Result<(), String> {
    let request = b"GET /healthz HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n";
    let answer = String::from_utf8_lossy(&answer(port, request)).into_owned();
    if answer.contains(" 200 ") {
        Ok(())
    } else {
        Err(answer)
    }
}

/// Starts the box and takes its power away when the first start has come to `stage`.
fn cut_at(card: &CardBox, stage: Stage) {
    card.machine.power_on().unwrap();
    wait_until("the first start", || match card.stage() {
        Ok(now) if now >= stage => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .unwrap();
    card.machine.kill();
}

/// The message about the file that [`WRONG`] is.
const TOLD: &str = "usbip-pi.toml, network.address";
/// A settings file with one mistake in it.
const WRONG: &str = "hostname = \"bench\"\n[network]\naddress = \"10.0.2.15\"\n";
/// One without.
const RIGHT: &str = "hostname = \"bench\"\n[vm]\nhost = \"10.0.2.77\"\n";

#[test]
fn a_flashed_card_becomes_a_box_that_keeps_its_word() {
    let begin = Instant::now();
    let step = |what: &str| eprintln!("{:6.2} s  {what}", begin.elapsed().as_secs_f64());
    let parts = Card::ready(&|line| step(line)).unwrap();
    let appliance = artefact::appliance().unwrap();
    let card = CardBox::flash(parts, &appliance, &[PORTAL, USBIP, CLOSED]).unwrap();
    let [portal, usbip, closed] = card.ports[..] else {
        unreachable!()
    };
    let pi = &card.machine;
    assert_eq!(card.stage().unwrap(), Stage::Flashed);
    card.put("usbip-pi.toml", WRONG).unwrap();
    step("flashed, with a wrong settings file");

    for stage in [Stage::Grown, Stage::Formatted, Stage::Made] {
        cut_at(&card, stage);
        step(&format!("power cut at {stage:?}"));
    }
    pi.boot().unwrap();
    assert_eq!(card.stage().unwrap(), Stage::Made);
    only_data_can_be_written(pi);
    step("the root is read-only, /data is grown");

    wait_until("the portal", || portal_answers(portal)).unwrap();
    let year: u32 = pi.check("date -u +%Y").unwrap().parse().unwrap();
    assert!(year >= 2025, "the clock says {year}");
    step("the portal answers, the clock is not before the image");

    a_wrong_file_is_told(&card);
    step("the wrong file is told on the screen and has changed nothing");

    only_what_is_meant_to_be_open_is(pi, usbip, closed);
    step("nobody logs in, and the firewall lets in what it should");

    // A device is bound, also when the card cannot be written any more.
    plug(pi, "3");
    pi.check("mount -o remount,abort /data; ! touch /data/x")
        .unwrap();
    plug(pi, "4");
    portal_answers(portal).unwrap();
    step("a card that turned read-only costs no device");

    // The watchdog restarts a box whose appliance hangs; QEMU ends where the box would start anew.
    let hung = Instant::now();
    pi.check("killall -STOP appliance").unwrap();
    while pi.is_on() {
        assert!(hung.elapsed() < LONGEST_HANG, "the box is still on");
        thread::sleep(Duration::from_millis(100));
    }
    let seconds = hung.elapsed().as_secs_f64();
    step(&format!("restarted {seconds:.1} s after the hang"));
    pi.kill();

    card.put("usbip-pi.toml", RIGHT).unwrap();
    pi.boot().unwrap();
    assert_eq!(pi.check("hostname").unwrap(), "bench");
    let record = pi.check("cat /etc/usbip/vm.conf").unwrap();
    assert!(record.contains("VM_HOST=10.0.2.77"), "{record}");
    assert!(!pi.check("dmesg").unwrap().contains(TOLD));
    wait_until("the portal", || portal_answers(portal)).unwrap();
    wait_until("the name on the screen", || {
        let screen = card.screen().map_err(|error| error.to_string())?;
        let named = screen.contains("http://10.0.2.15:8080 or http://bench.local:8080");
        if named { Ok(()) } else { Err(screen) }
    })
    .unwrap();
    step("the file put right is used");

    the_cable_may_lead_elsewhere(pi);
    wait_until("the portal", || portal_answers(portal)).unwrap();
    step("a lease is asked for anew when the cable was pulled, and the address stays meanwhile");
}

/// Pulls the cable and plugs it in again.
fn the_cable_may_lead_elsewhere(pi: &Machine) {
    let address = "ip -4 addr show dev eth0 | grep -F 10.0.2.15";
    let client = "pidof udhcpc";
    let cable = |up: bool| {
        let to = serde_json::json!({ "name": "door", "up": up });
        pi.qmp("set_link", &to).unwrap();
    };
    pi.wait_until(address).unwrap();
    let before = pi.check(client).unwrap();
    cable(false);
    pi.wait_until("grep -q 0 /sys/class/net/eth0/carrier")
        .unwrap();
    // Longer than it is looked at.
    thread::sleep(Duration::from_secs(3));
    assert_eq!(pi.check(client).unwrap(), before);
    cable(true);
    pi.wait_until(&format!(
        "[ -n \"$({client})\" ] && [ \"$({client})\" != {before} ]"
    ))
    .unwrap();
    for _ in 0..20 {
        pi.check(address).unwrap();
        thread::sleep(Duration::from_millis(100));
    }
    pi.check("[ ! -e /run/keep-address ]").unwrap();
}

fn only_data_can_be_written(pi: &Machine) {
    let mount = |place: &str| pi.check(&format!("grep ' {place} ' /proc/mounts")).unwrap();
    let data = mount("/data");
    assert!(
        data.starts_with("/dev/vda7 /data ext4 rw,noatime"),
        "{data}"
    );
    let size = pi.check("df -k /data | awk 'END { print $2 }'").unwrap();
    let kib: u64 = size.parse().unwrap();
    assert!(kib > 150 << 10, "/data has {kib} KiB");
    let root = mount("/");
    assert!(root.contains("squashfs ro"), "{root}");
    assert_ne!(pi.sh("touch /etc/x").unwrap().code, Some(0));
    for memory in ["/var", "/tmp", "/run"] {
        let mount = mount(memory);
        assert!(mount.starts_with("tmpfs"), "{mount}");
    }
}

fn a_wrong_file_is_told(card: &CardBox) {
    let pi = &card.machine;
    assert_eq!(pi.check("hostname").unwrap(), "usbip-pi");
    assert_ne!(pi.sh("ls /data/network").unwrap().code, Some(0));
    assert!(pi.check("dmesg").unwrap().contains(TOLD));
    wait_until("the screen", || {
        let screen = card.screen().map_err(|error| error.to_string())?;
        let whole = screen.contains(TOLD) && screen.contains("http://10.0.2.15:8080");
        if whole { Ok(()) } else { Err(screen) }
    })
    .unwrap();
}

fn only_what_is_meant_to_be_open_is(pi: &Machine, usbip: u16, closed: u16) {
    let programs = pi.check("ps").unwrap();
    for program in ["getty", "login", "sshd", "telnetd"] {
        assert!(!programs.contains(program), "{programs}");
    }
    pi.start("while :; do echo open | nc -l -p 9999; done", None)
        .unwrap();
    pi.wait_until("netstat -ltn | grep -q :9999").unwrap();
    assert_eq!(answer(closed, b""), b"");
    pi.check("nft add rule inet box input tcp dport 9999 accept")
        .unwrap();
    assert_eq!(answer(closed, b""), b"open\n");
    // A stranger reaches the appliance, which answers or says whom it refused.
    wait_until("usbipd", || {
        let devlist = [1, 17, 128, 5, 0, 0, 0, 0];
        let answered = !answer(usbip, &devlist).is_empty();
        let log = pi.check("dmesg").map_err(|error| error.to_string())?;
        let reached = answered || log.contains("refused peer=");
        if reached { Ok(()) } else { Err(log) }
    })
    .unwrap();
}

/// Plugs a serial device in and waits until it is exported.
fn plug(pi: &Machine, port: &str) {
    pi.plug(What::QemuSerial, Some(port), Some(&format!("TB000{port}")))
        .unwrap();
    pi.wait_until(&format!(
        "[ \"$(basename $(readlink /sys/bus/usb/devices/1-{port}/driver))\" = usbip-host ]"
    ))
    .unwrap();
}
