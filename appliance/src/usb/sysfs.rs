//! The USB devices that are there, read from sysfs.

use std::{
    fs,
    io::{self, ErrorKind},
    path::{Component, Path, PathBuf},
};

use protocol::{BusId, DevId, Speed};

use super::{
    descriptors::{self, Described, Interface},
    device::{StubStatus, UsbDevice},
    directory::Directory,
    policy,
    usage::{self, Mounts, Usage},
};

/// Why the devices could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SysfsError {
    /// The list of devices.
    #[error("failed to list USB devices in {path}")]
    List {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A sysfs tree. All methods block.
#[derive(Debug, Clone)]
pub struct Sysfs {
    root: PathBuf,
    mounts: PathBuf,
}

impl Sysfs {
    /// `root` is `/sys`, or a tree like it.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        Self {
            // A real path, as those of the devices below it are.
            root: fs::canonicalize(&root).unwrap_or(root),
            mounts: "/proc/self/mountinfo".into(),
        }
    }

    /// Takes another file for the list of mounts, in the form of proc_pid_mountinfo(5).
    #[must_use]
    pub fn with_mounts(mut self, mounts: impl Into<PathBuf>) -> Self {
        self.mounts = mounts.into();
        self
    }

    /// The directory with a link for each device and interface.
    pub(super) fn devices(&self) -> PathBuf {
        self.root.join("bus/usb/devices")
    }

    /// The directory of a driver for whole devices: `usb`, `usbip-host`.
    pub(super) fn driver(&self, name: &str) -> PathBuf {
        self.root.join("bus/usb/drivers").join(name)
    }

    /// All devices but the root hubs, by busid. One that vanishes meanwhile is left out.
    pub fn snapshot(&self) -> Result<Vec<UsbDevice>, SysfsError> {
        let path = self.devices();
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            // No USB controller yet: the directory comes with the first.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(SysfsError::List { path, source }),
        };
        let mounts = Mounts::new(&self.mounts);
        let mut devices: Vec<_> = entries
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter_map(|busid| self.read(&busid, &mounts))
            .collect();
        devices.sort_by(|a, b| a.busid.cmp(&b.busid));
        Ok(devices)
    }

    /// One device, none when it is not there.
    #[must_use]
    pub fn device(&self, busid: &BusId) -> Option<UsbDevice> {
        self.read(busid, &Mounts::new(&self.mounts))
    }

    /// `usbip_status` of a device, none when usbip-host does not have it.
    #[must_use]
    pub fn stub_status(&self, busid: &BusId) -> Option<StubStatus> {
        stub_status(&Directory::open(&self.devices().join(busid.as_str()))?)
    }

    /// Bus and device number, none when the device is not there.
    #[must_use]
    pub fn devid(&self, busid: &BusId) -> Option<DevId> {
        let directory = Directory::open(&self.devices().join(busid.as_str()))?;
        devid(&directory, busid)
    }

    /// The real path of a device's directory. The links of sysfs are relative and lead to one.
    fn directory(&self, busid: &BusId) -> Option<PathBuf> {
        let link = self.devices().join(busid.as_str());
        let target = fs::read_link(&link).ok()?;
        let mut directory = self.devices();
        for part in target.components() {
            match part {
                Component::ParentDir => {
                    directory.pop();
                }
                Component::Normal(name) => directory.push(name),
                _ => return fs::canonicalize(link).ok(),
            }
        }
        Some(directory)
    }

    /// One device whose driver is not bound yet: what can be read while the kernel holds its lock for
    /// that (`__device_attach`, drivers/base/dd.c), so without its texts and configuration.
    #[must_use]
    pub fn coming(&self, busid: &BusId) -> Option<UsbDevice> {
        Some(Opened::new(self, busid)?.facts(0, &Usage::default()))
    }

    fn read(&self, busid: &BusId, mounts: &Mounts) -> Option<UsbDevice> {
        let opened = Opened::new(self, busid)?;
        let Opened {
            path, directory, ..
        } = &opened;
        let configuration = directory.number("bConfigurationValue").unwrap_or(0);
        let driver = directory.link_name("driver");
        // Only an active configuration has directories for its interfaces.
        let directories = opened
            .active(configuration)
            .into_iter()
            .filter(|_| configuration != 0)
            .map(|interface| path.join(format!("{busid}:{configuration}.{}", interface.number)));
        let usage = usage::below(directories, mounts);
        Some(UsbDevice {
            manufacturer: directory.string("manufacturer"),
            product_name: directory.string("product"),
            serial: directory.string("serial"),
            stub: (driver.as_deref() == Some("usbip-host"))
                .then(|| stub_status(directory))
                .flatten(),
            driver,
            ..opened.facts(configuration, &usage)
        })
    }
}

/// What a device is, without what the kernel locks it for.
struct Opened {
    busid: BusId,
    path: PathBuf,
    /// All that is read through it is of one device, whatever is plugged in there meanwhile.
    directory: Directory,
    described: Described,
    interfaces: Vec<Interface>,
    speed: Speed,
    place: Place,
    devid: DevId,
}

impl Opened {
    fn new(sysfs: &Sysfs, busid: &BusId) -> Option<Self> {
        let path = sysfs.directory(busid)?;
        let directory = Directory::open(&path)?;
        let bytes = directory.bytes("descriptors")?;
        let speed = Speed::from_sysfs(&directory.text("speed")?)?;
        Some(Self {
            busid: busid.clone(),
            described: descriptors::device(&bytes)?,
            interfaces: descriptors::interfaces(&bytes),
            speed,
            place: Place::of(&sysfs.root, &path, busid, speed),
            devid: devid(&directory, busid)?,
            path,
            directory,
        })
    }

    fn active(&self, configuration: u8) -> Vec<Interface> {
        descriptors::of_configuration(&self.interfaces, configuration)
    }

    fn facts(&self, configuration: u8, usage: &Usage) -> UsbDevice {
        let Described {
            vendor,
            product,
            bcd_device,
            class,
            configurations,
        } = self.described;
        let verdict = policy::verdict(&policy::Facts {
            vendor,
            product,
            device_class: class[0],
            interfaces: &self.interfaces,
            configuration,
            usage,
            on_vhci: self.place.on_vhci,
        });
        UsbDevice {
            busid: self.busid.clone(),
            devid: self.devid,
            speed: self.speed,
            vendor,
            product,
            bcd_device,
            class,
            configuration,
            configurations,
            interfaces: (self.active(configuration).into_iter())
                .map(|interface| interface.class)
                .collect(),
            manufacturer: None,
            product_name: None,
            serial: None,
            port_path: self.place.port_path.clone(),
            driver: None,
            stub: None,
            verdict,
        }
    }
}

/// Where a device is plugged in.
struct Place {
    port_path: String,
    on_vhci: bool,
}

impl Place {
    fn of(root: &Path, directory: &Path, busid: &BusId, speed: Speed) -> Self {
        let devices = root.join("devices");
        let below = directory.strip_prefix(&devices).unwrap_or(directory);
        let names: Vec<_> = below.iter().map(|part| part.to_string_lossy()).collect();
        let bus = busid.as_str().split('-').next().unwrap_or_default();
        let root_hub = format!("usb{bus}");
        let at = names.iter().position(|part| *part == root_hub);
        let controller = names[..at.unwrap_or(0)].join("/");
        // An xHCI controller has two root hubs, whose ports have the same numbers: one for what is
        // SuperSpeed, and one for the rest.
        let kind = if speed.is_super() { "usb3" } else { "usb" };
        let ports = busid
            .as_str()
            .split_once('-')
            .map_or("", |(_, ports)| ports);
        Self {
            port_path: format!("{controller}/{kind}:{ports}"),
            on_vhci: names.iter().any(|part| part.starts_with("vhci_hcd")),
        }
    }
}

/// A busid begins with the number of its bus (`usb_alloc_dev`, drivers/usb/core/usb.c).
fn devid(directory: &Directory, busid: &BusId) -> Option<DevId> {
    let (bus, _) = busid.as_str().split_once('-')?;
    Some(DevId::new(bus.parse().ok()?, directory.number("devnum")?))
}

fn stub_status(directory: &Directory) -> Option<StubStatus> {
    match directory.number("usbip_status")? {
        1u8 => Some(StubStatus::Available),
        2 => Some(StubStatus::Used),
        3 => Some(StubStatus::Error),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{
        device::Verdict,
        tree::{Tree, UsbDescription},
    };
    use super::*;

    fn busid(text: &str) -> BusId {
        text.parse().unwrap()
    }

    #[test]
    fn a_device_has_its_facts() {
        let tree = Tree::new();
        tree.plug(
            &UsbDescription::new("1-1.4", 0x10c4, 0xea60)
                .interface([0xff, 0, 0])
                .texts("Silicon Labs", "CP2102", "0001"),
        );
        let devices = tree.sysfs().snapshot().unwrap();
        let [device] = &devices[..] else {
            panic!("{devices:?}");
        };
        assert_eq!(device.busid, busid("1-1.4"));
        assert_eq!(device.devid, DevId::new(1, 2));
        assert_eq!(device.speed, Speed::Full);
        assert_eq!((device.vendor, device.product), (0x10c4, 0xea60));
        assert_eq!(device.bcd_device, 0x0100);
        assert_eq!(device.interfaces, [[0xff, 0, 0]]);
        assert_eq!(device.manufacturer.as_deref(), Some("Silicon Labs"));
        assert_eq!(device.product_name.as_deref(), Some("CP2102"));
        assert_eq!(device.serial.as_deref(), Some("0001"));
        assert_eq!(device.driver.as_deref(), Some("usb"));
        assert_eq!(device.stub, None);
        assert_eq!(device.verdict, Verdict::Export("cp210x serial".to_owned()));
        assert_eq!(
            device.port_path,
            "platform/scb/fd500000.pcie/pci0000:00/0000:00:00.0/0000:01:00.0/usb:1.4"
        );
        assert_eq!(tree.sysfs().device(&busid("1-1.4")).as_ref(), Some(device));
        assert_eq!(tree.sysfs().device(&busid("1-1.3")), None);
    }

    #[test]
    fn a_bound_device_keeps_its_verdict_and_interfaces() {
        let tree = Tree::new();
        tree.plug(
            &UsbDescription::new("1-1", 0x303a, 0x1001)
                .interface([2, 2, 0])
                .interface([10, 0, 0])
                .interface([0xff, 0xff, 1]),
        );
        tree.set_driver(&busid("1-1"), Some("usbip-host"));
        let device = tree.sysfs().device(&busid("1-1")).unwrap();
        assert_eq!(device.configuration, 0);
        assert_eq!(device.interfaces.len(), 3);
        assert_eq!(device.stub, Some(StubStatus::Available));
        assert_eq!(device.verdict, Verdict::Export("cdc_acm serial".to_owned()));
    }

    #[test]
    fn the_two_halves_of_one_controller_have_different_ports() {
        let tree = Tree::new();
        let sysfs = tree.sysfs();
        for name in ["1-1", "2-1"] {
            tree.plug(&UsbDescription::new(name, 0x10c4, 0xea60).interface([0xff, 0, 0]));
        }
        let paths: Vec<_> = sysfs.snapshot().unwrap();
        assert!(paths[0].port_path.ends_with("/usb:1"));
        assert!(paths[1].port_path.ends_with("/usb3:1"));
    }

    /// A device descriptor.
    const DEVICE: [u8; 18] = [
        18, 1, 0, 2, 0, 0, 0, 64, 0xc4, 0x10, 0x60, 0xea, 0, 1, 1, 2, 3, 1,
    ];

    #[test]
    fn hostile_and_half_removed_devices_do_no_harm() {
        let tree = Tree::new();
        for (name, file, content) in [
            ("1-1", "manufacturer", &b"\xff\xfe\0<script>\x1b[2J\n"[..]),
            ("1-2", "descriptors", b"\x12\x01\0\x02"),
            ("1-3", "speed", b""),
            (
                "1-4",
                "descriptors",
                &[&DEVICE[..], &vec![0xff; 100_000]].concat(),
            ),
            ("1-5", "devnum", b"99999999999\n"),
        ] {
            tree.plug(&UsbDescription::new(name, 0x10c4, 0xea60).interface([0xff, 0, 0]));
            tree.write(&busid(name), file, content);
        }
        tree.plug(&UsbDescription::new("1-6", 0x10c4, 0xea60));
        tree.remove_file(&busid("1-6"), "descriptors");
        let devices = tree.sysfs().snapshot().unwrap();
        let seen: Vec<_> = devices.iter().map(|d| d.busid.as_str()).collect();
        assert_eq!(seen, ["1-1", "1-4"]);
        assert_eq!(
            devices[0].manufacturer.as_deref(),
            Some("\u{fffd}\u{fffd}\0<script>\x1b[2J")
        );
    }

    #[test]
    fn what_this_pi_uses_is_refused() {
        let tree = Tree::new();
        let nucleo = UsbDescription::new("1-1", 0x0483, 0x374b)
            .interface([0xff, 0xff, 0xff])
            .interface([8, 6, 0x50])
            .interface([2, 2, 1])
            .interface([10, 0, 0]);
        tree.plug(&nucleo);
        let verdict = || tree.sysfs().device(&busid("1-1")).unwrap().verdict;
        assert_eq!(verdict(), Verdict::Export("cdc_acm serial".to_owned()));

        let disk = "1-1:1.1/host0/target0:0:0/0:0:0:0/block/sda";
        tree.write(&busid("1-1"), &format!("{disk}/dev"), b"8:0\n");
        tree.write(&busid("1-1"), &format!("{disk}/sda1/dev"), b"8:1\n");
        assert!(verdict().exports(), "the disk is there, but not mounted");
        tree.set_mounts("30 1 8:1 / / ro - vfat /dev/root ro\n");
        let reason = "it carries a mounted file system (sda1)".to_owned();
        assert_eq!(verdict(), Verdict::Refuse(reason));

        tree.set_mounts("");
        tree.write(&busid("1-1"), "1-1:1.0/net/eth1/mtu", b"1500\n");
        let reason = "it is this Pi's network interface eth1".to_owned();
        assert_eq!(verdict(), Verdict::Refuse(reason));
    }

    #[test]
    fn no_bus_at_all_is_no_error() {
        let empty = tempfile::tempdir().unwrap();
        assert_eq!(Sysfs::new(empty.path()).snapshot().unwrap(), []);
    }
}
