//! Devices that come back as others, and more busids than usbip-host's table has slots.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use testbed::redir::Kind;
use testbed::trial::{self, Bed, Error, Outcome, Plug};
use testbed::usb::What;

/// The busids in usbip-host's table.
fn slots(bed: &Bed) -> Result<Vec<String>, Error> {
    let table = bed
        .pi()
        .check("cat /sys/bus/usb/drivers/usbip-host/match_busid")?;
    Ok(table.split_whitespace().map(str::to_owned).collect())
}

/// Waits until the VM has a device under this product id, and returns its tty.
fn attached_as(bed: &Bed, plug: &Plug, product: &str) -> Result<String, Error> {
    trial::wait_until(&format!("{} attached as {product}", plug.busid), || {
        let attachment = bed.attached(plug).map_err(|error| error.to_string())?;
        let local = attachment.local_busid.ok_or("it has no busid on the VM")?;
        let found = bed
            .vm()
            .sh(&format!("cat /sys/bus/usb/devices/{local}/idProduct"))
            .map_err(|error| error.to_string())?;
        if found.stdout.trim_end() == product {
            Ok(attachment.ttys[0].node.clone())
        } else {
            Err(format!("it is {}", found.stdout))
        }
    })
}

pub fn changing_id(bed: &Bed) -> Outcome {
    let before = slots(bed)?;
    let plug = bed.plug(Kind::Esp32S3)?;
    let device = bed.device(&plug)?;
    let node = attached_as(bed, &plug, "1001")?;
    for round in 1..=10 {
        device.reset_to_bootloader()?;
        assert_eq!(attached_as(bed, &plug, "0009")?, node, "round {round}");
        device.reset_to_app()?;
        assert_eq!(attached_as(bed, &plug, "1001")?, node, "round {round}");
        assert_eq!(bed.vhci_in_use()?.len(), 1, "round {round}");
    }
    bed.pass(&node, &device, 115_200, 8 << 10)?;
    let mut after = slots(bed)?;
    after.retain(|busid| !before.contains(busid));
    assert!(
        after.iter().all(|busid| *busid == plug.busid) && after.len() <= 1,
        "{after:?}"
    );
    Ok(())
}

pub fn many_busids(bed: &Bed) -> Outcome {
    let busy = bed.plug_at(Kind::Ft231x, Some("1"), None)?;
    let attachment = bed.attached(&busy)?;
    let device = bed.device(&busy)?;
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let transfers = scope.spawn(|| {
            let mut count = 0;
            while !done.load(Ordering::Relaxed) {
                bed.pass(&attachment.ttys[0].node, &device, 921_600, 512 << 10)?;
                count += 1;
            }
            Ok::<_, Error>(count)
        });
        let exported = other_busids(bed);
        done.store(true, Ordering::Relaxed);
        let transfers = transfers.join().map_err(|_| "the transfers panicked")??;
        assert!(exported? + 1 > 17);
        assert!(transfers > 0);
        Ok::<_, Box<dyn std::error::Error>>(())
    })?;
    // It is the same session all along.
    assert_eq!(bed.attached(&busy)?, attachment);
    Ok(())
}

/// Plugs a device into every port that is left, one after the other, and pulls it out; returns how many there were.
fn other_busids(bed: &Bed) -> Result<usize, Error> {
    bed.plug_at(What::QemuHub, Some("15"), None)?;
    let ports = (2..=14).map(|port| port.to_string());
    let ports: Vec<_> = ports
        .chain((1..=5).map(|port| format!("15.{port}")))
        .collect();
    for port in &ports {
        let plug = bed.plug_at(Kind::Cp2102, Some(port), None)?;
        let attachment = bed.attached(&plug)?;
        bed.unplug(&plug)?;
        bed.gone(&attachment)?;
    }
    Ok(ports.len())
}
