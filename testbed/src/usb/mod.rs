//! What is plugged into a machine's USB ports, and plugged in again when the machine is switched on.
//!
//! A port is named as QEMU names it: `"3"` is a port of the controller, `"15.2"` a port of the hub in port
//! 15. On a machine whose only controller this is, the busid is `1-3` and `1-15.2`.

mod kind;
mod qemu;

use std::fmt;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{MutexGuard, PoisonError};

use crate::machine::qmp::{self, Qmp};
use crate::machine::{self, Machine, command};
use crate::redir::{self, Strings};

pub use kind::{What, names};

/// Why a device could not be plugged, found or unplugged.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such kind of device.
    #[error("failed to find a kind of device named '{name}'; there are {known}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// No such number.
    #[error("failed to find device {0}")]
    Absent(u32),
    /// The device has no far end of that sort.
    #[error("failed to find {what} of device {number}")]
    Lacks {
        /// What was asked for.
        what: &'static str,
        /// Which device.
        number: u32,
    },
    /// Something is in that port.
    #[error("failed to use USB port {0}: something is plugged in there")]
    Taken(String),
    /// All ports are in use.
    #[error("failed to find a free USB port")]
    Full,
    /// QEMU would not.
    #[error("failed to have QEMU change its USB ports")]
    Qmp(#[from] qmp::Error),
    /// The far end of a wire.
    #[error("failed to connect to the wire of the device in USB port {port}")]
    Wire {
        /// Which port.
        port: String,
        /// The cause.
        source: io::Error,
    },
    /// The program that plays a device.
    #[error("failed to play the device in USB port {port}")]
    Play {
        /// Which port.
        port: String,
        /// The cause.
        source: redir::Error,
    },
}

/// Something that is plugged in.
#[derive(Debug, Clone)]
pub struct Plugged {
    /// Given when it was plugged; never used twice in a run.
    pub number: u32,
    /// Its kind.
    pub what: What,
    /// Its port.
    pub port: String,
    /// The serial number asked for, if any.
    pub serial: Option<String>,
}

impl Plugged {
    /// Its busid on a machine whose first USB bus is the controller's.
    #[must_use]
    pub fn busid(&self) -> String {
        format!("1-{}", self.port)
    }
}

/// The USB ports of one machine.
#[derive(Default)]
pub(crate) struct Ports {
    slots: Vec<Slot>,
    /// Ports that have once held a played device. QEMU's end stays in them, so that the next plug is one message.
    sockets: Vec<Socket>,
    last: u32,
}

struct Slot {
    plugged: Plugged,
    /// The far end of a QEMU serial converter's wire.
    wire: Option<UnixStream>,
}

struct Socket {
    port: String,
    far: redir::Port,
}

impl fmt::Debug for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.slots.iter().map(|slot| &slot.plugged))
            .finish()
    }
}

impl Ports {
    /// Plugs everything into a machine that has just been switched on, hubs before what is plugged into them.
    pub(crate) fn restore(&mut self, qmp: &mut Qmp, dir: &Path) -> Result<(), Error> {
        for slot in &mut self.slots {
            if !matches!(slot.plugged.what, What::Played(_)) {
                slot.wire = qemu::insert(qmp, dir, &slot.plugged)?;
            }
        }
        for Socket { port, far } in &self.sockets {
            qemu::insert_socket(qmp, dir, port)?;
            far.reconnect().map_err(play(port))?;
        }
        Ok(())
    }

    fn plug(&mut self, qmp: &mut Qmp, dir: &Path, plugged: Plugged) -> Result<(), Error> {
        let port = &plugged.port;
        let socket = self.sockets.iter().position(|socket| socket.port == *port);
        let mut wire = None;
        if let What::Played(kind) = plugged.what {
            let index = if let Some(index) = socket {
                index
            } else {
                let path = qemu::insert_socket(qmp, dir, port)?;
                let far = redir::Port::connect(&path).map_err(play(port))?;
                self.sockets.push(Socket {
                    port: port.clone(),
                    far,
                });
                self.sockets.len() - 1
            };
            let far = &self.sockets[index].far;
            far.plug(kind, plugged.serial.as_deref())
                .map_err(play(port))?;
        } else {
            if let Some(index) = socket {
                drop(self.sockets.remove(index));
                qemu::remove_socket(qmp, port)?;
            }
            wire = qemu::insert(qmp, dir, &plugged)?;
        }
        self.slots.push(Slot { plugged, wire });
        Ok(())
    }

    fn free_port(&self) -> Result<String, Error> {
        (1..=command::USB_PORTS)
            .map(|port| port.to_string())
            .find(|port| !self.is_taken(port))
            .ok_or(Error::Full)
    }

    fn is_taken(&self, port: &str) -> bool {
        self.slots.iter().any(|slot| slot.plugged.port == port)
    }

    fn slot(&self, number: u32) -> Result<&Slot, Error> {
        self.slots
            .iter()
            .find(|slot| slot.plugged.number == number)
            .ok_or(Error::Absent(number))
    }

    fn far(&self, port: &str) -> Option<&redir::Port> {
        self.sockets
            .iter()
            .find(|socket| socket.port == port)
            .map(|socket| &socket.far)
    }
}

impl Machine {
    /// Plugs a device into `port`, or the lowest that is free, and returns its number. `serial` is the serial
    /// number it shows, where the kind lets one choose. The device stays plugged in when the machine is
    /// rebooted or killed.
    pub fn plug(
        &self,
        what: impl Into<What>,
        port: Option<&str>,
        serial: Option<&str>,
    ) -> Result<u32, machine::Error> {
        let mut ports = self.usb();
        let port = port.map_or_else(|| ports.free_port(), |port| Ok(port.to_owned()))?;
        if ports.is_taken(&port) {
            return Err(Error::Taken(port).into());
        }
        ports.last += 1;
        let number = ports.last;
        let plugged = Plugged {
            number,
            what: what.into(),
            port,
            serial: serial.map(str::to_owned),
        };
        self.with_qmp(|qmp| ports.plug(qmp, self.run_dir(), plugged))??;
        Ok(number)
    }

    /// Pulls a played device out and plugs another one of its kind in, which says this of itself.
    pub fn swap(&self, number: u32, strings: Strings) -> Result<(), machine::Error> {
        let ports = self.usb();
        let plugged = &ports.slot(number)?.plugged;
        let (What::Played(kind), Some(far)) = (plugged.what, ports.far(&plugged.port)) else {
            let what = "the far side";
            return Err(Error::Lacks { what, number }.into());
        };
        let swapped = far.plug_with(kind, strings);
        swapped.map_err(play(&plugged.port))?;
        Ok(())
    }

    /// Pulls a device out. With a hub goes whatever is plugged into it.
    pub fn unplug(&self, number: u32) -> Result<(), machine::Error> {
        let mut ports = self.usb();
        let plugged = ports.slot(number)?.plugged.clone();
        if matches!(plugged.what, What::Played(_)) {
            if let Some(far) = ports.far(&plugged.port) {
                far.unplug().map_err(play(&plugged.port))?;
            }
        } else if self.is_on() {
            self.with_qmp(|qmp| qemu::remove(qmp, &plugged))??;
        }
        let below = format!("{}.", plugged.port);
        let gone = |port: &str| port.starts_with(&below);
        ports
            .slots
            .retain(|slot| slot.plugged.number != number && !gone(&slot.plugged.port));
        ports.sockets.retain(|socket| !gone(&socket.port));
        Ok(())
    }

    /// What is plugged in, in the order of plugging.
    #[must_use]
    pub fn plugged(&self) -> Vec<Plugged> {
        self.usb()
            .slots
            .iter()
            .map(|slot| slot.plugged.clone())
            .collect()
    }

    /// The far side of a played device: its bytes, its control lines, its log. It stays the same when the
    /// machine is rebooted.
    pub fn device(&self, number: u32) -> Result<redir::Device, machine::Error> {
        let ports = self.usb();
        let port = &ports.slot(number)?.plugged.port;
        let far = ports.far(port).ok_or(Error::Lacks {
            what: "the far side",
            number,
        })?;
        Ok(far.device())
    }

    /// The far end of a [`What::QemuSerial`]'s wire. After a reboot of the machine there is a new one.
    pub fn stream(&self, number: u32) -> Result<UnixStream, machine::Error> {
        let ports = self.usb();
        let slot = ports.slot(number)?;
        let wire = slot.wire.as_ref().ok_or(Error::Lacks {
            what: "the wire",
            number,
        })?;
        let wire = wire.try_clone().map_err(|source| Error::Wire {
            port: slot.plugged.port.clone(),
            source,
        })?;
        Ok(wire)
    }

    fn usb(&self) -> MutexGuard<'_, Ports> {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn play(port: &str) -> impl FnOnce(redir::Error) -> Error {
    let port = port.to_owned();
    move |source| Error::Play { port, source }
}
