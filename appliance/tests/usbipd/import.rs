//! Requests of the paired VM and their replies.

use std::time::Duration;

use appliance::{
    usb::StubStatus,
    usbipd::{BindError, Event, Exports, RefusedImport, bind},
};
use protocol::{
    DevId,
    wire::{Device, Header, Request, Status},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    host::{Host, busid, device},
    rig::{
        CEILING, Rig, VM, VM_TOO, busy, echoes, exports, hung_up, imported, refusal, request,
        to_end,
    },
};

/// A CP2102 at 1-1 as `usbip_usb_device`, by the layout of the kernel's documentation.
fn golden(name: &str, devnum: u8) -> Vec<u8> {
    let mut bytes = format!("/sys/bus/usb/devices/{name}").into_bytes();
    bytes.resize(256, 0);
    bytes.extend(name.as_bytes());
    bytes.resize(256 + 32, 0);
    bytes.extend([0, 0, 0, 1, 0, 0, 0, devnum, 0, 0, 0, 2]);
    bytes.extend([0x10, 0xc4, 0xea, 0x60, 0x01, 0x00]);
    bytes.extend([0, 0, 0, 1, 1, 1]);
    bytes
}

#[tokio::test]
async fn a_device_list_is_byte_exact_and_names_what_may_be_imported() {
    let host = Host::new(&["1-1", "1-2", "1-3", "1-4", "1-5", "1-6"]);
    host.set_status("1-3", Some(StubStatus::Error));
    host.set_status("1-4", None);
    let mut rig = Rig::with(host, exports(&["1-1", "1-2", "1-3", "1-4", "1-5"]), 64);
    let (_session, _) = rig.import("1-5").await;
    assert_eq!(rig.event().await, imported("1-5"));

    let mut stream = rig.connect(VM_TOO).await;
    stream.write_all(&Request::Devlist.encode()).await.unwrap();
    let mut expected = vec![0x01, 0x11, 0x00, 0x05, 0, 0, 0, 0, 0, 0, 0, 2];
    for (name, devnum) in [("1-1", 4), ("1-2", 5)] {
        expected.extend(golden(name, devnum));
        expected.extend([0xff, 0, 0, 0]);
    }
    assert_eq!(to_end(&mut stream).await.unwrap(), expected);
}

/// Exports with these on their way.
fn coming(names: &[&str]) -> Exports {
    let fresh = names
        .iter()
        .map(|name| (busid(name), device(name).on_the_wire()));
    Exports {
        fresh: fresh.collect(),
        ..exports(&[])
    }
}

#[tokio::test]
async fn a_device_that_is_being_bound_is_granted_at_once_and_given_when_it_is_bound() {
    let host = Host::new(&["1-1"]);
    host.set_status("1-1", None);
    let mut now = coming(&["1-1"]);
    let mut rig = Rig::with(host, now.clone(), 64);
    let (mut session, reply) = rig.import("1-1").await;
    assert_eq!(reply[8..], golden("1-1", 4));
    assert!(rig.handle.sessions().is_empty());
    // What the importer's kernel asks meanwhile is not lost.
    session.write_all(b"first URB").await.unwrap();
    // Nobody else gets it.
    assert_eq!(rig.refused("1-1").await, Status::DeviceBusy);
    assert_eq!(
        rig.event().await,
        refusal(VM, RefusedImport::Busy(busid("1-1")))
    );

    rig.host.set_status("1-1", Some(StubStatus::Available));
    now.devices = exports(&["1-1"]).devices;
    rig.exports.send_replace(now);
    assert_eq!(rig.event().await, imported("1-1"));
    let mut echoed = [0; 9];
    let read = timeout(CEILING, session.read_exact(&mut echoed));
    read.await.unwrap().unwrap();
    assert_eq!(&echoed, b"first URB");
}

#[tokio::test]
async fn what_was_granted_and_cannot_be_had_is_reset() {
    let host = Host::new(&["1-1", "1-2", "1-3"]);
    for name in ["1-1", "1-2", "1-3"] {
        host.set_status(name, None);
    }
    let mut now = coming(&["1-1", "1-2", "1-3"]);
    let mut rig = Rig::with(host, now.clone(), 64);
    let (mut gone, _) = rig.import("1-1").await;
    let (mut broken, _) = rig.import("1-2").await;
    let (mut replugged, _) = rig.import("1-3").await;

    // Could not be bound.
    now.fresh.remove(&busid("1-1"));
    rig.exports.send_replace(now.clone());
    assert!(to_end(&mut gone).await.is_err());
    let reason = RefusedImport::NotExported(busid("1-1"));
    assert_eq!(rig.event().await, refusal(VM, reason));

    // Is bound, by what the manager knows, and not to be had.
    rig.host.set_status("1-2", Some(StubStatus::Error));
    now.devices = exports(&["1-2"]).devices;
    rig.exports.send_replace(now.clone());
    assert!(to_end(&mut broken).await.is_err());
    assert!(refused_by_the_kernel(&rig.event().await));

    // Another one by now, which the importer was not told of.
    let mut other = device("1-3");
    other.devid = DevId::new(1, 77);
    rig.host.plug(other);
    now.devices = exports(&["1-3"]).devices;
    rig.exports.send_replace(now);
    assert!(to_end(&mut replugged).await.is_err());
    assert!(refused_by_the_kernel(&rig.event().await));
    assert!(rig.handle.sessions().is_empty());
}

/// A connection of the VM on which it waits for the next new device.
async fn waiting(rig: &Rig) -> TcpStream {
    let mut stream = rig.connect(VM).await;
    stream.write_all(&Request::Next.encode()).await.unwrap();
    stream
}

/// Whether nothing has come on a connection, nor its end.
async fn is_quiet(stream: &TcpStream) -> bool {
    let mut byte = [0];
    let heard = timeout(Duration::from_millis(300), stream.peek(&mut byte));
    heard.await.is_err()
}

#[tokio::test]
async fn who_waits_is_given_a_new_device_before_it_asks() {
    let host = Host::new(&["1-1", "1-2"]);
    host.set_status("1-1", None);
    let now = Exports {
        devices: exports(&["1-2"]).devices,
        ..coming(&["1-1"])
    };
    let mut rig = Rig::with(host, now, 64);
    let mut replaced = waiting(&rig).await;
    assert!(is_quiet(&replaced).await);
    let mut waits = waiting(&rig).await;
    assert_eq!(to_end(&mut replaced).await.unwrap(), b"");
    // Longer than a handshake may take.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    // It is not new: the VM asks for it as usual.
    rig.handle.give(&busid("1-2"));
    assert!(is_quiet(&waits).await);

    rig.handle.give(&busid("1-1"));
    let mut reply = vec![0; Header::SIZE + Device::SIZE];
    let read = timeout(CEILING, waits.read_exact(&mut reply));
    read.await.unwrap().unwrap();
    assert_eq!(reply[8..], golden("1-1", 4));
    rig.host.set_status("1-1", Some(StubStatus::Available));
    rig.exports.send_replace(exports(&["1-1", "1-2"]));
    assert_eq!(rig.event().await, imported("1-1"));
    echoes(&mut waits).await;

    // Nobody waits, or not the VM any more.
    rig.exports.send_replace(coming(&["1-2"]));
    rig.handle.give(&busid("1-2"));
    // Who says something does not wait.
    let mut talks = waiting(&rig).await;
    talks.write_all(b"x").await.unwrap();
    let _ = to_end(&mut talks).await;
    let mut stranger = waiting(&rig).await;
    assert!(is_quiet(&stranger).await);
    rig.exports
        .send_modify(|exports| exports.peers = ["10.9.9.9".parse().unwrap()].into());
    rig.handle.give(&busid("1-2"));
    assert!(is_quiet(&stranger).await);
    rig.handle.end_waiting();
    assert_eq!(to_end(&mut stranger).await.unwrap(), b"");
    assert!(rig.events.try_recv().is_err());
}

fn refused_by_the_kernel(event: &Event) -> bool {
    let Event::Refused { reason, .. } = event else {
        return false;
    };
    matches!(reason, RefusedImport::Kernel(..))
}

#[tokio::test]
async fn an_import_is_byte_exact_and_the_rest_is_the_kernels() {
    let mut rig = Rig::new(&["1-1"]);
    let mut stream = rig.connect(VM).await;
    // In one packet with the request: what the kernel would miss if it were read here.
    let mut bytes = request("1-1");
    bytes.extend(b"first URB");
    stream.write_all(&bytes).await.unwrap();
    let mut reply = vec![0; 8 + 312 + 9];
    let read = timeout(CEILING, stream.read_exact(&mut reply));
    read.await.unwrap().unwrap();
    // The reply first, unless the kernel was faster with its answer.
    let mut expected = vec![0x01, 0x11, 0x00, 0x03, 0, 0, 0, 0];
    expected.extend(golden("1-1", 4));
    let mut echo_first = b"first URB".to_vec();
    echo_first.extend(&expected);
    expected.extend(b"first URB");
    assert!(reply == expected || reply == echo_first, "{reply:?}");
    assert_eq!(rig.event().await, imported("1-1"));

    let sessions = rig.handle.sessions();
    assert_eq!(sessions.len(), 1);
    assert_eq!(sessions[0].busid, busid("1-1"));
    assert_eq!(sessions[0].devid, device("1-1").devid);
    drop(stream);
    assert_eq!(rig.event().await, hung_up("1-1"));
    assert!(rig.handle.sessions().is_empty());
}

#[tokio::test]
async fn refusals_have_the_status_that_stock_importers_understand() {
    let host = Host::new(&["1-1", "1-2", "1-3"]);
    host.set_status("1-1", Some(StubStatus::Error));
    host.set_status("1-2", None);
    let mut rig = Rig::with(host, exports(&["1-1", "1-2", "1-9"]), 64);
    assert_eq!(rig.refused("1-1").await, Status::DeviceError);
    assert!(matches!(
        rig.event().await,
        Event::Refused {
            reason: RefusedImport::Kernel(..),
            ..
        }
    ));
    // Not bound, held back, not plugged in.
    for name in ["1-2", "1-3", "1-9"] {
        assert_eq!(rig.refused(name).await, Status::NoDevice);
        let reason = RefusedImport::NotExported(busid(name));
        assert_eq!(rig.event().await, refusal(VM, reason));
    }
}

#[tokio::test]
async fn of_two_imports_at_once_one_wins() {
    let mut rig = Rig::new(&["1-1"]);
    *rig.host.hand_over_takes.lock().unwrap() = Duration::from_millis(300);
    let (mut one, mut two) = (rig.connect(VM).await, rig.connect(VM).await);
    one.write_all(&request("1-1")).await.unwrap();
    two.write_all(&request("1-1")).await.unwrap();
    let (mut first, mut second) = ([0; 8], [0; 8]);
    timeout(CEILING, one.read_exact(&mut first))
        .await
        .unwrap()
        .unwrap();
    timeout(CEILING, two.read_exact(&mut second))
        .await
        .unwrap()
        .unwrap();
    let mut statuses = [first[7], second[7]];
    statuses.sort_unstable();
    assert_eq!(statuses, [Status::Ok as u8, Status::DeviceBusy as u8]);
    assert_eq!(rig.event().await, refusal(VM, busy("1-1")));
    assert_eq!(rig.event().await, imported("1-1"));
}

#[tokio::test]
async fn a_device_replugged_at_the_hand_over_is_not_announced_under_its_old_devid() {
    let mut rig = Rig::new(&["1-1"]);
    *rig.host.replugs_at_hand_over.lock().unwrap() = true;
    let mut stream = rig.connect(VM).await;
    stream.write_all(&request("1-1")).await.unwrap();
    // The kernel has shut the connection down, so there may be no reply; certainly no device.
    let reply = to_end(&mut stream).await.unwrap_or_default();
    assert!(reply.len() <= 8, "{reply:?}");
    assert!(matches!(
        rig.event().await,
        Event::Refused {
            reason: RefusedImport::Kernel(..),
            ..
        }
    ));
    assert!(rig.handle.sessions().is_empty());
}

#[tokio::test]
async fn ipv6_and_mapped_addresses_are_the_vm_too() {
    let mut shared = exports(&["1-1"]);
    shared.peers = ["::1", "::ffff:127.0.0.1"]
        .map(|ip| ip.parse().unwrap())
        .into();
    let rig = Rig::with(Host::new(&["1-1"]), shared, 64);
    for ip in ["::1", "127.0.0.1"] {
        let addr = (ip, rig.addr.port());
        let mut stream = TcpStream::connect(addr).await.unwrap();
        stream.write_all(&Request::Devlist.encode()).await.unwrap();
        assert_eq!(to_end(&mut stream).await.unwrap().len(), 12 + 312 + 4);
    }
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let rig = Rig::new(&[]);
    let addr = format!("[::]:{}", rig.addr.port()).parse().unwrap();
    let error = bind(addr).unwrap_err();
    assert!(matches!(error, BindError::Taken { .. }), "{error:?}");
    assert!(error.to_string().contains("another program has the port"));
}
