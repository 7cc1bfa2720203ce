//! A VM that is gone without a word and comes back, in a network namespace of its own.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    os::fd::AsFd,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use protocol::wire::{Device, Header, Request};

use crate::{
    host::{Host, busid},
    rig::{CEILING, Rig, exports, request},
};

const OURS: &str = "198.51.100.217";
const VM: &str = "198.51.100.218";

/// A machine next to ours. Dropping it is a power cut.
struct Machine(String);

impl Machine {
    /// `None` where network namespaces may not be made.
    fn boot() -> Option<Self> {
        let name = format!("usbipd-{}", std::process::id());
        let (near, far) = (format!("ud{}", std::process::id()), "uplink");
        let machine = Self(name.clone());
        ip(&["netns", "add", &name]).then_some(())?;
        let up = [
            vec![
                "link", "add", &near, "type", "veth", "peer", "name", far, "netns", &name,
            ],
            vec!["address", "add", OURS, "peer", VM, "dev", &near],
            vec!["link", "set", &near, "up"],
            vec![
                "-n",
                &name,
                "link",
                "set",
                far,
                "address",
                "02:00:00:00:00:d9",
            ],
            vec!["-n", &name, "address", "add", VM, "peer", OURS, "dev", far],
            vec!["-n", &name, "link", "set", far, "up"],
        ];
        up.iter().all(|args| ip(args)).then_some(machine)
    }

    fn cut(&self) {
        ip(&["-n", &self.0, "link", "set", "uplink", "down"]);
    }

    /// Run on that machine.
    fn run<T: Send + 'static>(&self, act: impl FnOnce() -> T + Send + 'static) -> T {
        let namespace = std::fs::File::open(format!("/run/netns/{}", self.0)).unwrap();
        let task = thread::spawn(move || {
            rustix::thread::move_into_link_name_space(
                namespace.as_fd(),
                Some(rustix::thread::LinkNameSpaceType::Network),
            )
            .unwrap();
            act()
        });
        task.join().unwrap()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let near = format!("ud{}", std::process::id());
        ip(&["link", "delete", &near]);
        ip(&["netns", "delete", &self.0]);
    }
}

fn ip(args: &[&str]) -> bool {
    let output = Command::new("ip").args(args).output();
    output.is_ok_and(|output| output.status.success())
}

fn connect(addr: SocketAddr) -> TcpStream {
    let start = Instant::now();
    loop {
        match TcpStream::connect_timeout(&addr, Duration::from_secs(1)) {
            Ok(stream) => {
                stream.set_read_timeout(Some(CEILING)).unwrap();
                return stream;
            }
            Err(error) => assert!(start.elapsed() < CEILING, "{error}"),
        }
        thread::sleep(Duration::from_millis(20));
    }
}

fn import(addr: SocketAddr) -> (TcpStream, u8) {
    let mut stream = connect(addr);
    stream.write_all(&request("1-1")).unwrap();
    let mut reply = [0; Header::SIZE];
    stream.read_exact(&mut reply).unwrap();
    (stream, reply[7])
}

fn listed(addr: SocketAddr) -> usize {
    let mut stream = connect(addr);
    stream.write_all(&Request::Devlist.encode()).unwrap();
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).unwrap();
    (reply.len() - 12) / Device::SIZE
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_vm_takes_its_devices_back_long_before_the_grace_is_over() {
    let Some(machine) = Machine::boot() else {
        eprintln!("SKIPPED: network namespaces need root and iproute2");
        return;
    };
    let mut exports = exports(&["1-1"]);
    exports.peers = [VM.parse().unwrap()].into();
    exports.grace = Duration::from_mins(5);
    let mut rig = Rig::with(Host::new(&["1-1"]), exports, 64);
    let addr = SocketAddr::new(OURS.parse().unwrap(), rig.addr.port());

    let (old, status) = machine.run(move || import(addr));
    assert_eq!(status, 0);
    rig.event().await;
    // The probe goes out at once only to a peer that has been silent for a second.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    machine.cut();
    drop(old);
    drop(machine);
    assert_eq!(rig.handle.sessions().len(), 1);

    let machine = Machine::boot().unwrap();
    // First as the helper does at boot: the list names the device although it seems to be in use.
    let start = Instant::now();
    assert_eq!(machine.run(move || listed(addr)), 1);
    let (_new, status) = machine.run(move || import(addr));
    assert_eq!(status, 0);
    let took = start.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(
        [rig.event().await, rig.event().await].map(|event| format!("{event:?}")),
        [
            "HungUp { busid: 1-1, devid: 00010004 }".to_owned(),
            format!("Imported {{ busid: 1-1, devid: 00010004, peer: {VM} }}"),
        ]
    );
    assert_eq!(rig.handle.sessions()[0].busid, busid("1-1"));
}
