//! The network goes away.

use std::error::Error;
use std::thread;
use std::time::Duration;

use testbed::redir::Kind;
use testbed::trial::{Bed, Outcome, Undo};

use crate::amid::amid_transfer;

/// Less than the grace time is by default, which is 30 s.
const SHORT: Duration = Duration::from_secs(10);
const BYTES: usize = 512 << 10;
/// What a cut of any length leaves in the end.
const FREE: Duration = Duration::from_secs(30);

/// Sets the grace time, until the returned guard is dropped.
pub fn set_grace(bed: &Bed, seconds: u16) -> Result<Undo<'_>, Box<dyn Error>> {
    let undo = Undo {
        machine: bed.pi(),
        command: "rm /etc/usbip/appliance.conf".to_owned(),
    };
    bed.pi().check(&format!(
        "echo GRACE_SECONDS={seconds} >/etc/usbip/appliance.conf"
    ))?;
    bed.pi().wait_until(&format!(
        "dmesg | grep 'new settings' | tail -n 1 | grep grace_seconds={seconds}"
    ))?;
    Ok(undo)
}

pub fn short_cut(bed: &Bed) -> Outcome {
    let plug = bed.plug(Kind::Ft231x)?;
    let attachment = bed.attached(&plug)?;
    let (passed, ()) = amid_transfer(bed, &plug, &attachment, BYTES, || {
        bed.pair.cut()?;
        thread::sleep(SHORT);
        Ok(bed.pair.uncut()?)
    })?;
    assert!(passed?.seconds > SHORT.as_secs_f64());
    bed.session()?;
    // The attachment is the one from before.
    assert_eq!(bed.attached(&plug)?, attachment);
    Ok(())
}

pub fn long_cut(bed: &Bed) -> Outcome {
    let _default = set_grace(bed, 5)?;
    let plug = bed.plug(Kind::Ft231x)?;
    let attachment = bed.attached(&plug)?;
    bed.pair.cut()?;
    // 1 is AVAILABLE.
    bed.pi().wait_until_within(
        &format!("grep -x 1 /sys/bus/usb/devices/{}/usbip_status", plug.busid),
        FREE,
    )?;
    bed.gone(&attachment)?;
    bed.pair.uncut()?;
    let again = bed.attached(&plug)?;
    assert_eq!(again.ttys, attachment.ttys);
    bed.pass(&again.ttys[0].node, &bed.device(&plug)?, 115_200, BYTES / 8)?;
    Ok(())
}
