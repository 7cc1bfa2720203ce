//! Multicast DNS between two network namespaces of this machine, which the test makes.
//!
//! The test runs itself again in each of them, with `DISCOVERY_ROLE` saying as what.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by them"
)]

use std::{
    env,
    io::{BufRead, BufReader, Write},
    net::IpAddr,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use appliance::vm::{
    Config, Discovery, Pairer, Pairing,
    diagnosis::{Finding, State},
    discovery::Found,
};
use mdns_sd::{DaemonEvent, IfKind, ServiceDaemon, ServiceInfo};
use protocol::line::{DEFAULT_GRACE_SECONDS, PROTOCOL, PiHello};

const CEILING: Duration = Duration::from_mins(1);
const ROLE: &str = "DISCOVERY_ROLE";
const TEST: &str = "machines_are_found_and_a_second_pi_gets_another_name";

/// This test again, in a network of its own.
fn again(role: &str) -> Command {
    let mut command = Command::new("unshare");
    command
        .arg("--net")
        .arg(env::current_exe().unwrap())
        .args(["--exact", TEST, "--nocapture"])
        .env(ROLE, role);
    command
}

fn ip(words: &str) {
    let status = Command::new("ip").args(words.split(' ')).status();
    assert!(
        status.expect("ip runs (package iproute2)").success(),
        "ip {words}"
    );
}

/// Ends with the test that started it.
struct Peer(Child);

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn machines_are_found_and_a_second_pi_gets_another_name() {
    match env::var(ROLE).as_deref() {
        Ok("pi") => pi(),
        Ok("peer") => peer(),
        _ => {
            let status = again("pi").status();
            assert!(
                status.expect("unshare runs (package util-linux)").success(),
                "it needs root"
            );
        }
    }
}

/// The other machine: a Pi that was there first, a VM, and one that means no good.
fn peer() {
    println!("waiting for the wire");
    std::io::stdin().read_line(&mut String::new()).unwrap();
    ip("link set lo up");
    ip("addr add 10.77.0.2/24 dev wire1");
    ip("link set wire1 up");
    let daemon = ServiceDaemon::new().unwrap();
    daemon
        .disable_interface(vec![IfKind::LoopbackV4, IfKind::LoopbackV6])
        .unwrap();
    let monitor = daemon.monitor().unwrap();
    let announce = |kind: &str, name: &str, host: &str, port: u16, txt: &[(&str, &str)]| {
        let service = ServiceInfo::new(kind, name, host, "", port, txt).unwrap();
        daemon.register(service.enable_addr_auto()).unwrap();
    };
    announce(
        "_http._tcp.local.",
        "usbip-pi",
        "usbip-pi.local.",
        8080,
        &[],
    );
    let txt = [("user", "builder"), ("version", "0.1.0")];
    announce(
        "_usbip-vm._tcp.local.",
        "build-vm",
        "build-vm.local.",
        22,
        &txt,
    );
    let txt = [("user", "-oProxyCommand=x"), ("version", "<b>")];
    let hostile = "<script>alert(1)</script>";
    announce("_ssh._tcp.local.", hostile, "evil.local.", 22, &txt);
    announce("_ssh._tcp.local.", "build-vm", "build-vm.local.", 22, &[]);
    let mut announced = 0;
    while announced < 4 {
        if let DaemonEvent::Announce(..) = monitor.recv_timeout(CEILING).unwrap() {
            announced += 1;
        }
    }
    println!("announced");
    // Until the test ends it.
    for event in &monitor {
        drop(event);
    }
}

#[tokio::main(flavor = "current_thread")]
async fn pi() {
    let mut child = again("peer")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut stdin = child.stdin.take().unwrap();
    let child = Peer(child);
    let mut until = |text: &str| {
        let found = lines
            .by_ref()
            .map(Result::unwrap)
            .any(|line| line.contains(text));
        assert!(found, "{text}");
    };
    until("waiting for the wire");
    ip("link set lo up");
    ip(&format!(
        "link add wire0 type veth peer name wire1 netns {}",
        child.0.id()
    ));
    // Without an address: what comes later is found as well.
    ip("link set wire0 addrgenmode none");
    ip("link set wire0 up");
    let discovery = Discovery::start("usbip-pi".into(), 8080);
    stdin.write_all(b"\n").unwrap();
    until("announced");
    ip("addr add 10.77.0.1/24 dev wire0");

    let mut changes = discovery.changes();
    let began = Instant::now();
    let wanted = |found: &[Found]| found.iter().any(|found| found.helper.is_some());
    while !wanted(&discovery.found()) || discovery.name().as_deref() != Some("usbip-pi-2.local") {
        assert!(
            began.elapsed() < CEILING,
            "{:?} {:?}",
            discovery.name(),
            discovery.found()
        );
        discovery.look();
        let _ = tokio::time::timeout(Duration::from_millis(200), changes.changed()).await;
    }
    // One address, one machine: what has the helper counts.
    let found = discovery.found();
    assert_eq!(
        found,
        [Found {
            name: "build-vm".into(),
            host: "10.77.0.2".into(),
            user: "builder".into(),
            helper: Some("0.1.0".into()),
        }]
    );

    // Its name is one that only multicast DNS knows.
    let address: IpAddr = "10.77.0.2".parse().unwrap();
    assert_eq!(discovery.resolve("Build-VM.local").await, [address]);
    for other in ["nobody.local", "build-vm"] {
        assert!(discovery.resolve(other).await.is_empty(), "{other}");
    }
    let name = tested(&discovery, "build-vm.local").await;
    assert_eq!(name.sentence, "build-vm.local stands for 10.77.0.2");
    let name = tested(&discovery, "nobody.local").await;
    assert_eq!(name.state, State::Failed);
    assert!(
        name.sentence.contains("no machine on the local network"),
        "{name:?}"
    );
}

/// What a test of the connection says of a VM's name.
async fn tested(discovery: &Discovery, host: &str) -> Finding {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::new(PiHello {
        protocol: PROTOCOL,
        version: "0.1.0".into(),
        boot_id: "b".into(),
        grace_seconds: DEFAULT_GRACE_SECONDS,
        gives_next: false,
    });
    config.vm_conf = dir.path().join("vm.conf");
    config.ssh_dir = dir.path().join("ssh");
    config.control_dir = dir.path().join("c");
    config.discovery = discovery.clone();
    let diagnoses = Pairer::new(config, Arc::new(|| {})).diagnoses;
    let target = Pairing {
        host: host.into(),
        user: "dev".into(),
    };
    let mut news = diagnoses.news();
    diagnoses.start(target.clone()).unwrap();
    loop {
        let report = diagnoses.latest(&target).unwrap();
        if report.done {
            let mut findings = report.findings.iter();
            return findings.find(|one| one.id == "name").unwrap().clone();
        }
        news.changed().await.unwrap();
    }
}
