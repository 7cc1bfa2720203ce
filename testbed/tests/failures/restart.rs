//! The session's programs end.

use std::error::Error;

use testbed::machine::Machine;
use testbed::redir::Kind;
use testbed::trial::{Bed, Outcome, wait_until};

use crate::amid::amid_transfer;

/// 20 s of a CH340, whose packets are small.
const BYTES: usize = 512 << 10;
/// The bracket keeps the pattern from finding the shell that it stands in.
const HANDLER: &str = "usb-event-handler [s]ession";

/// Runs `end`, and waits until another process answers to `find`.
pub fn replaced(machine: &Machine, find: &str, end: &str) -> Result<(), Box<dyn Error>> {
    let before = machine.check(find)?;
    machine.check(end)?;
    machine.wait_until(&format!("now=$({find}) && [ \"$now\" != '{before}' ]"))?;
    Ok(())
}

pub fn session(bed: &Bed) -> Outcome {
    let plug = bed.plug(Kind::Ch340)?;
    let attachment = bed.attached(&plug)?;
    let handlers = format!("pgrep -f '{HANDLER}'");
    let (passed, ()) = amid_transfer(bed, &plug, &attachment, BYTES, || {
        replaced(bed.vm(), &handlers, &format!("pkill -9 -f '{HANDLER}'"))?;
        bed.session()?;
        // The handler is another one, since the old one's connection is gone.
        let before = bed.vm().check(&handlers)?;
        bed.pi().check("killall -9 ssh")?;
        bed.vm()
            .wait_until(&format!("now=$({handlers}) && [ \"$now\" != '{before}' ]"))?;
        Ok(bed.session()?)
    })?;
    passed?;
    assert_eq!(bed.attached(&plug)?, attachment);
    Ok(())
}

pub fn appliance(bed: &Bed) -> Outcome {
    let plug = bed.plug(Kind::Ch340)?;
    let attachment = bed.attached(&plug)?;
    let (passed, ()) = amid_transfer(bed, &plug, &attachment, BYTES, || {
        for signal in ["KILL", "TERM"] {
            replaced(
                bed.pi(),
                "pidof appliance",
                &format!("killall -{signal} appliance"),
            )?;
            shown_attached(bed, &plug.busid)?;
        }
        Ok(())
    })?;
    passed?;
    assert_eq!(bed.attached(&plug)?, attachment);
    // The session was begun by the first of the three processes; its end is noticed by the last.
    bed.unplug(&plug)?;
    bed.gone(&attachment)?;
    wait_until("the Pi sees it gone", || {
        match bed.device_view(&plug.busid) {
            Ok(None) => Ok(()),
            Ok(Some(seen)) => Err(seen.to_string()),
            Err(error) => Err(error.to_string()),
        }
    })?;
    let plug = bed.plug(Kind::Ch340)?;
    bed.attached(&plug)?;
    Ok(())
}

/// Waits until the Pi shows a device as attached, with its tty, by a session that is up.
pub fn shown_attached(bed: &Bed, busid: &str) -> Outcome {
    bed.session()?;
    wait_until("the device shown as attached", || {
        let seen = bed.device_view(busid).map_err(|error| error.to_string())?;
        let seen = seen.unwrap_or_default();
        let tty = &seen["attachment"]["ttys"][0]["node"];
        if seen["state"] == "attached" && seen["silent"] == false && tty.is_string() {
            Ok(())
        } else {
            Err(seen.to_string())
        }
    })?;
    Ok(())
}
