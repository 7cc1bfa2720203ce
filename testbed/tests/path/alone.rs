//! What is left alone, and what is behind a hub.

use testbed::redir::Kind;
use testbed::trial::{self, Bed, Outcome};
use testbed::usb::What;

pub fn left_alone(bed: &Bed) -> Outcome {
    // What the Pi's own driver is, and a word that the reason must have.
    let others: [(What, &str, &str); 6] = [
        (Kind::Ethernet.into(), "cdc_ether", "net"),
        (Kind::EthernetAsix.into(), "asix", "net"),
        (Kind::Keyboard.into(), "usbhid", "keyboard"),
        (Kind::Disk.into(), "usb-storage", "disk"),
        (What::QemuNet, "cdc_ether", "net"),
        (What::QemuHub, "hub", "hub"),
    ];
    let mut plugs = Vec::new();
    for (what, driver, word) in others {
        plugs.push((what, bed.plug(what)?, driver, word));
    }
    // Whoever comes after them is attached, so they have been seen and judged.
    let serial = bed.plug(Kind::Ft231x)?;
    let attachment = bed.attached(&serial)?;
    for (what, plug, driver, word) in plugs {
        let busid = &plug.busid;
        let drivers = bed.pi().wait_until(&format!(
            "for i in /sys/bus/usb/devices/{busid}:*; do basename $(readlink $i/driver); done | grep -x {driver}"
        ))?;
        assert!(!drivers.is_empty(), "{what}");
        let own = bed.pi().check(&format!(
            "basename $(readlink /sys/bus/usb/devices/{busid}/driver)"
        ))?;
        assert_eq!(own, "usb", "{what}");
        let why = trial::wait_until(&format!("{what} shown as skipped"), || {
            let seen = bed.device_view(busid).map_err(|error| error.to_string())?;
            let seen = seen.ok_or("it is not shown")?;
            match seen["why"].as_str() {
                Some(why) if seen["state"] == "skipped" => Ok(why.to_owned()),
                _ => Err(seen.to_string()),
            }
        })?;
        eprintln!("{what}: {why}");
        assert!(why.contains(word), "{what}: {why}");
    }
    assert_eq!(bed.status()?.attachments, [attachment]);
    Ok(())
}

pub fn on_a_hub(bed: &Bed) -> Outcome {
    let hub = bed.plug_at(What::QemuHub, Some("3"), None)?;
    let mut attachments = Vec::new();
    for (port, kind) in [
        ("3.1", Kind::Cp2102),
        ("3.2", Kind::Uno),
        ("3.4", Kind::Ch340),
    ] {
        let plug = bed.plug_at(kind, Some(port), None)?;
        let attachment = bed.attached(&plug)?;
        assert_eq!(attachment.busid.as_str(), format!("1-{port}"));
        bed.pass(
            &attachment.ttys[0].node,
            &bed.device(&plug)?,
            115_200,
            4 << 10,
        )?;
        attachments.push(attachment);
    }
    bed.unplug(&hub)?;
    for attachment in &attachments {
        bed.gone(attachment)?;
    }
    Ok(())
}
