//! The classic pipeline, as the seeds of many such set-ups have it: a udev rule starts a script, which binds the
//! device with the stock tool and has the VM attach it over a new ssh connection.

use super::Error;
use super::rig::Rig;

const RULE: &str = "ACTION==\"add\", SUBSYSTEM==\"usb\", ENV{DEVTYPE}==\"usb_device\", ATTR{idVendor}==\"0403\", \
    RUN+=\"/bin/sh -c 'setsid /run/classic/share %k &'\"\n";

/// Runs on the Pi when the rule matches. `usbip bind` fails while the kernel's own driver is still at it.
const SHARE: &str = "#!/bin/sh
exec >/run/classic/log 2>&1 </dev/null
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
echo 'classic: noticed' >/dev/kmsg
usbip bind -b \"$1\"
exec ssh -i /run/classic/key -o BatchMode=yes -o UserKnownHostsFile=/run/classic/known_hosts dev@10.9.0.2 \\
    \"sudo /usr/local/sbin/classic-attach $1\"
";

/// Runs on the VM.
const ATTACH: &str = "#!/bin/sh
echo 'classic: told' >/dev/kmsg
exec usbip attach -r 10.9.0.1 -b \"$1\"
";

/// Sets it all up, as the person would who follows such instructions, and starts it.
pub(super) fn start(rig: &Rig<'_>) -> Result<(), Error> {
    let (pi, vm) = (rig.pi(), rig.vm());
    pi.check("mkdir -p /run/classic /run/udev/rules.d")?;
    pi.put("/run/udev/rules.d/90-classic.rules", 0o644, RULE.as_bytes())?;
    pi.put("/run/classic/share", 0o755, SHARE.as_bytes())?;
    let key = pi.check(
        "[ -e /run/classic/key ] || ssh-keygen -q -t ed25519 -N '' -f /run/classic/key; cat /run/classic/key.pub",
    )?;
    let pin = "sed -s 's/^\\([^ ]* [^ ]*\\).*/10.9.0.2 \\1/' /etc/ssh/ssh_host_*_key.pub";
    let known = vm.check(pin)? + "\n";
    pi.put("/run/classic/known_hosts", 0o600, known.as_bytes())?;
    vm.check(&format!(
        "grep -qF '{key}' /home/dev/.ssh/authorized_keys || echo '{key}' >>/home/dev/.ssh/authorized_keys"
    ))?;
    let sudoers = b"dev ALL=(root) NOPASSWD: /usr/local/sbin/classic-attach\n";
    vm.put("/etc/sudoers.d/classic", 0o440, sudoers)?;
    vm.put("/usr/local/sbin/classic-attach", 0o755, ATTACH.as_bytes())?;
    usbipd(rig)?;
    pi.check("/lib/systemd/systemd-udevd --daemon && udevadm trigger && udevadm settle")?;
    Ok(())
}

/// Starts the stock server alone.
pub(super) fn usbipd(rig: &Rig<'_>) -> Result<(), Error> {
    rig.pi()
        .check("pidof usbipd >/dev/null || usbipd -D >/dev/null 2>&1")?;
    Ok(())
}

/// Leaves the Pi as it was.
pub(super) fn stop(rig: &Rig<'_>) -> Result<(), Error> {
    rig.pi().check(
        "rm -f /run/udev/rules.d/90-classic.rules
        for pid in $(pidof systemd-udevd) $(pidof usbipd); do
            kill $pid; while [ -e /proc/$pid ]; do usleep 50000; done
        done",
    )?;
    Ok(())
}
