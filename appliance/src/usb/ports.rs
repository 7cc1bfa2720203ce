//! Fast enumeration on the Pi's own USB ports.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::sysfs::Sysfs;

/// Bits of a port's `quirks` file (include/linux/usb/quirks.h): the old scheme, which sets the
/// address before it reads the descriptor, and 10 ms instead of 50 ms of recovery after a reset.
/// The kernel falls back to the new scheme for a device that the old one fails with.
const FAST: &str = "3";
const AS_SHIPPED: &str = "0";

/// Why a port could not be set.
#[derive(Debug, thiserror::Error)]
#[error("failed to set {path}")]
pub struct PortError {
    /// Its `quirks` file.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

/// Switches fast enumeration on or off for every port of every root hub and hub, but those of
/// vhci. It takes effect at the next plug. All ports are tried; the first failure is returned.
pub fn set_fast_enumeration(sysfs: &Sysfs, on: bool) -> Result<(), PortError> {
    let value = if on { FAST } else { AS_SHIPPED };
    let mut first = Ok(());
    for path in quirks_files(&sysfs.devices()) {
        // A hub may be unplugged meanwhile.
        let set = match fs::write(&path, value) {
            Err(source) if path.exists() => Err(PortError { path, source }),
            _ => Ok(()),
        };
        first = first.and(set);
    }
    first
}

/// `quirks` of each `HUB-portN` below each hub interface (`1-0:1.0`, `1-1.4:1.0`).
fn quirks_files(devices: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = entries(devices)
        .filter(|path| name(path).contains(':'))
        .filter_map(|interface| fs::canonicalize(interface).ok())
        .filter(|interface| {
            !interface
                .iter()
                .any(|part| part.to_string_lossy().starts_with("vhci_hcd"))
        })
        .flat_map(|interface| entries(&interface).collect::<Vec<_>>())
        .filter(|port| name(port).contains("-port"))
        .map(|port| port.join("quirks"))
        .filter(|file| file.exists())
        .collect();
    files.sort();
    files
}

fn entries(directory: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path())
}

fn name(path: &Path) -> std::borrow::Cow<'_, str> {
    path.file_name().unwrap_or_default().to_string_lossy()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn the_ports_of_root_hubs_and_hubs_are_set_and_those_of_vhci_are_not() {
        let root = tempfile::tempdir().unwrap();
        let sysfs = Sysfs::new(root.path());
        fs::create_dir_all(sysfs.devices()).unwrap();
        let port = |interface: &str, name: &str| {
            let real = root.path().join("devices").join(interface);
            let quirks = real.join(name).join("quirks");
            fs::create_dir_all(quirks.parent().unwrap()).unwrap();
            fs::write(&quirks, "0").unwrap();
            let link = sysfs.devices().join(real.file_name().unwrap());
            let _ = symlink(&real, link);
            quirks
        };
        let own = [
            port("platform/soc/usb1/1-0:1.0", "usb1-port1"),
            port("platform/soc/usb1/1-0:1.0", "usb1-port2"),
            port("platform/soc/usb1/1-1/1-1:1.0", "1-1-port4"),
        ];
        let vhci = port("platform/vhci_hcd.0/usb3/3-0:1.0", "usb3-port1");
        for (on, expected) in [(true, "3"), (false, "0")] {
            set_fast_enumeration(&sysfs, on).unwrap();
            for quirks in &own {
                assert_eq!(fs::read_to_string(quirks).unwrap(), expected);
            }
            assert_eq!(fs::read_to_string(&vhci).unwrap(), "0");
        }
    }
}
