//! The `usbip` tool of the VM's distribution against our server.

use testbed::redir::Kind;
use testbed::trial::{self, Bed, Outcome};

const PI: &str = "10.9.0.1";

pub fn usbip(bed: &Bed) -> Outcome {
    // Nobody attaches but the tool.
    let session = bed.hold_session_off()?;
    let plug = bed.plug(Kind::Cp2102)?;
    let busid = &plug.busid;
    // 1 is SDEV_ST_AVAILABLE.
    bed.pi().wait_until(&format!(
        "grep -x 1 /sys/bus/usb/devices/{busid}/usbip_status"
    ))?;
    let list = bed.vm().check(&format!("usbip list -r {PI}"))?;
    let line = list
        .lines()
        .find(|line| line.trim_start().starts_with(&format!("{busid}:")));
    assert!(
        line.is_some_and(|line| line.contains("(10c4:ea60)")),
        "{list}"
    );
    assert_eq!(list.matches("10c4:ea60").count(), 1, "{list}");

    bed.vm()
        .check(&format!("usbip attach -r {PI} -b {busid}"))?;
    let by_stock = bed.attached(&plug)?;
    bed.pass(
        &by_stock.ttys[0].node,
        &bed.device(&plug)?,
        115_200,
        8 << 10,
    )?;

    // The session takes over what is there.
    drop(session);
    bed.session()?;
    trial::wait_until("the Pi to show it attached", || {
        let seen = bed.device_view(busid).map_err(|error| error.to_string())?;
        match seen {
            Some(seen) if seen["state"] == "attached" => Ok(()),
            seen => Err(format!("{seen:?}")),
        }
    })?;
    assert_eq!(bed.attached(&plug)?, by_stock);
    let ports = bed.vm().check("usbip port")?;
    assert!(
        ports.contains("10c4:ea60") && ports.contains(busid.as_str()),
        "{ports}"
    );

    // Detached behind its back, it is attached again.
    let connected = "dmesg | grep -c 'vhci_hcd: connection closed' || true";
    let before = bed.vm().check(connected)?;
    bed.vm()
        .check(&format!("usbip detach -p {}", by_stock.port))?;
    trial::wait_until("the detach", || match bed.vm().check(connected) {
        Ok(count) if count != before => Ok(()),
        Ok(_) => Err("the connection is still there".to_owned()),
        Err(error) => Err(error.to_string()),
    })?;
    let again = bed.attached(&plug)?;
    bed.pass(&again.ttys[0].node, &bed.device(&plug)?, 115_200, 8 << 10)?;
    Ok(())
}
