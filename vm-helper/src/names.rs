//! Which tty name each device had: attached in that order again, they get the same names.
//!
//! The kernel gives the lowest free number to whoever enumerates first, so the order of attaching
//! is all that can be done, and it is enough when the same devices come back. A device is known
//! here by its place and its product: its serial number is read only after it has been attached.

use std::{collections::BTreeMap, path::PathBuf};

use protocol::{BusId, wire::Device};
use serde::{Deserialize, Serialize};

use crate::{
    failure::Error,
    lock::Lock,
    root::{Root, replace_file},
};

const FILE: &str = "/var/lib/usbip-vm/names";

/// What a device was called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Named {
    /// idVendor and idProduct, as in `0403:6001`.
    product: String,
    /// Its first tty, as in `/dev/ttyUSB0`.
    node: String,
}

/// The remembered names by busid.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names(BTreeMap<BusId, Named>);

/// Where a device stands in the order: kind of tty and number; unknown devices come last.
type Rank = (bool, String, u32);

impl Names {
    /// What is remembered; nothing when the file is missing or damaged.
    #[must_use]
    pub fn load(root: &Root) -> Self {
        let text = root.read(FILE).unwrap_or_default();
        Self(serde_json::from_str(&text).unwrap_or_default())
    }

    /// Sort devices into the order in which they should be attached.
    pub fn sort(&self, devices: &mut [Device]) {
        devices.sort_by_cached_key(|device| {
            let named = self
                .0
                .get(&device.busid)
                .filter(|named| named.product == product(device));
            (rank(named), device.busid.clone())
        });
    }
}

fn product(device: &Device) -> String {
    format!("{:04x}:{:04x}", device.vendor, device.product)
}

fn rank(named: Option<&Named>) -> Rank {
    let Some(named) = named else {
        return (true, String::new(), 0);
    };
    let kind = named.node.trim_end_matches(|c: char| c.is_ascii_digit());
    let number = named.node[kind.len()..].parse().unwrap_or(u32::MAX);
    (false, kind.to_owned(), number)
}

/// Remember what a device is called now. Written only when it changes.
pub fn remember(root: &Root, device: &Device, node: &str) -> Result<PathBuf, Error> {
    let path = root.path(FILE);
    let _lock = Lock::names(root)?;
    let mut names = Names::load(root).0;
    let entry = Named {
        product: product(device),
        node: node.to_owned(),
    };
    if names.get(&device.busid) == Some(&entry) {
        return Ok(path);
    }
    // A name belongs to one device: whoever had it has been gone for long.
    names.retain(|_, other| other.node != entry.node);
    names.insert(device.busid.clone(), entry);
    // Plain data that always has a JSON form.
    replace_file(&path, &serde_json::to_string(&names).unwrap_or_default())?;
    Ok(path)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use protocol::{DevId, Speed};

    pub(crate) fn device(busid: &str, devnum: u16) -> Device {
        Device {
            path: format!("/sys/devices/{busid}"),
            busid: busid.parse().unwrap(),
            devid: DevId::new(1, devnum),
            speed: Speed::Full,
            vendor: 0x0403,
            product: 0x6001,
            bcd_device: 0x0600,
            class: [0; 3],
            configuration: 1,
            configurations: 1,
            interfaces: vec![[0xff; 3]],
        }
    }

    fn order(root: &Root, mut devices: Vec<Device>) -> Vec<String> {
        Names::load(root).sort(&mut devices);
        devices.iter().map(|d| d.busid.to_string()).collect()
    }

    #[test]
    fn devices_come_back_in_the_order_of_their_names() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::at(dir.path());
        let all = || vec![device("1-1.10", 3), device("1-1.2", 4), device("1-1.1", 5)];
        assert_eq!(order(&root, all()), ["1-1.1", "1-1.2", "1-1.10"]);
        remember(&root, &device("1-1.10", 3), "/dev/ttyUSB2").unwrap();
        remember(&root, &device("1-1.2", 4), "/dev/ttyUSB10").unwrap();
        assert_eq!(order(&root, all()), ["1-1.10", "1-1.2", "1-1.1"]);
        // Another product in the same place is another device.
        let mut devices = all();
        devices[0].product = 0x6010;
        assert_eq!(order(&root, devices), ["1-1.2", "1-1.1", "1-1.10"]);
    }

    #[test]
    fn a_name_belongs_to_one_device() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::at(dir.path());
        remember(&root, &device("1-1.1", 3), "/dev/ttyUSB0").unwrap();
        remember(&root, &device("1-1.2", 4), "/dev/ttyUSB0").unwrap();
        assert_eq!(
            order(&root, vec![device("1-1.1", 3), device("1-1.2", 4)]),
            ["1-1.2", "1-1.1"]
        );
    }
}
