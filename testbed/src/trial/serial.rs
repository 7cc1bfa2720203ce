//! Devices that are plugged into the Pi, their ttys on the VM, and bytes through them.

use std::time::Duration;

use protocol::DevId;
use protocol::line::Attachment;

use super::{Bed, Error, wait_until};
use crate::agent::Transfer;
use crate::pattern;
use crate::redir::Device;
use crate::usb::{Plugged, What};

/// A transfer that moves nothing for so long has stalled.
const IDLE_MS: u64 = 20_000;
/// A transfer takes no longer than this: the slowest chip passes some 20 KB/s under TCG.
const TRANSFER: Duration = Duration::from_mins(3);

/// A device that was plugged in.
#[derive(Debug, Clone)]
pub struct Plug {
    /// Its number at the Pi's ports.
    pub number: u32,
    /// Its busid on the Pi.
    pub busid: String,
    /// How many ttys it has.
    pub ttys: usize,
}

/// A transfer that is over.
#[derive(Debug, Clone, Copy)]
pub struct Passed {
    /// How long it took.
    pub seconds: f64,
}

impl Bed {
    /// Plugs a device into the lowest free port of the Pi.
    pub fn plug(&self, what: impl Into<What>) -> Result<Plug, Error> {
        self.plug_at(what, None, None)
    }

    /// Plugs a device into a port of the Pi, with a serial number of its own.
    pub fn plug_at(
        &self,
        what: impl Into<What>,
        port: Option<&str>,
        serial: Option<&str>,
    ) -> Result<Plug, Error> {
        let what = what.into();
        let number = self.pi().plug(what, port, serial)?;
        let plugged = self.pi().plugged();
        let busid = plugged
            .iter()
            .find(|plugged| plugged.number == number)
            .map(Plugged::busid)
            .unwrap_or_default();
        let ttys = match what {
            What::Played(kind) => kind.ttys().len(),
            What::QemuSerial => 1,
            _ => 0,
        };
        Ok(Plug {
            number,
            busid,
            ttys,
        })
    }

    /// Pulls a device out.
    pub fn unplug(&self, plug: &Plug) -> Result<(), Error> {
        Ok(self.pi().unplug(plug.number)?)
    }

    /// The far side of a played device.
    pub fn device(&self, plug: &Plug) -> Result<Device, Error> {
        Ok(self.pi().device(plug.number)?)
    }

    /// Waits until a device is attached as it is plugged in now, and only once, all of its ttys are there, and udev is
    /// done with them.
    pub fn attached(&self, plug: &Plug) -> Result<Attachment, Error> {
        wait_until(&format!("{} attached", plug.busid), || {
            let present = self.present(plug).map_err(|error| error.to_string())?;
            let status = self.status().map_err(|error| error.to_string())?;
            let mut found: Vec<_> = status
                .attachments
                .into_iter()
                .filter(|attachment| attachment.busid.as_str() == plug.busid)
                .collect();
            let ready = |attachment: &Attachment| {
                attachment.ttys.len() == plug.ttys
                    && attachment.ttys.iter().all(|tty| tty.by_id.is_some())
            };
            match found.as_slice() {
                [one] if Some(one.devid) == present && ready(one) => Ok(found.remove(0)),
                _ => Err(format!("the Pi has lent {present:?}, the VM has {found:?}")),
            }
        })
    }

    /// The devid under which a device is plugged in, none unless the Pi's kernel has lent it to somebody.
    fn present(&self, plug: &Plug) -> Result<Option<DevId>, Error> {
        let facts = format!(
            "cd /sys/bus/usb/devices/{} && cat busnum devnum usbip_status",
            plug.busid
        );
        let facts = self.pi().sh(&facts)?.stdout;
        let mut numbers = facts.lines().map(str::parse::<u16>);
        // 2 is SDEV_ST_USED (drivers/usb/usbip/usbip_common.h).
        match (numbers.next(), numbers.next(), numbers.next()) {
            (Some(Ok(bus)), Some(Ok(device)), Some(Ok(2))) => Ok(Some(DevId::new(bus, device))),
            _ => Ok(None),
        }
    }

    /// Waits until a device that was attached has left nothing on the VM: no vhci port, no tty.
    pub fn gone(&self, attachment: &Attachment) -> Result<(), Error> {
        wait_until(&format!("{} gone from the VM", attachment.busid), || {
            let look = || {
                let used = self.vhci_in_use()?;
                let nodes: Vec<_> = attachment.ttys.iter().map(|tty| &*tty.node).collect();
                let left = self.vm().sh(&format!("ls -d {}", nodes.join(" ")))?.stdout;
                Ok::<_, Error>((used, left))
            };
            let (used, left) = look().map_err(|error| error.to_string())?;
            // The second word of a line of vhci's status is the port.
            let port = format!("{:04}", attachment.port);
            let holds = |line: &&String| line.split_whitespace().nth(1) == Some(&port);
            match (used.iter().find(holds), left.is_empty()) {
                (None, true) => Ok(()),
                (Some(line), _) => Err(format!("vhci has {line}")),
                (None, false) => Err(format!("there is {left}")),
            }
        })
    }

    /// Passes `count` bytes each way at once over a tty of the VM at `baud`, and compares digests. `device` is the
    /// far side, of the right line. Fails unless the device was set to that speed.
    pub fn pass(
        &self,
        node: &str,
        device: &Device,
        baud: u32,
        count: usize,
    ) -> Result<Passed, Error> {
        let failed = |why: String| Error::Bytes {
            node: node.to_owned(),
            why,
        };
        let tty = self.vm().open_tty(node, baud)?;
        // What was there before is not ours.
        let _ = device.take_received();
        let (up, down) = (u64::from(baud), u64::from(baud) + 1);
        let sent = pattern::bytes(down, count);
        device
            .feed(&sent)
            .map_err(|error| failed(error.to_string()))?;
        let transfer = Transfer {
            seed: up,
            send: count,
            receive: count,
            idle_ms: IDLE_MS,
        };
        let result = tty.transfer(transfer, TRANSFER)?;
        if let Some(why) = result.failure {
            return Err(failed(why));
        }
        if result.received_sha256 != pattern::sha256(&sent) {
            return Err(failed("what the VM received differs".to_owned()));
        }
        // The tty took the last byte; the device may still be getting it.
        let _ = device.wait_until(TRANSFER, |device| device.received_len() >= count);
        if pattern::sha256(&device.take_received()) != pattern::sha256(&pattern::bytes(up, count)) {
            return Err(failed("what the device received differs".to_owned()));
        }
        if device.baud() != baud {
            return Err(failed(format!(
                "the device is set to {} baud",
                device.baud()
            )));
        }
        Ok(Passed {
            seconds: result.seconds,
        })
    }
}
