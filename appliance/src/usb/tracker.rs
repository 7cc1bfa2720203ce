//! What was told about the devices, so that only changes are.

use std::collections::{BTreeMap, BTreeSet};

use protocol::BusId;
use tokio::sync::mpsc::{Sender, error::TrySendError};

use super::{
    device::{Change, UsbDevice},
    sysfs::Sysfs,
    uevent::Happened,
};

/// Why a change did not reach the receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Undelivered {
    /// No room: a snapshot is needed later.
    Full,
    /// Nobody listens any more.
    Closed,
}

/// Compares sysfs with what the receiver knows.
pub(super) struct Tracker {
    sysfs: Sysfs,
    changes: Sender<Change>,
    known: BTreeMap<BusId, UsbDevice>,
}

impl Tracker {
    pub(super) fn new(sysfs: Sysfs, changes: Sender<Change>) -> Self {
        Self {
            sysfs,
            changes,
            known: BTreeMap::new(),
        }
    }

    /// Tells everything.
    pub(super) fn snapshot(&mut self) -> Result<(), Undelivered> {
        // Reading sysfs takes longer than asking for room.
        let room = self.changes.try_reserve().map_err(undelivered)?;
        let devices = match self.sysfs.snapshot() {
            Ok(devices) => devices,
            Err(error) => {
                // Asked for again at the next reconcile; trying at once would only repeat this.
                tracing::error!(%error, "no snapshot of the USB devices");
                return Ok(());
            }
        };
        self.known = (devices.iter())
            .map(|device| (device.busid.clone(), device.clone()))
            .collect();
        room.send(Change::Snapshot(devices));
        Ok(())
    }

    /// Tells of new devices that are to be exported, before they can be read whole. Whether there
    /// are any.
    pub(super) fn coming(&mut self, added: &BTreeSet<BusId>) -> Result<bool, Undelivered> {
        let mut any = false;
        for busid in added {
            if self.known.contains_key(busid) {
                continue;
            }
            let coming = self.sysfs.coming(busid);
            if let Some(device) = coming.filter(|device| device.verdict.exports()) {
                self.send(Change::Coming(device.clone()))?;
                self.known.insert(busid.clone(), device);
                any = true;
            }
        }
        Ok(any)
    }

    /// Tells what is different about the devices that something happened to.
    pub(super) fn happened(&mut self, happened: &Happened) -> Result<(), Undelivered> {
        for busid in &happened.touched {
            let now = self.sysfs.device(busid);
            let known = self.known.get(busid);
            if now.as_ref() == known {
                continue;
            }
            let replaced = known.is_some_and(|known| {
                now.as_ref()
                    .is_none_or(|now| now.devid != known.devid || happened.removed.contains(busid))
            });
            if replaced {
                self.send(Change::Gone(busid.clone()))?;
                self.known.remove(busid);
            }
            if let Some(device) = now {
                self.send(Change::Present(device.clone()))?;
                self.known.insert(busid.clone(), device);
            }
        }
        Ok(())
    }

    /// Whether the device is known with a driver.
    pub(super) fn is_driven(&self, busid: &BusId) -> bool {
        (self.known.get(busid)).is_some_and(|device| device.driver.is_some())
    }

    fn send(&self, change: Change) -> Result<(), Undelivered> {
        let room = self.changes.try_reserve().map_err(undelivered)?;
        room.send(change);
        Ok(())
    }
}

fn undelivered(error: TrySendError<()>) -> Undelivered {
    match error {
        TrySendError::Full(()) => Undelivered::Full,
        TrySendError::Closed(()) => Undelivered::Closed,
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::{self, Receiver};

    use super::super::tree::{Tree, UsbDescription};
    use super::*;

    fn busid() -> BusId {
        "1-1".parse().unwrap()
    }

    fn device() -> UsbDescription {
        UsbDescription::new("1-1", 0x10c4, 0xea60).interface([0xff, 0, 0])
    }

    fn touched(removed: bool) -> Happened {
        let mut happened = Happened::default();
        happened.touched.insert(busid());
        if removed {
            happened.removed.insert(busid());
        }
        happened
    }

    fn told(changes: &mut Receiver<Change>) -> Vec<String> {
        std::iter::from_fn(|| changes.try_recv().ok())
            .map(|change| match change {
                Change::Snapshot(devices) => format!("snapshot of {}", devices.len()),
                Change::Present(device) => {
                    let driver = device.driver.as_deref().unwrap_or("no driver");
                    format!("{} {} {driver}", device.busid, device.devid)
                }
                Change::Coming(device) => format!("{} {} coming", device.busid, device.devid),
                Change::Gone(busid) => format!("{busid} gone"),
            })
            .collect()
    }

    #[test]
    fn a_life_of_plugs_and_pulls_is_told_change_by_change() {
        let tree = Tree::new();
        let (sender, mut changes) = mpsc::channel(8);
        let mut tracker = Tracker::new(tree.sysfs(), sender);
        tracker.snapshot().unwrap();
        tracker.happened(&touched(true)).unwrap();
        assert_eq!(told(&mut changes), ["snapshot of 0"]);

        tree.plug(&device());
        tracker.happened(&touched(false)).unwrap();
        tracker.happened(&touched(false)).unwrap();
        assert_eq!(told(&mut changes), ["1-1 00010002 usb"]);

        tree.set_driver(&busid(), Some("usbip-host"));
        tracker.happened(&touched(false)).unwrap();
        assert_eq!(told(&mut changes), ["1-1 00010002 usbip-host"]);

        // Pulled and plugged before anybody looked.
        tree.unplug(&busid());
        tree.plug(&device().devnum(3));
        tracker.happened(&touched(true)).unwrap();
        assert_eq!(told(&mut changes), ["1-1 gone", "1-1 00010003 usb"]);

        tree.unplug(&busid());
        tracker.happened(&touched(true)).unwrap();
        tracker.happened(&touched(true)).unwrap();
        assert_eq!(told(&mut changes), ["1-1 gone"]);
    }

    #[test]
    fn a_device_is_told_of_before_its_driver_is_bound_and_whole_afterwards() {
        let tree = Tree::new();
        let (sender, mut changes) = mpsc::channel(8);
        let mut tracker = Tracker::new(tree.sysfs(), sender);
        tracker.snapshot().unwrap();
        tree.plug(&device());
        tree.plug(&UsbDescription::new("1-2", 0x046d, 0xc31c).interface([3, 1, 1]));
        let added = ["1-1", "1-2", "1-3"].map(|busid| busid.parse().unwrap());
        assert_eq!(tracker.coming(&added.into()), Ok(true));
        assert_eq!(tracker.coming(&[busid()].into()), Ok(false));
        tracker.happened(&touched(false)).unwrap();
        let all = ["snapshot of 0", "1-1 00010002 coming", "1-1 00010002 usb"];
        assert_eq!(told(&mut changes), all);

        // Pulled before it was whole.
        tree.unplug(&busid());
        tracker.happened(&touched(true)).unwrap();
        tree.plug(&device().devnum(3));
        assert_eq!(tracker.coming(&[busid()].into()), Ok(true));
        tree.unplug(&busid());
        tracker.happened(&touched(true)).unwrap();
        let all = ["1-1 gone", "1-1 00010003 coming", "1-1 gone"];
        assert_eq!(told(&mut changes), all);
    }

    #[test]
    fn a_full_channel_is_noticed_and_mended_by_a_snapshot() {
        let tree = Tree::new();
        let (sender, mut changes) = mpsc::channel(1);
        let mut tracker = Tracker::new(tree.sysfs(), sender);
        tracker.snapshot().unwrap();
        tree.plug(&device());
        assert_eq!(tracker.happened(&touched(false)), Err(Undelivered::Full));
        assert_eq!(tracker.snapshot(), Err(Undelivered::Full));
        assert_eq!(told(&mut changes), ["snapshot of 0"]);
        tracker.snapshot().unwrap();
        assert_eq!(told(&mut changes), ["snapshot of 1"]);
        drop(changes);
        assert_eq!(tracker.snapshot(), Err(Undelivered::Closed));
    }
}
