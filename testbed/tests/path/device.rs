//! What a person does about one device in the portal, as seen on the VM.

use testbed::redir::Kind;
use testbed::trial::{self, Bed, Error, Outcome, Plug};
use testbed::usb::What;

/// Presses a button or sends a form for what is plugged in now; the outcome in the address that follows.
fn act(bed: &Bed, plug: &Plug, act: &str, fields: &[(&str, &str)]) -> Result<String, Error> {
    let busid = &plug.busid;
    let seen = bed.device_view(busid)?.unwrap_or_default();
    let devid = seen["devid"].as_str().unwrap_or_default();
    let fields = [&[("devid", devid)], fields].concat();
    let answer = bed.submit(&format!("/devices/{busid}/{act}"), &fields)?;
    answer
        .header("location")
        .map(str::to_owned)
        .ok_or(Error::Answer {
            what: "the portal's form",
            answer: format!("{} {}", answer.code, answer.body),
        })
}

/// Waits until the name leads to this node on the VM.
fn leads_to(bed: &Bed, name: &str, node: &str) -> Result<(), Error> {
    trial::wait_until(&format!("/dev/usb-pi/{name} leading to {node}"), || {
        let found = bed
            .vm()
            .sh(&format!("readlink -e /dev/usb-pi/{name}"))
            .map_err(|error| error.to_string())?;
        if found.stdout.trim_end() == node {
            Ok(())
        } else {
            Err(format!("{:?} {:?}", found.stdout, found.stderr))
        }
    })
}

pub fn named_and_detached(bed: &Bed) -> Outcome {
    let plug = bed.plug(Kind::Esp32S3)?;
    let device = bed.device(&plug)?;
    let attachment = bed.attached(&plug)?;
    let node = attachment.ttys[0].node.clone();
    let outcome = act(bed, &plug, "rename", &[("name", "bench")])?;
    assert!(outcome.ends_with("outcome=named"), "{outcome}");
    leads_to(bed, "bench", &node)?;
    bed.pass("/dev/usb-pi/bench", &device, 115_200, 4 << 10)?;

    // The board restarts as another product; to its owner it is the same.
    device.reset_to_bootloader()?;
    trial::wait_until("the boot loader under the board's name", || {
        let seen = bed
            .device_view(&plug.busid)
            .map_err(|error| error.to_string())?
            .unwrap_or_default();
        if seen["product"] == 0x0009 && seen["links"][0] == "/dev/usb-pi/bench" {
            Ok(())
        } else {
            Err(seen.to_string())
        }
    })?;
    device.reset_to_app()?;
    bed.attached(&plug)?;
    leads_to(bed, "bench", &node)?;

    let attachment = bed.attached(&plug)?;
    let outcome = act(bed, &plug, "detach", &[])?;
    assert!(outcome.contains("outcome=detached&"), "{outcome}");
    bed.gone(&attachment)?;
    bed.vm().wait_until("test ! -e /dev/usb-pi && echo gone")?;
    let outcome = act(bed, &plug, "attach", &[])?;
    assert!(outcome.contains("outcome=attached&"), "{outcome}");
    leads_to(bed, "bench", &node)?;

    // The controller of this Pi cannot switch its ports: nothing happens, and it is said.
    let attachment = bed.attached(&plug)?;
    let outcome = act(bed, &plug, "power-cycle", &[])?;
    assert!(outcome.contains("outcome=not-cycled&"), "{outcome}");
    let seen = bed.device_view(&plug.busid)?.unwrap_or_default();
    let why = seen["power_failure"].as_str().unwrap_or_default();
    assert!(why.contains("cannot be switched"), "{seen}");
    assert_eq!(bed.attached(&plug)?, attachment);

    let scope = seen["scope"].as_str().unwrap_or_default();
    bed.submit("/names/forget", &[("scope", scope)])?;
    bed.vm().wait_until("test ! -e /dev/usb-pi && echo gone")?;
    Ok(())
}

pub fn switched_off_and_on(bed: &Bed) -> Outcome {
    bed.plug_at(What::QemuHub, Some("3"), None)?;
    let plug = bed.plug_at(Kind::Cp2102, Some("3.2"), None)?;
    let other = bed.plug_at(Kind::Ft231x, Some("3.3"), None)?;
    let attachment = bed.attached(&plug)?;
    let untouched = bed.attached(&other)?;
    let outcome = act(bed, &plug, "power-cycle", &[])?;
    // A Pi under TCG may take longer than a person waits for the answer.
    let fine = ["outcome=cycled&", "outcome=cycling&"];
    assert!(fine.iter().any(|word| outcome.contains(word)), "{outcome}");
    let again = trial::wait_until("the device in its next generation", || {
        let again = bed.attached(&plug).map_err(|error| error.to_string())?;
        if again.devid == attachment.devid {
            return Err("it is the old one".to_owned());
        }
        Ok(again)
    })?;
    bed.pass(&again.ttys[0].node, &bed.device(&plug)?, 115_200, 4 << 10)?;
    assert_eq!(bed.attached(&other)?, untouched);
    Ok(())
}
