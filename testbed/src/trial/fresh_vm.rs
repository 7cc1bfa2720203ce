//! A VM that has nothing of ours, and a person with a shell on it.

use super::{Bed, Error, Undo, wait_until};
use crate::machine::{COMMAND_LIMIT, Output};

/// Which keys the person's login lets in.
pub const KEYS: &str = "/home/dev/.ssh/authorized_keys";

/// Makes the VM as before it knew of a Pi, and the Pi paired with nobody.
pub fn make(bed: &Bed) -> Result<(), Error> {
    bed.submit("/vm/disconnect", &[])?;
    bed.vm().check_within(
        &format!(
            "DEBIAN_FRONTEND=noninteractive apt-get purge -y -q usbip-vm-helper </dev/null; \
             rm -rf {KEYS} /etc/usbip; ! command -v vm-helper"
        ),
        COMMAND_LIMIT * 3,
    )?;
    wait_until("the Pi without a VM", || {
        let view = bed.view().map_err(|error| error.to_string())?;
        match view["session"]["state"].as_str() {
            Some("not_paired") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
}

/// Runs the portal's line as a person with a login on the VM does.
pub fn run(bed: &Bed, line: &str) -> Result<Output, Error> {
    bed.vm().put("/tmp/line", 0o644, line.as_bytes())?;
    let command = "su - dev -c 'bash /tmp/line' 2>&1 </dev/null";
    Ok(bed.vm().sh_within(command, COMMAND_LIMIT * 4)?)
}

/// The person may become root, as on most VMs of one person.
pub fn administrator(bed: &Bed) -> Result<Undo<'_>, Error> {
    let rule = "/etc/sudoers.d/zz-test";
    bed.vm()
        .put(rule, 0o440, b"dev ALL=(ALL) NOPASSWD: ALL\n")?;
    Ok(Undo {
        machine: bed.vm(),
        command: format!("rm -f {rule}"),
    })
}
