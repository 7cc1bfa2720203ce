//! A sysfs tree to test against: a Pi 4 with USB 2 on bus 1 and USB 3 on bus 2.

use std::{fs, os::unix::fs::symlink, path::PathBuf};

use protocol::BusId;
use tempfile::TempDir;

use super::sysfs::Sysfs;

const CONTROLLER: &str = "platform/scb/fd500000.pcie/pci0000:00/0000:00:00.0/0000:01:00.0";

/// What a device to plug in says about itself.
#[derive(Debug, Clone)]
pub(crate) struct UsbDescription {
    busid: BusId,
    vendor: u16,
    product: u16,
    devnum: u16,
    interfaces: Vec<[u8; 3]>,
    texts: Option<[String; 3]>,
}

impl UsbDescription {
    pub(crate) fn new(busid: &str, vendor: u16, product: u16) -> Self {
        Self {
            busid: busid.parse().unwrap(),
            vendor,
            product,
            devnum: 2,
            interfaces: Vec::new(),
            texts: None,
        }
    }

    pub(crate) fn devnum(mut self, devnum: u16) -> Self {
        self.devnum = devnum;
        self
    }

    /// Adds an interface of this class, subclass and protocol.
    pub(crate) fn interface(mut self, class: [u8; 3]) -> Self {
        self.interfaces.push(class);
        self
    }

    /// Manufacturer, product name, serial number.
    pub(crate) fn texts(mut self, manufacturer: &str, product: &str, serial: &str) -> Self {
        self.texts = Some([manufacturer, product, serial].map(str::to_owned));
        self
    }

    fn descriptors(&self) -> Vec<u8> {
        let mut bytes = vec![18, 1, 0, 2, 0, 0, 0, 64];
        bytes.extend(self.vendor.to_le_bytes());
        bytes.extend(self.product.to_le_bytes());
        bytes.extend([0, 1, 1, 2, 3, 1]);
        let count = u8::try_from(self.interfaces.len()).unwrap();
        bytes.extend([9, 2, 9 + 9 * count, 0, count, 1, 0, 0x80, 50]);
        for (number, [class, subclass, protocol]) in (0..).zip(&self.interfaces) {
            bytes.extend([9, 4, number, 0, 0, *class, *subclass, *protocol, 0]);
        }
        bytes
    }
}

/// The tree, removed when dropped.
pub(crate) struct Tree {
    directory: TempDir,
}

impl Tree {
    pub(crate) fn new() -> Self {
        let tree = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        for name in ["usb", "usbip-host"] {
            fs::create_dir_all(tree.sysfs().driver(name)).unwrap();
        }
        fs::create_dir_all(tree.sysfs().devices()).unwrap();
        for bus in [1, 2] {
            let hub = tree.real(&format!("usb{bus}"));
            fs::create_dir_all(&hub).unwrap();
            symlink(&hub, tree.sysfs().devices().join(format!("usb{bus}"))).unwrap();
            tree.write_node(bus, 1);
        }
        tree.set_mounts("");
        tree
    }

    pub(crate) fn sysfs(&self) -> Sysfs {
        Sysfs::new(self.directory.path().join("sys")).with_mounts(self.mounts())
    }

    /// Stands for `/dev/bus/usb`.
    pub(crate) fn nodes(&self) -> PathBuf {
        self.directory.path().join("dev")
    }

    fn mounts(&self) -> PathBuf {
        self.directory.path().join("mountinfo")
    }

    pub(crate) fn set_mounts(&self, text: &str) {
        fs::write(self.mounts(), text).unwrap();
    }

    fn real(&self, name: &str) -> PathBuf {
        let devices = self.directory.path().join("sys/devices");
        devices.join(CONTROLLER).join(name)
    }

    fn write_node(&self, bus: u16, devnum: u16) {
        let node = self.nodes().join(format!("{bus:03}/{devnum:03}"));
        fs::create_dir_all(node.parent().unwrap()).unwrap();
        fs::write(node, "").unwrap();
    }

    /// Plugs a device in; the driver `usb` has it.
    pub(crate) fn plug(&self, device: &UsbDescription) {
        let busid = &device.busid;
        let bus: u16 = busid.as_str().split('-').next().unwrap().parse().unwrap();
        let real = self.real(&format!("usb{bus}/{busid}"));
        fs::create_dir_all(&real).unwrap();
        symlink(&real, self.sysfs().devices().join(busid.as_str())).unwrap();
        let speed = if bus == 2 { "5000" } else { "12" };
        for (file, content) in [
            ("devnum", device.devnum.to_string()),
            ("speed", speed.to_owned()),
        ] {
            self.write(busid, file, format!("{content}\n").as_bytes());
        }
        self.write(busid, "descriptors", &device.descriptors());
        for (file, text) in ["manufacturer", "product", "serial"]
            .iter()
            .zip(device.texts.iter().flatten())
        {
            self.write(busid, file, format!("{text}\n").as_bytes());
        }
        self.write_node(bus, device.devnum);
        self.set_driver(busid, Some("usb"));
    }

    /// Pulls a device out.
    pub(crate) fn unplug(&self, busid: &BusId) {
        self.set_driver(busid, None);
        let link = self.sysfs().devices().join(busid.as_str());
        let real = fs::read_link(&link).unwrap();
        let devid = self.sysfs().devid(busid).unwrap();
        fs::remove_file(link).unwrap();
        fs::remove_dir_all(real).unwrap();
        let node = format!("{:03}/{:03}", devid.busnum(), devid.devnum());
        fs::remove_file(self.nodes().join(node)).unwrap();
    }

    /// Gives a device to a driver, with what the kernel changes in its files then.
    pub(crate) fn set_driver(&self, busid: &BusId, driver: Option<&str>) {
        let device = self.sysfs().devices().join(busid.as_str());
        if let Ok(old) = fs::read_link(device.join("driver")) {
            fs::remove_file(old.join(busid.as_str())).unwrap();
            fs::remove_file(device.join("driver")).unwrap();
        }
        for file in ["usbip_status", "usbip_sockfd"] {
            let _ = fs::remove_file(device.join(file));
        }
        let configuration = if driver == Some("usb") { "1\n" } else { "\n" };
        self.write(busid, "bConfigurationValue", configuration.as_bytes());
        if let Some(driver) = driver {
            let driver_directory = self.sysfs().driver(driver);
            symlink(&driver_directory, device.join("driver")).unwrap();
            symlink(&device, driver_directory.join(busid.as_str())).unwrap();
            if driver == "usbip-host" {
                self.write(busid, "usbip_status", b"1\n");
                self.write(busid, "usbip_sockfd", b"");
            }
        }
    }

    /// Writes a file below a device's directory.
    pub(crate) fn write(&self, busid: &BusId, file: &str, content: &[u8]) {
        let path = self.sysfs().devices().join(busid.as_str()).join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub(crate) fn remove_file(&self, busid: &BusId, file: &str) {
        let path = self.sysfs().devices().join(busid.as_str()).join(file);
        fs::remove_file(path).unwrap();
    }
}
