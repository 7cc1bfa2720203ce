//! Switching a hub's port off and on.
//!
//! Each port has a file `disable` (Documentation/ABI/testing/sysfs-bus-usb, since Linux 6.0). Writing 1
//! to it takes the device away as an unplug does, and has the hub switch the port off. A hub that
//! cannot do that leaves the port as it is, and then never reports the device that is still in it: so
//! the hub is asked first.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use nusb::{
    MaybeFuture,
    transfer::{ControlIn, ControlType, Recipient},
};
use protocol::BusId;

use super::sysfs::Sysfs;

/// How long a port stays off: long enough for the capacitors of a board to run empty.
const OFF: Duration = Duration::from_secs(2);
/// How long a hub may take to answer.
const ANSWER: Duration = Duration::from_secs(5);

/// GET_DESCRIPTOR, and the types of a hub's (USB 2.0, 11.24.2.5; USB 3.2, 10.16.2.4).
const GET_DESCRIPTOR: u8 = 6;
const HUB: u16 = 0x29;
const SUPER_SPEED_HUB: u16 = 0x2a;
/// Where wHubCharacteristics is, and its bit for "no power switching" (USB 2.0, table 11-13).
const CHARACTERISTICS: usize = 3;
const NO_SWITCHING: u8 = 0b10;

/// Why a port was not switched off and on.
#[derive(Debug, thiserror::Error)]
pub enum PowerError {
    /// The kernel has no switch for it.
    #[error("this port cannot be switched: the kernel has no {}", .0.display())]
    NoFile(PathBuf),
    /// The hub has none.
    #[error("this port cannot be switched: its hub has no power switches")]
    NoSwitches,
    /// The hub could not be asked.
    #[error("failed to ask the hub whether its ports can be switched")]
    Ask(#[source] io::Error),
    /// Switching off.
    #[error("failed to switch the port off by {}", path.display())]
    Off {
        /// The file written to.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Switching on again.
    #[error("failed to switch the port on again by {}", path.display())]
    On {
        /// The file written to.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Switches the port of a device off and on again; to the kernel the device is unplugged and plugged
/// in. Whatever happens, the port is left on.
///
/// Success says that the hub did as told. Many hubs then only disconnect the data lines.
pub fn cycle(sysfs: &Sysfs, busid: &BusId) -> Result<(), PowerError> {
    cycle_with(sysfs, busid, &has_switches, OFF)
}

/// Asks a hub, given as its directory in sysfs, whether it can switch the power of its ports.
type Ask = dyn Fn(&Path) -> io::Result<bool>;

fn cycle_with(sysfs: &Sysfs, busid: &BusId, ask: &Ask, off: Duration) -> Result<(), PowerError> {
    let (hub, port) = place(&sysfs.devices(), busid);
    let switch = port.join("disable");
    if !switch.exists() {
        return Err(PowerError::NoFile(switch));
    }
    if !ask(&hub).map_err(PowerError::Ask)? {
        return Err(PowerError::NoSwitches);
    }
    // A USB 3 socket is a port of two hubs, and has power as long as one of them gives it. What is
    // plugged into the other half is another device only behind a cable that splits them.
    let other = port.join("peer");
    let free = !other.join("device").exists();
    let switches = [
        Some(switch),
        Some(other.join("disable")).filter(|other| free && other.exists()),
    ];
    let mut ports = Off(Vec::new());
    for path in switches.into_iter().flatten() {
        // Noted before: a write that fails may have done its work.
        ports.0.push(path.clone());
        fs::write(&path, "1").map_err(|source| PowerError::Off { path, source })?;
    }
    thread::sleep(off);
    ports.end()
}

/// Switches every port on that an earlier process left off.
pub fn all_on(sysfs: &Sysfs) {
    let entries = fs::read_dir(sysfs.devices())
        .into_iter()
        .flatten()
        .flatten();
    for interface in entries.filter(|e| e.file_name().to_string_lossy().contains(':')) {
        let ports = fs::read_dir(interface.path())
            .into_iter()
            .flatten()
            .flatten();
        for port in ports.filter(|e| e.file_name().to_string_lossy().contains("-port")) {
            let switch = port.path().join("disable");
            if fs::read_to_string(&switch).is_ok_and(|text| text.trim() == "1") {
                let written = fs::write(&switch, "0");
                tracing::info!(path = %switch.display(), ?written, "switched a port on");
            }
        }
    }
}

/// Files of the ports that are off; they are switched on when this is dropped.
struct Off(Vec<PathBuf>);

impl Off {
    /// Switch them on; all are tried, and the first failure is returned.
    fn end(&mut self) -> Result<(), PowerError> {
        let mut first = Ok(());
        while let Some(path) = self.0.pop() {
            let on = fs::write(&path, "0").map_err(|source| PowerError::On { path, source });
            first = first.and(on);
        }
        first
    }
}

impl Drop for Off {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::error!(%error, "a port stays off");
        }
    }
}

/// The directories of the hub that a device is plugged into, and of the port there: `1-1` and
/// `1-1:1.0/1-1-port4` for 1-1.4; `usb1` and `1-0:1.0/usb1-port2` for 1-2.
fn place(devices: &Path, busid: &BusId) -> (PathBuf, PathBuf) {
    let name = busid.as_str();
    let (hub, interface, port) = match (name.rsplit_once('.'), name.split_once('-')) {
        (Some((hub, port)), _) => (hub.to_owned(), format!("{hub}:1.0"), port),
        // Every busid has a "-".
        (None, parts) => {
            let (bus, port) = parts.unwrap_or((name, ""));
            (format!("usb{bus}"), format!("{bus}-0:1.0"), port)
        }
    };
    let port = devices.join(interface).join(format!("{hub}-port{port}"));
    (devices.join(hub), port)
}

fn has_switches(hub: &Path) -> io::Result<bool> {
    let number = |file: &str| -> io::Result<u16> {
        let text = fs::read_to_string(hub.join(file))?;
        text.trim().parse().map_err(io::Error::other)
    };
    let kind = if number("speed")? >= 5000 {
        SUPER_SPEED_HUB
    } else {
        HUB
    };
    let node = format!(
        "/dev/bus/usb/{:03}/{:03}",
        number("busnum")?,
        number("devnum")?
    );
    let node = File::options().read(true).write(true).open(node)?;
    let device = nusb::Device::from_fd(node.into()).wait()?;
    let descriptor = device
        .control_in(
            ControlIn {
                control_type: ControlType::Class,
                recipient: Recipient::Device,
                request: GET_DESCRIPTOR,
                value: kind << 8,
                index: 0,
                length: 16,
            },
            ANSWER,
        )
        .wait()?;
    let characteristics = descriptor.get(CHARACTERISTICS).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the hub's descriptor is too short",
        )
    })?;
    Ok(characteristics & NO_SWITCHING == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Ports {
        root: tempfile::TempDir,
        sysfs: Sysfs,
    }

    impl Ports {
        fn new(ports: &[&str]) -> Self {
            let root = tempfile::tempdir().unwrap();
            let sysfs = Sysfs::new(root.path());
            for port in ports {
                let port = sysfs.devices().join(port);
                fs::create_dir_all(&port).unwrap();
                fs::write(port.join("disable"), "0\n").unwrap();
            }
            Self { root, sysfs }
        }

        fn cycle(&self, busid: &str, switches: bool) -> Result<(), PowerError> {
            let ask = move |_: &Path| Ok(switches);
            cycle_with(&self.sysfs, &busid.parse().unwrap(), &ask, Duration::ZERO)
        }

        fn switch(&self, port: &str) -> String {
            fs::read_to_string(self.sysfs.devices().join(port).join("disable")).unwrap()
        }
    }

    #[test]
    fn ports_of_hubs_and_root_hubs_are_found_and_left_on() {
        let ports = Ports::new(&["1-0:1.0/usb1-port2", "1-1.4:1.0/1-1.4-port3"]);
        for (busid, port) in [
            ("1-2", "1-0:1.0/usb1-port2"),
            ("1-1.4.3", "1-1.4:1.0/1-1.4-port3"),
        ] {
            ports.cycle(busid, true).unwrap();
            // Written anew: the kernel's own text has a line end.
            assert_eq!(ports.switch(port), "0");
        }
        assert!(ports.root.path().exists());
    }

    #[test]
    fn what_cannot_be_switched_is_left_alone_and_told() {
        let ports = Ports::new(&["1-0:1.0/usb1-port2"]);
        let told = |busid, switches| ports.cycle(busid, switches).unwrap_err().to_string();
        assert!(told("1-3", true).contains("usb1-port3/disable"));
        assert_eq!(
            told("1-2", false),
            "this port cannot be switched: its hub has no power switches"
        );
        assert_eq!(ports.switch("1-0:1.0/usb1-port2"), "0\n");
    }

    #[test]
    fn both_halves_of_a_socket_are_switched_and_on_again_after_a_failure() {
        let ports = Ports::new(&["1-0:1.0/usb1-port2", "2-0:1.0/usb2-port1"]);
        let devices = ports.sysfs.devices();
        let peer = devices.join("1-0:1.0/usb1-port2/peer");
        std::os::unix::fs::symlink(devices.join("2-0:1.0/usb2-port1"), peer).unwrap();
        ports.cycle("1-2", true).unwrap();
        assert_eq!(ports.switch("2-0:1.0/usb2-port1"), "0");

        // The second one cannot be written: the first is on again.
        let broken = devices.join("2-0:1.0/usb2-port1/disable");
        fs::remove_file(&broken).unwrap();
        fs::create_dir(&broken).unwrap();
        let error = ports.cycle("1-2", true).unwrap_err();
        assert!(matches!(error, PowerError::Off { .. }), "{error}");
        assert_eq!(ports.switch("1-0:1.0/usb1-port2"), "0");
    }

    #[test]
    fn ports_that_were_left_off_are_switched_on() {
        let ports = Ports::new(&["1-0:1.0/usb1-port1", "1-0:1.0/usb1-port2"]);
        let off = ports.sysfs.devices().join("1-0:1.0/usb1-port2/disable");
        fs::write(&off, "1\n").unwrap();
        all_on(&ports.sysfs);
        assert_eq!(ports.switch("1-0:1.0/usb1-port2"), "0");
        assert_eq!(ports.switch("1-0:1.0/usb1-port1"), "0\n");
    }
}
