//! Who is attached to a vhci port: the kernel knows the devid, not the Pi's name for the device.
//!
//! A record is written after the attach, which is what the Pi waits for, and the devid tells whether
//! it is still true. A helper killed in between leaves an attachment of nobody: the Pi does not find
//! it in our list, ends it and has it made anew.

use std::{collections::BTreeSet, fs, net::IpAddr};

use protocol::{BusId, DevId};
use serde::{Deserialize, Serialize};

use crate::{
    failure::Error,
    lock::RUN_DIR,
    root::{Root, names_in, replace_file},
};

/// Where the stock `usbip port` looks (`VHCI_STATE_PATH` in tools/usb/usbip).
const STOCK_DIR: &str = "/var/run/vhci_hcd";

/// What is attached to a port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The device's name on its Pi.
    pub busid: BusId,
    /// Its generation; none in a record of the stock tools.
    pub devid: Option<DevId>,
    /// The Pi as pi.conf or the stock tool's user named it.
    pub host: String,
    /// The Pi's address, where it is known.
    pub address: Option<IpAddr>,
    /// The Pi's boot id, where a session had told it.
    pub pi_boot_id: Option<String>,
}

impl Record {
    /// The record of a port, when it is about `devid` (none while the kernel does not say).
    #[must_use]
    pub fn load(root: &Root, port: u32, devid: Option<DevId>) -> Option<Self> {
        Self::load_own(root, port, devid).or_else(|| Self::load_stock(root, port, devid))
    }

    /// The ports whose records are about this busid, true or not. Costs less than asking the kernel
    /// about all ports.
    #[must_use]
    pub fn ports_of(root: &Root, busid: &BusId) -> BTreeSet<u32> {
        let is_of = |port: &u32| {
            let own = Self::load_own(root, *port, None);
            own.is_some_and(|record| record.busid == *busid)
                || root
                    .read(&stock_path(*port))
                    .is_ok_and(|text| text.split_ascii_whitespace().nth(2) == Some(busid.as_str()))
        };
        let names = [RUN_DIR, STOCK_DIR].map(|dir| names_in(&root.path(dir)));
        let recorded = names.iter().flatten();
        // Both directories have most of them, and each is to be looked at once.
        let mut ports: BTreeSet<u32> = recorded
            .filter_map(|name| name.strip_prefix("port")?.parse().ok())
            .collect();
        ports.retain(is_of);
        ports
    }

    fn load_own(root: &Root, port: u32, devid: Option<DevId>) -> Option<Self> {
        let text = root.read(&own_path(port)).ok()?;
        let record: Self = serde_json::from_str(&text).ok()?;
        (devid.is_none() || record.devid == devid).then_some(record)
    }

    /// A line such as `192.168.1.50 3240 1-1.1`, of `usbip attach`.
    fn load_stock(root: &Root, port: u32, devid: Option<DevId>) -> Option<Self> {
        let text = root.read(&stock_path(port)).ok()?;
        let mut words = text.split_ascii_whitespace();
        let host = words.next()?.to_owned();
        let busid: BusId = words.nth(1)?.parse().ok()?;
        // It outlives the attachment, so it counts only where the bus fits.
        let bus: u32 = busid.as_str().split('-').next()?.parse().ok()?;
        (devid?.busnum() == bus).then(|| Self {
            busid,
            devid: None,
            address: host.parse().ok(),
            host,
            pi_boot_id: None,
        })
    }

    /// Write the record.
    pub fn save(&self, root: &Root, port: u32) -> Result<(), Error> {
        // A record is plain data that always has a JSON form; an empty one would read as none.
        let text = serde_json::to_string(self).unwrap_or_default();
        replace_file(&root.path(&own_path(port)), &text)
    }

    /// Write the one that `usbip port` reads.
    pub fn save_stock(&self, root: &Root, port: u32, tcp_port: u16) -> Result<(), Error> {
        replace_file(
            &root.path(&stock_path(port)),
            &format!("{} {tcp_port} {}\n", self.host, self.busid),
        )
    }

    /// Forget a port.
    pub fn remove(root: &Root, port: u32) {
        // Absent already is as good; a record that stays is disproved by its devid.
        let _ = fs::remove_file(root.path(&own_path(port)));
        let _ = fs::remove_file(root.path(&stock_path(port)));
    }
}

fn own_path(port: u32) -> String {
    format!("{RUN_DIR}/port{port}")
}

fn stock_path(port: u32) -> String {
    format!("{STOCK_DIR}/port{port}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            busid: "1-1.1".parse().unwrap(),
            devid: Some(DevId(0x0001_0004)),
            host: "pi.local".into(),
            address: Some([192, 168, 1, 50].into()),
            pi_boot_id: None,
        }
    }

    #[test]
    fn a_record_is_ignored_once_its_devid_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::at(dir.path());
        record().save(&root, 2).unwrap();
        record().save_stock(&root, 2, 3240).unwrap();
        assert_eq!(
            Record::load(&root, 2, Some(DevId(0x0001_0004))),
            Some(record())
        );
        assert_eq!(Record::load(&root, 2, None), Some(record()));
        let of = Record::ports_of(&root, &record().busid);
        assert_eq!(of, [2].into());
        assert_eq!(
            fs::read_to_string(root.path("/var/run/vhci_hcd/port2")).unwrap(),
            "pi.local 3240 1-1.1\n"
        );
        // Another devid of bus 2 cannot be 1-1.1 in either record.
        assert_eq!(Record::load(&root, 2, Some(DevId(0x0002_0004))), None);
        Record::remove(&root, 2);
        assert_eq!(Record::load(&root, 2, None), None);
    }

    #[test]
    fn a_stock_attachment_is_known_by_its_own_record() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::at(dir.path());
        fs::create_dir_all(root.path(STOCK_DIR)).unwrap();
        fs::write(root.path(&stock_path(0)), "192.168.1.50 3240 1-1.3\n").unwrap();
        let found = Record::load(&root, 0, Some(DevId(0x0001_0009))).unwrap();
        assert_eq!(found.busid.as_str(), "1-1.3");
        let ports = |busid: &str| Record::ports_of(&root, &busid.parse().unwrap());
        assert_eq!((ports("1-1.3"), ports("1-1")), ([0].into(), [].into()));
        assert_eq!(found.address, Some([192, 168, 1, 50].into()));
    }
}
