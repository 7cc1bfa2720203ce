//! Kernel modules: loading them, and which package has them.

use std::{process::Command, time::Duration};

use crate::{
    device::SERIAL_DRIVERS,
    failure::Error,
    root::Root,
    run,
    vhci::{self, Vhci},
};

/// How long modprobe may take; seconds on a busy machine that boots.
const LIMIT: Duration = Duration::from_secs(30);

/// The controller; its module is loaded where that is needed.
pub fn vhci(root: &Root) -> Result<Vhci, Error> {
    if let Some(vhci) = Vhci::open(root) {
        return Ok(vhci);
    }
    let said = load(&["vhci_hcd"])
        .err()
        .unwrap_or_else(|| format!("modprobe succeeded, but {} is not there", vhci::DIR));
    Vhci::open(root).ok_or_else(|| Error::VhciMissing {
        said,
        remedy: remedy(root).sentence(),
    })
}

/// Load the serial drivers ahead of the first device, which then needs not wait for udev to do it;
/// and devices that come together are probed in the order in which they were attached.
pub fn load_serial_drivers() {
    // A driver that is missing or built in is no error here: `check` names what is missing.
    let _ = load(&SERIAL_DRIVERS);
}

fn load(modules: &[&str]) -> Result<(), String> {
    let mut modprobe = Command::new("modprobe");
    modprobe.arg("-a").args(modules);
    match run::output(modprobe, LIMIT) {
        Ok(output) if output.success => Ok(()),
        Ok(output) if output.timed_out => Err("modprobe does not end".into()),
        Ok(output) => Err(output.stderr.trim().replace('\n', "; ")),
        Err(error) => Err(error.sentence()),
    }
}

/// What brings the missing modules on this distribution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remedy {
    /// For root; none where nobody knows one.
    pub command: Option<String>,
    /// What else there is to it.
    note: &'static str,
}

impl Remedy {
    /// In one sentence.
    #[must_use]
    pub fn sentence(&self) -> String {
        match (&self.command, self.note) {
            (Some(command), "") => command.clone(),
            (Some(command), note) => format!("{command} ({note})"),
            (None, note) => note.to_owned(),
        }
    }
}

/// What brings the missing modules on this distribution.
#[must_use]
pub fn remedy(root: &Root) -> Remedy {
    let os = root.read("/etc/os-release").unwrap_or_default();
    let release = root.read("/proc/sys/kernel/osrelease").unwrap_or_default();
    remedy_for(&os, &release)
}

fn remedy_for(os_release: &str, kernel: &str) -> Remedy {
    let value = |key: &str| {
        os_release
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
            .unwrap_or_default()
            .trim_matches('"')
            .to_owned()
    };
    let family = format!("{} {}", value("ID"), value("ID_LIKE"));
    let is = |names: &[&str]| {
        family
            .split_ascii_whitespace()
            .any(|id| names.contains(&id))
    };
    let (command, note) = if is(&["ubuntu"]) {
        (format!("apt install linux-modules-extra-{kernel}"), "")
    } else if is(&["debian"]) && kernel.contains("cloud") {
        let machine = kernel.rsplit('-').next().unwrap_or("amd64");
        (
            format!("apt install linux-image-{machine}"),
            "then reboot: the cloud kernel has no USB",
        )
    } else if is(&["debian"]) {
        (
            format!("apt install --reinstall linux-image-{kernel}"),
            "then reboot if the kernel was upgraded",
        )
    } else if is(&["fedora", "rhel", "centos"]) {
        (format!("dnf install kernel-modules-extra-{kernel}"), "")
    } else if is(&["arch"]) {
        (
            "pacman -S linux".to_owned(),
            "or reboot, when the kernel was upgraded since the last boot",
        )
    } else if is(&["alpine"]) {
        (
            "apk add linux-lts".to_owned(),
            "and boot it: the virt kernel has no USB/IP",
        )
    } else if is(&["suse", "opensuse"]) {
        (
            "zypper install kernel-default".to_owned(),
            "kernel-default-base has no USB/IP",
        )
    } else {
        return Remedy {
            command: None,
            note: "install a kernel with CONFIG_USBIP_VHCI_HCD as a module",
        };
    };
    Remedy {
        command: Some(command),
        note,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_distribution_has_its_own_remedy() {
        let ubuntu = "NAME=\"Ubuntu\"\nID=ubuntu\nID_LIKE=debian\n";
        assert_eq!(
            remedy_for(ubuntu, "6.8.0-40-generic").sentence(),
            "apt install linux-modules-extra-6.8.0-40-generic"
        );
        assert!(
            remedy_for("ID=debian", "6.12.9+deb13-cloud-amd64")
                .sentence()
                .starts_with("apt install linux-image-amd64 ")
        );
        assert!(
            remedy_for("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"", "5.14.0")
                .sentence()
                .starts_with("dnf install")
        );
        let unknown = remedy_for("ID=plan9", "4");
        assert!(unknown.sentence().contains("CONFIG_USBIP_VHCI_HCD"));
        assert_eq!(unknown.command, None);
    }
}
