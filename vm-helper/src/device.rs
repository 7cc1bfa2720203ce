//! An attached device as this machine sees it: its interfaces, drivers and ttys.

use std::{fs, path::Path};

use protocol::{BusId, line::Tty};

use crate::root::{Root, names_in};

/// The drivers whose devices are exported. Each makes one tty per interface; `cdc_acm` makes one
/// per communication interface and claims the data interface without one.
pub(crate) const SERIAL_DRIVERS: [&str; 4] = ["cp210x", "ch341", "ftdi_sio", "cdc_acm"];
/// bInterfaceClass of CDC communication interfaces (USB CDC 1.2, table 16).
const CLASS_COMMUNICATION: &str = "02";

/// The ttys of a device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lines {
    /// In the order of the interfaces.
    pub ttys: Vec<Tty>,
    /// Whether every interface that its driver makes a tty of has one, and none of the same class
    /// still waits for that driver.
    pub complete: bool,
}

/// One interface's directory.
struct Interface {
    class: [String; 3],
    driver: Option<String>,
    tty: Option<String>,
}

fn interface(dir: &Path) -> Interface {
    let attribute = |name: &str| {
        fs::read_to_string(dir.join(name))
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    let names = names_in(dir);
    // usb-serial puts the port's directory in between, cdc_acm does not. The tty exists when its
    // character device does: the class directory below has its name.
    let tty = names
        .iter()
        .find(|name| name.starts_with("ttyUSB") && dir.join(name).join("tty").join(name).exists())
        .cloned()
        .or_else(|| names_in(&dir.join("tty")).into_iter().next());
    Interface {
        class: [
            attribute("bInterfaceClass"),
            attribute("bInterfaceSubClass"),
            attribute("bInterfaceProtocol"),
        ],
        driver: fs::read_link(dir.join("driver"))
            .ok()
            .and_then(|target| Some(target.file_name()?.to_str()?.to_owned())),
        tty,
    }
}

impl Interface {
    fn is_serial(&self) -> bool {
        match self.driver.as_deref() {
            Some("cdc_acm") => self.class[0] == CLASS_COMMUNICATION,
            Some(driver) => SERIAL_DRIVERS.contains(&driver),
            None => false,
        }
    }
}

/// Whether the device has been enumerated: it is in sysfs.
#[must_use]
pub fn exists(root: &Root, local: &BusId) -> bool {
    device_dir(root, local).join("bNumInterfaces").exists()
}

fn device_dir(root: &Root, local: &BusId) -> std::path::PathBuf {
    root.path(&format!("/sys/bus/usb/devices/{local}"))
}

/// The ttys that the device has by now, without links.
#[must_use]
pub fn lines(root: &Root, local: &BusId) -> Lines {
    let dir = device_dir(root, local);
    let mut names: Vec<String> = names_in(&dir)
        .into_iter()
        .filter(|name| name.starts_with(&format!("{local}:")))
        .collect();
    names.sort_by_key(|name| {
        // 3-1:1.10 comes after 3-1:1.2
        name.rsplit('.').next().and_then(|n| n.parse::<u32>().ok())
    });
    let interfaces: Vec<Interface> = names
        .iter()
        .map(|name| interface(&dir.join(name)))
        .collect();
    let expected = fs::read_to_string(dir.join("bNumInterfaces"))
        .ok()
        .and_then(|text| text.trim().parse::<usize>().ok());
    let waiting = |i: &Interface| {
        i.tty.is_none()
            && (i.is_serial()
                || i.driver.is_none()
                    && interfaces
                        .iter()
                        .any(|other| other.is_serial() && other.class == i.class))
    };
    let ttys: Vec<Tty> = interfaces
        .iter()
        .filter_map(|i| {
            Some(Tty {
                node: format!("/dev/{}", i.tty.as_deref()?),
                by_id: None,
                driver: i.driver.clone(),
            })
        })
        .collect();
    Lines {
        complete: !ttys.is_empty()
            && expected.is_none_or(|n| interfaces.len() >= n)
            && !interfaces.iter().any(waiting),
        ttys,
    }
}

/// Fill in the links below `/dev/serial/by-id`.
pub fn add_links(root: &Root, ttys: &mut [Tty]) {
    const BY_ID: &str = "/dev/serial/by-id";
    let dir = root.path(BY_ID);
    for name in names_in(&dir) {
        let target = fs::read_link(dir.join(&name)).unwrap_or_default();
        for tty in &mut *ttys {
            if target.file_name() == Path::new(&tty.node).file_name() {
                tty.by_id = Some(format!("{BY_ID}/{name}"));
            }
        }
    }
}

/// Whether udev is done with a tty: links and permissions are set. Its database entry must be newer
/// than `since_usec` (monotonic clock), or it is the one of the tty's predecessor.
#[must_use]
pub fn is_settled(root: &Root, tty: &Tty, since_usec: u64) -> bool {
    if !root.path("/run/udev").exists() {
        return true;
    }
    let name = tty.node.trim_start_matches("/dev/");
    let Ok(number) = root.read(&format!("/sys/class/tty/{name}/dev")) else {
        return false;
    };
    let Ok(entry) = root.read(&format!("/run/udev/data/c{number}")) else {
        return false;
    };
    // Line "I:12345678": when udev first handled the device (USEC_INITIALIZED).
    entry
        .lines()
        .find_map(|line| line.strip_prefix("I:")?.parse::<u64>().ok())
        .is_none_or(|initialised| initialised >= since_usec)
}

#[cfg(test)]
pub(crate) mod fake {
    //! Devices in a temporary sysfs.

    use super::*;
    use std::os::unix::fs::symlink;

    pub(crate) fn device(root: &Root, local: &str, interfaces: usize) {
        let dir = root.path(&format!("/sys/bus/usb/devices/{local}"));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("bNumInterfaces"), format!("{interfaces:2}\n")).unwrap();
    }

    pub(crate) fn interface(
        root: &Root,
        local: &str,
        number: usize,
        class: [&str; 3],
        driver: Option<&str>,
    ) {
        let dir = root.path(&format!("/sys/bus/usb/devices/{local}/{local}:1.{number}"));
        fs::create_dir_all(&dir).unwrap();
        let names = [
            "bInterfaceClass",
            "bInterfaceSubClass",
            "bInterfaceProtocol",
        ];
        for (name, value) in names.iter().zip(class) {
            fs::write(dir.join(name), format!("{value}\n")).unwrap();
        }
        if let Some(driver) = driver {
            symlink(
                format!("../../../../bus/usb/drivers/{driver}"),
                dir.join("driver"),
            )
            .unwrap();
        }
    }

    pub(crate) fn tty(root: &Root, local: &str, number: usize, name: &str) {
        let interface = format!("/sys/bus/usb/devices/{local}/{local}:1.{number}");
        let tty = if name.starts_with("ttyUSB") {
            format!("{interface}/{name}/tty/{name}")
        } else {
            format!("{interface}/tty/{name}")
        };
        fs::create_dir_all(root.path(&tty)).unwrap();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    const VENDOR: [&str; 3] = ["ff", "ff", "ff"];

    fn tree() -> (tempfile::TempDir, Root, BusId) {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::at(dir.path());
        (dir, root, "3-1".parse().unwrap())
    }

    fn nodes(lines: &Lines) -> Vec<&str> {
        lines.ttys.iter().map(|tty| tty.node.as_str()).collect()
    }

    #[test]
    fn an_ft2232_has_two_ttys_and_is_not_complete_with_one() {
        let (_dir, root, local) = tree();
        fake::device(&root, "3-1", 2);
        fake::interface(&root, "3-1", 0, VENDOR, Some("ftdi_sio"));
        fake::tty(&root, "3-1", 0, "ttyUSB0");
        assert!(!lines(&root, &local).complete);
        fake::interface(&root, "3-1", 1, VENDOR, None);
        assert!(!lines(&root, &local).complete);
        symlink(
            "../../bus/usb/drivers/ftdi_sio",
            root.path("/sys/bus/usb/devices/3-1/3-1:1.1/driver"),
        )
        .unwrap();
        assert!(!lines(&root, &local).complete);
        fake::tty(&root, "3-1", 1, "ttyUSB1");
        let found = lines(&root, &local);
        assert!(found.complete);
        assert_eq!(nodes(&found), ["/dev/ttyUSB0", "/dev/ttyUSB1"]);
        assert_eq!(found.ttys[1].driver.as_deref(), Some("ftdi_sio"));
    }

    #[test]
    fn an_esp32_s3_is_complete_with_its_one_tty() {
        let (_dir, root, local) = tree();
        fake::device(&root, "3-1", 3);
        fake::interface(&root, "3-1", 0, ["02", "02", "00"], Some("cdc_acm"));
        fake::interface(&root, "3-1", 1, ["0a", "02", "00"], Some("cdc_acm"));
        fake::interface(&root, "3-1", 2, ["ff", "ff", "01"], None);
        assert_eq!(lines(&root, &local), Lines::default());
        fake::tty(&root, "3-1", 0, "ttyACM0");
        let found = lines(&root, &local);
        assert!(found.complete);
        assert_eq!(nodes(&found), ["/dev/ttyACM0"]);
    }

    #[test]
    fn udev_is_done_when_its_entry_is_not_the_predecessors() {
        let (_dir, root, _) = tree();
        let mut ttys = [Tty {
            node: "/dev/ttyUSB0".into(),
            by_id: None,
            driver: None,
        }];
        assert!(is_settled(&root, &ttys[0], 0), "without udev");
        let dir = |path: &str| {
            fs::create_dir_all(root.path(path)).unwrap();
            root.path(path)
        };
        fs::write(dir("/sys/class/tty/ttyUSB0").join("dev"), "188:0\n").unwrap();
        let data = dir("/run/udev/data");
        assert!(!is_settled(&root, &ttys[0], 0));
        fs::write(data.join("c188:0"), "S:serial/by-id/x\nI:5000\n").unwrap();
        assert!(is_settled(&root, &ttys[0], 4000));
        assert!(!is_settled(&root, &ttys[0], 6000));
        symlink(
            "../../ttyUSB0",
            dir("/dev/serial/by-id").join("usb-FTDI-if00"),
        )
        .unwrap();
        add_links(&root, &mut ttys);
        assert_eq!(
            ttys[0].by_id.as_deref(),
            Some("/dev/serial/by-id/usb-FTDI-if00")
        );
    }
}
