//! The VM's package in an ordinary Debian: installed, upgraded, removed, purged.

use testbed::trial::{Bed, Error, Outcome};

const PACKAGE: &str = "/usr/share/testbed/vm-helper.deb";
const OLD: &str = "/tmp/old.deb";

/// What the package brings, beside what people may have changed.
const FILES: [&str; 8] = [
    "/usr/bin/vm-helper",
    "/usr/bin/usb-event-handler",
    "/usr/bin/usb-boot-attach",
    "/usr/lib/systemd/system/usb-boot-attach.service",
    "/usr/lib/systemd/dnssd/usbip-vm.dnssd",
    "/usr/lib/modules-load.d/usbip-vm.conf",
    "/usr/lib/udev/rules.d/61-usbip-vm.rules",
    "/usr/share/usbip-vm-helper/pi.conf",
];
/// What people may have changed.
const SETTINGS: [&str; 3] = [
    "/etc/usbip/pi.conf",
    "/etc/sudoers.d/usbip",
    "/etc/avahi/services/usbip-vm.service",
];

fn apt(bed: &Bed, words: &str) -> Result<(), Error> {
    let command = format!(
        "DEBIAN_FRONTEND=noninteractive apt-get {words} -y -q --no-install-recommends </dev/null"
    );
    bed.vm()
        .check_within(&command, testbed::machine::COMMAND_LIMIT * 3)?;
    Ok(())
}

/// Asserts that all of these files are there, or none.
fn files(bed: &Bed, names: &[&str], there: bool) -> Result<(), Error> {
    for name in names {
        let found = bed.vm().sh(&format!("[ -e {name} ]"))?.code == Some(0);
        assert_eq!(found, there, "{name}");
    }
    Ok(())
}

fn group(bed: &Bed) -> Result<String, Error> {
    Ok(bed.vm().check("getent group usbip | cut -d: -f4 || true")?)
}

fn version(bed: &Bed) -> Result<String, Error> {
    Ok(bed.vm().check("vm-helper --version")?)
}

pub fn lifecycle(bed: &Bed) -> Outcome {
    let vm = bed.vm();
    let new = vm.check(&format!("dpkg-deb -f {PACKAGE} Version"))?;
    bed.session()?;
    // The kernel keeps 15 characters of a name.
    vm.wait_until("pgrep -x usb-event-handl")?;
    apt(bed, "purge usbip-vm-helper")?;
    vm.check("! pgrep -x usb-event-handl")?;
    files(bed, &FILES, false)?;
    files(bed, &SETTINGS, false)?;
    files(
        bed,
        &["/etc/usbip", "/var/lib/usbip-vm", "/run/usbip-vm"],
        false,
    )?;
    assert_eq!(vm.sh("getent group usbip")?.code, Some(2));
    assert_ne!(
        vm.sh("systemctl cat usb-boot-attach.service")?.code,
        Some(0)
    );

    // An older one is the same under another number.
    vm.check(&format!(
        "rm -rf /tmp/old && dpkg-deb -R {PACKAGE} /tmp/old && \
         sed -i 's/^Version:.*/Version: 0.0.1/' /tmp/old/DEBIAN/control && dpkg-deb -b /tmp/old {OLD}"
    ))?;
    apt(bed, &format!("install {OLD}"))?;
    files(bed, &FILES, true)?;
    files(bed, &SETTINGS, true)?;
    assert_eq!(
        vm.check("stat -c %a:%U:%G /etc/sudoers.d/usbip")?,
        "440:root:root"
    );
    vm.check("visudo -c -q -f /etc/sudoers.d/usbip")?;
    vm.check("runuser -u dev -- sudo -n -l -- /usr/bin/usb-event-handler status")?;
    assert_eq!(group(bed)?, "dev");
    vm.check("systemctl is-enabled usb-boot-attach.service")?;
    vm.check("grep -q '^vhci_hcd ' /proc/modules")?;
    assert_eq!(vm.check("vm-helper --version")?, format!("vm-helper {new}"));

    // What a person decided outlives an upgrade.
    vm.check(
        "echo DEFAULT_PI_HOST=192.0.2.7 >/etc/usbip/pi.conf && \
         echo '# mine' >>/etc/sudoers.d/usbip && gpasswd -d dev usbip && \
         systemctl disable usb-boot-attach.service",
    )?;
    apt(bed, &format!("install {PACKAGE}"))?;
    assert_eq!(
        vm.check("dpkg-query -W -f '${Version}' usbip-vm-helper")?,
        new
    );
    files(bed, &FILES, true)?;
    assert_eq!(
        vm.check("cat /etc/usbip/pi.conf")?,
        "DEFAULT_PI_HOST=192.0.2.7"
    );
    assert_eq!(vm.check("tail -n 1 /etc/sudoers.d/usbip")?, "# mine");
    assert_eq!(group(bed)?, "");
    assert_ne!(
        vm.sh("systemctl is-enabled usb-boot-attach.service")?.code,
        Some(0)
    );
    assert!(version(bed)?.contains(&new));

    apt(bed, "remove usbip-vm-helper")?;
    files(bed, &FILES, false)?;
    files(bed, &SETTINGS, true)?;
    apt(bed, "purge usbip-vm-helper")?;
    files(bed, &SETTINGS, false)?;
    assert_eq!(
        vm.check("dpkg -l usbip-vm-helper 2>&1 | grep -c '^ii' || true")?,
        "0"
    );
    assert_eq!(vm.sh("getent group usbip")?.code, Some(2));

    // As it was.
    vm.check(&format!("rm -rf /tmp/old {OLD}"))?;
    apt(bed, &format!("install {PACKAGE}"))?;
    bed.pair.pair()?;
    bed.session()?;
    Ok(())
}
