//! `vm-helper check`: what stands in the way, and the command that mends it.

use std::{fs, path::Path, process::Command, time::Duration};

use protocol::line::{Check, CheckState, NOT_LET_IN_CHECK, VERSION_CHECK};

use crate::{
    attach::Vm,
    config::{PI_CONF, PiConf},
    device::SERIAL_DRIVERS,
    failure::Error,
    forced::HANDLER,
    import::Secured,
    module,
    root::{Root, names_in},
    run,
    vhci::{PortState, Vhci},
};

/// How long the programs that are asked may take.
const LIMIT: Duration = Duration::from_secs(5);
/// The udev rule of the package that keeps ModemManager away.
const MODEM_RULE: &str = "/usr/lib/udev/rules.d/61-usbip-vm.rules";
const SUDO_RULE: &str = "/etc/sudoers.d/usbip";

fn finding(id: &str, state: CheckState, finding: impl Into<String>) -> Check {
    Check {
        id: id.into(),
        state,
        finding: finding.into(),
        remedy: None,
        command: None,
    }
}

fn ok(id: &str, text: impl Into<String>) -> Check {
    finding(id, CheckState::Ok, text)
}

fn warning(id: &str, text: impl Into<String>, remedy: impl Into<String>) -> Check {
    Check {
        remedy: Some(remedy.into()),
        ..finding(id, CheckState::Warning, text)
    }
}

fn failed(id: &str, text: impl Into<String>, remedy: impl Into<String>) -> Check {
    Check {
        state: CheckState::Failed,
        ..warning(id, text, remedy)
    }
}

/// A finding that a command mends, run as root.
fn mended_by(check: Check, command: &str) -> Check {
    Check {
        command: Some(format!("sudo {command}")),
        ..check
    }
}

/// A finding that modules are missing.
fn lacking(id: &str, text: impl Into<String>, root: &Root) -> Check {
    let remedy = module::remedy(root);
    let check = failed(id, text, remedy.sentence());
    match &remedy.command {
        Some(command) => mended_by(check, command),
        None => check,
    }
}

/// Every check, those first that others depend on.
#[must_use]
pub fn all(root: &Root) -> Vec<Check> {
    let version = concat!("vm-helper ", env!("CARGO_PKG_VERSION"));
    let mut checks = vec![ok(VERSION_CHECK, version), permission(root), vhci(root)];
    checks.extend(ports(root));
    checks.extend(pi(root));
    checks.extend([drivers(root), udev(root), brltty(root), modem_manager(root)]);
    checks
}

fn permission(root: &Root) -> Check {
    const ID: &str = "root";
    if !rustix::process::geteuid().is_root() {
        let mut sudo = Command::new("sudo");
        sudo.args(["-n", "-l", "--", HANDLER]);
        return match run::output(sudo, LIMIT) {
            Ok(output) if output.success => {
                ok(ID, format!("sudo lets this user run {HANDLER} as root"))
            }
            _ => mended_by(
                failed(
                    ID,
                    format!("sudo does not let this user run {HANDLER} as root"),
                    format!(
                        "check that {SUDO_RULE} is installed, then run: usermod -aG usbip $USER"
                    ),
                ),
                "usermod -aG usbip $USER",
            ),
        };
    }
    if !root.path(SUDO_RULE).exists() {
        return failed(
            ID,
            format!("the sudo rule {SUDO_RULE} is missing, so the Pi's user cannot attach"),
            "install the package usbip-vm-helper again",
        );
    }
    let groups = root.read("/etc/group").unwrap_or_default();
    let members = groups
        .lines()
        .find_map(|line| line.strip_prefix("usbip:")?.rsplit(':').next())
        .unwrap_or_default();
    if members.is_empty() {
        mended_by(
            warning(
                ID,
                "nobody is in the group usbip, so the sudo rule serves nobody",
                "add the user that the Pi logs in as: usermod -aG usbip dev",
            ),
            "usermod -aG usbip dev",
        )
    } else {
        ok(ID, format!("the sudo rule is in place for: {members}"))
    }
}

fn is_available(module: &str) -> bool {
    let mut modprobe = Command::new("modprobe");
    modprobe.args(["-n", "-q", module]);
    run::output(modprobe, LIMIT).is_ok_and(|output| output.success)
}

fn vhci(root: &Root) -> Check {
    const ID: &str = "vhci";
    if Vhci::open(root).is_some() {
        ok(ID, "kernel module vhci_hcd is loaded")
    } else if is_available("vhci_hcd") {
        mended_by(
            warning(
                ID,
                "kernel module vhci_hcd is not loaded; the first attach will load it",
                "modprobe vhci_hcd",
            ),
            "modprobe vhci_hcd",
        )
    } else {
        lacking(ID, "this kernel lacks the module vhci_hcd", root)
    }
}

fn ports(root: &Root) -> Option<Check> {
    let ports = Vhci::open(root)?.ports().ok()?;
    let (free, total) = ports
        .iter()
        .filter(|port| !port.is_super)
        .fold((0, 0), |(free, total), port| {
            (free + u32::from(port.state == PortState::Free), total + 1)
        });
    let text = format!("{free} of {total} vhci ports are free");
    Some(if free == 0 {
        failed(
            "ports",
            text,
            "detach a device: usb-event-handler disconnect BUSID",
        )
    } else {
        ok("ports", text)
    })
}

fn pi(root: &Root) -> Vec<Check> {
    let conf = match PiConf::load(root) {
        Ok(conf) => conf,
        Err(error) => return vec![failed("pi_conf", error.to_string(), error.remedy())],
    };
    let named = ok("pi_conf", format!("{PI_CONF} names the Pi {}", conf.host));
    let vm = Vm::new(root, &conf);
    let reached = match vm.server.open().and_then(Secured::devlist) {
        Ok(devices) => ok(
            "pi",
            format!(
                "the Pi answers on port {} and exports {} devices",
                vm.server.port,
                devices.len()
            ),
        ),
        Err(error) => failed(
            if matches!(error, Error::Handshake { .. }) {
                NOT_LET_IN_CHECK
            } else {
                "pi"
            },
            error.sentence(),
            error.remedy().unwrap_or_else(|| "restart the Pi".into()),
        ),
    };
    vec![named, reached]
}

fn drivers(root: &Root) -> Check {
    const ID: &str = "drivers";
    let missing: Vec<&str> = SERIAL_DRIVERS
        .into_iter()
        .filter(|driver| {
            !root
                .path(&format!("/sys/bus/usb/drivers/{driver}"))
                .exists()
                && !is_available(driver)
        })
        .collect();
    if missing.is_empty() {
        ok(ID, "the serial drivers are available")
    } else {
        let text = format!("this kernel lacks the drivers {}", missing.join(", "));
        lacking(ID, text, root)
    }
}

fn udev(root: &Root) -> Check {
    if root.path("/run/udev/control").exists() {
        ok("udev", "udev runs")
    } else {
        mended_by(
            warning(
                "udev",
                "udev does not run: there will be ttys, but no links below /dev/serial",
                "systemctl start systemd-udevd",
            ),
            "systemctl start systemd-udevd",
        )
    }
}

fn runs(root: &Root, program: &str) -> bool {
    let proc = root.path("/proc");
    names_in(&proc)
        .iter()
        .filter(|name| name.bytes().all(|b| b.is_ascii_digit()))
        .any(|pid| {
            fs::read_to_string(proc.join(pid).join("comm")).is_ok_and(|comm| comm.trim() == program)
        })
}

fn brltty(root: &Root) -> Check {
    const MASK: &str = "systemctl mask --now brltty.service brltty-udev.service";
    let how = if runs(root, "brltty") {
        "runs"
    } else if is_started_by_udev(root, "brltty-udev.service") {
        "starts as soon as a board is plugged in"
    } else {
        return ok("brltty", "there is no brltty that could grab a device");
    };
    let text = format!(
        "brltty {how}: it takes CH340 and CP210x chips for Braille displays and grabs them"
    );
    mended_by(warning("brltty", text, MASK), MASK)
}

/// Whether udev's rules may start this unit, as Ubuntu's do for brltty: it is there and not masked.
fn is_started_by_udev(root: &Root, unit: &str) -> bool {
    let at = |dir: &str| root.path(&format!("{dir}/systemd/system/{unit}"));
    let masked = fs::read_link(at("/etc")).is_ok_and(|to| to == Path::new("/dev/null"));
    !masked && (at("/usr/lib").exists() || at("/lib").exists())
}

fn modem_manager(root: &Root) -> Check {
    const ID: &str = "modem_manager";
    if !runs(root, "ModemManager") {
        ok(ID, "no ModemManager runs that could probe a device")
    } else if root.path(MODEM_RULE).exists() {
        ok(
            ID,
            "ModemManager runs and is told to leave the Pi's devices alone",
        )
    } else {
        mended_by(
            warning(
                ID,
                "ModemManager runs and writes to every new tty to see whether it is a modem",
                "systemctl disable --now ModemManager, or install the package usbip-vm-helper again",
            ),
            "systemctl disable --now ModemManager",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_machine_is_told_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::at(dir.path());
        fs::create_dir_all(root.path("/proc/42")).unwrap();
        fs::write(root.path("/proc/42/comm"), "brltty\n").unwrap();
        let checks = all(&root);
        let state = |id: &str| checks.iter().find(|check| check.id == id).unwrap();
        assert_eq!(state("pi_conf").state, CheckState::Failed);
        assert_eq!(state("brltty").state, CheckState::Warning);
        assert_eq!(state("modem_manager").state, CheckState::Ok);
        assert_eq!(
            state("brltty").command.as_deref(),
            Some("sudo systemctl mask --now brltty.service brltty-udev.service")
        );
        assert_eq!(
            state(VERSION_CHECK).finding,
            concat!("vm-helper ", env!("CARGO_PKG_VERSION"))
        );
        for check in checks.iter().filter(|check| check.state != CheckState::Ok) {
            assert!(check.remedy.is_some(), "{check:?}");
        }
    }

    #[test]
    fn a_brltty_that_a_board_would_start_is_in_the_way_until_it_is_masked() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::at(dir.path());
        assert_eq!(brltty(&root).state, CheckState::Ok);
        let units = root.path("/usr/lib/systemd/system");
        fs::create_dir_all(&units).unwrap();
        fs::write(units.join("brltty-udev.service"), "").unwrap();
        let check = brltty(&root);
        assert_eq!(check.state, CheckState::Warning);
        assert!(check.finding.contains("plugged in"), "{check:?}");
        let own = root.path("/etc/systemd/system");
        fs::create_dir_all(&own).unwrap();
        std::os::unix::fs::symlink("/dev/null", own.join("brltty-udev.service")).unwrap();
        assert_eq!(brltty(&root).state, CheckState::Ok);
    }
}
