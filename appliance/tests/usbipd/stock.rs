//! The stock client of package usbip. It needs no vhci up to the point where it has the reply.

use std::process::{Command, Output};

use protocol::wire::Status;

use crate::rig::{Rig, VM, busy, hung_up, imported, refusal};

const USBIP: &str = "/usr/sbin/usbip";

/// Runs the client off the runtime; `None` where it is not installed.
async fn usbip(rig: &Rig, args: &[&str]) -> Option<Output> {
    if !std::path::Path::new(USBIP).exists() {
        eprintln!("SKIPPED: {USBIP} is not installed (package usbip)");
        return None;
    }
    let mut command = Command::new("timeout");
    command.args(["20", USBIP, "--tcp-port", &rig.addr.port().to_string()]);
    command.args(args);
    let run = tokio::task::spawn_blocking(move || command.output().unwrap());
    Some(run.await.unwrap())
}

#[tokio::test]
async fn stock_list_prints_our_devices() {
    let rig = Rig::new(&["1-1", "1-2"]);
    let Some(output) = usbip(&rig, &["list", "-r", "127.0.0.1"]).await else {
        return;
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{output:?}");
    for expected in [
        "1-1: ",
        "1-2: ",
        "(10c4:ea60)",
        "/sys/bus/usb/devices/1-1",
        "0 - ",
        "(ff/00/00)",
    ] {
        assert!(text.contains(expected), "no {expected:?} in {text}");
    }
}

#[tokio::test]
async fn stock_list_of_nothing_says_so() {
    let rig = Rig::new(&[]);
    let Some(output) = usbip(&rig, &["list", "-r", "127.0.0.1"]).await else {
        return;
    };
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("no exportable devices found"), "{text}");
}

#[tokio::test]
async fn stock_attach_imports_and_understands_refusals() {
    let mut rig = Rig::new(&["1-1", "1-2"]);
    let attach = |name| ["attach", "-r", "127.0.0.1", "-b", name];
    let Some(output) = usbip(&rig, &attach("1-9")).await else {
        return;
    };
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("Device not found"), "{text}");
    rig.event().await;

    let (session, _) = rig.import("1-1").await;
    assert_eq!(rig.event().await, imported("1-1"));
    let output = usbip(&rig, &attach("1-1")).await.unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("busy"), "{text}");
    assert_eq!(rig.event().await, refusal(VM, busy("1-1")));
    assert_eq!(rig.refused("1-1").await, Status::DeviceBusy);
    rig.event().await;
    drop(session);
    assert_eq!(rig.event().await, hung_up("1-1"));

    if !std::path::Path::new("/sys/devices/platform/vhci_hcd.0").exists() {
        // It has the reply, finds no vhci, and gives up.
        usbip(&rig, &attach("1-2")).await.unwrap();
        assert_eq!(rig.event().await, imported("1-2"));
        assert_eq!(rig.event().await, hung_up("1-2"));
    }
}
