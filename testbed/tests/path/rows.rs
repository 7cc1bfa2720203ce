//! The four things that happen to a Pi and a VM: plug, unplug, the restart of the one, the restart of the other.

use std::collections::BTreeMap;

use serde_json::Value;
use testbed::redir::Kind;
use testbed::trial::{self, Bed, Error, Outcome, Plug, Undo};
use testbed::usb::What;

const BYTES: usize = 64 << 10;

pub fn plug_and_unplug(bed: &Bed) -> Outcome {
    let (_, before) = bed.events(0)?;
    let plug = bed.plug(Kind::Cp2102)?;
    let attachment = bed.attached(&plug)?;
    let [tty] = &attachment.ttys[..] else {
        panic!("{attachment:?}")
    };
    // Nobody but the kernel says that it is a tty: a character device, major number 188.
    assert_eq!(
        bed.vm().check(&format!("stat -c '%F %t' {}", tty.node))?,
        "character special file bc"
    );
    let device = bed.device(&plug)?;
    for baud in [115_200, 921_600] {
        bed.pass(&tty.node, &device, baud, BYTES)?;
    }
    let seen = bed
        .device_view(&plug.busid)?
        .ok_or("the Pi does not show it")?;
    assert_eq!(seen["state"], "attached", "{seen}");
    assert_eq!(
        seen["attachment"]["ttys"][0]["node"],
        tty.node.as_str(),
        "{seen}"
    );

    bed.unplug(&plug)?;
    bed.gone(&attachment)?;
    assert_eq!(bed.vhci_in_use()?, [""; 0]);

    let told = trial::wait_until("the history tells of the unplug", || {
        let (events, _) = bed.events(before).map_err(|error| error.to_string())?;
        let about = |event: &&Value| event["device"]["busid"] == plug.busid.as_str();
        let told: Vec<Value> = events.iter().filter(about).cloned().collect();
        match told.last() {
            Some(last) if last["kind"] == "unplugged" => Ok(told),
            _ => Err(format!("{told:?}")),
        }
    })?;
    let kinds: Vec<&str> = told
        .iter()
        .filter_map(|event| event["kind"].as_str())
        .collect();
    // On a slow machine the hang-up may come long before the unplug, and is told then.
    let kinds: Vec<&str> = kinds
        .into_iter()
        .filter(|kind| *kind != "detached")
        .collect();
    assert_eq!(kinds, ["plugged", "bound", "attached", "unplugged"]);
    let attached = &told[2]["attached"];
    assert_eq!(attached["ttys"][0], tty.node.as_str(), "{attached}");
    assert!(attached["plug_to_tty_ms"].is_u64(), "{attached}");
    assert!(attached["timings"]["tty_ms"].is_f64(), "{attached}");
    Ok(())
}

/// Ttys by busid, of devices that are attached.
type Names = BTreeMap<String, Vec<String>>;

fn names(bed: &Bed, plugs: &[Plug]) -> Result<Names, Error> {
    plugs
        .iter()
        .map(|plug| {
            let ttys = bed.attached(plug)?.ttys;
            Ok((
                plug.busid.clone(),
                ttys.into_iter().map(|tty| tty.node).collect(),
            ))
        })
        .collect()
}

/// Eight at once. They get their names in the order of plugging, which is not that of their ports.
fn eight(bed: &Bed) -> Result<Vec<Plug>, Error> {
    let devices: [(What, &str); 8] = [
        (Kind::Nucleo.into(), "8"),
        (Kind::Cp2102.into(), "7"),
        (Kind::Uno.into(), "6"),
        (Kind::Ch340.into(), "5"),
        (What::QemuSerial, "4"),
        (Kind::Ch9102.into(), "3"),
        (Kind::Ft2232.into(), "2"),
        (Kind::Esp32S3.into(), "1"),
    ];
    devices
        .into_iter()
        .map(|(what, port)| {
            let plug = bed.plug_at(what, Some(port), None)?;
            bed.attached(&plug)?;
            Ok(plug)
        })
        .collect()
}

fn is_usable(bed: &Bed, plug: &Plug, names: &Names) -> Result<(), Error> {
    let device = bed.device(plug)?;
    for (line, node) in names[&plug.busid].iter().enumerate() {
        bed.pass(node, &device.line(line), 115_200, BYTES)?;
    }
    Ok(())
}

pub fn pi_restarts(bed: &Bed) -> Outcome {
    let plugs = eight(bed)?;
    let before = names(bed, &plugs)?;
    bed.pi().reboot()?;
    assert_eq!(names(bed, &plugs)?, before);
    is_usable(bed, &plugs[1], &before)?;
    is_usable(bed, &plugs[6], &before)?;
    Ok(())
}

pub fn vm_restarts_with_session(bed: &Bed) -> Outcome {
    let plugs = eight(bed)?;
    let before = names(bed, &plugs)?;
    bed.vm().check("systemctl mask usb-boot-attach.service")?;
    let _unmask = Undo {
        machine: bed.vm(),
        command: "systemctl unmask usb-boot-attach.service".to_owned(),
    };
    bed.vm().reboot()?;
    assert_eq!(names(bed, &plugs)?, before);
    is_usable(bed, &plugs[2], &before)?;
    Ok(())
}

pub fn vm_restarts_without_session(bed: &Bed) -> Outcome {
    let plugs = eight(bed)?;
    let before = names(bed, &plugs)?;
    let session = bed.hold_session_off()?;
    bed.vm().reboot()?;
    assert_eq!(names(bed, &plugs)?, before);
    let view = bed.view()?;
    assert_ne!(view["session"]["state"], "up", "it was to be off");
    is_usable(bed, &plugs[5], &before)?;

    // The session, once it is back, finds all in order and leaves it alone.
    let attached = bed.status()?.attachments;
    drop(session);
    bed.session()?;
    let view = bed.view()?;
    let devices = view["devices"].as_array().ok_or("no devices")?;
    for plug in &plugs {
        let seen = devices
            .iter()
            .find(|one| one["busid"] == plug.busid.as_str());
        assert_eq!(seen.ok_or("not shown")?["state"], "attached", "{view}");
    }
    assert_eq!(bed.status()?.attachments, attached);
    Ok(())
}
