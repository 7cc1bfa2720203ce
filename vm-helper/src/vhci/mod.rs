//! The kernel's virtual USB host controller, `vhci_hcd`: its ports, attach and detach.

mod quirks;
mod status;

pub use quirks::set_fast_enumeration;
pub use status::{Port, PortState};

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
    time::Duration,
};

use protocol::{DevId, Speed};

use crate::{failure::Error, root::Root, wait};

/// Every controller's `status` file stands in the first one's directory, as do `attach` and
/// `detach` (drivers/usb/usbip/vhci_sysfs.c).
pub(crate) const DIR: &str = "/sys/devices/platform/vhci_hcd.0";
/// How long a detach may take: the kernel disconnects the device's drivers first.
const DETACH_LIMIT: Duration = Duration::from_secs(5);

/// vhci's files.
#[derive(Debug, Clone)]
pub struct Vhci {
    root: Root,
}

/// How an attach to one port came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attach {
    /// The kernel has the socket.
    Done,
    /// Somebody took the port first.
    PortBusy,
}

impl Vhci {
    /// The controller, when its module is loaded.
    #[must_use]
    pub fn open(root: &Root) -> Option<Self> {
        root.path(&format!("{DIR}/status"))
            .exists()
            .then(|| Self::loaded(root))
    }

    /// The controller, whose module was loaded a while ago.
    #[must_use]
    pub fn loaded(root: &Root) -> Self {
        Self { root: root.clone() }
    }

    /// The ports, controller by controller in order: who finds what it looks for reads no more.
    pub fn controllers(&self) -> impl Iterator<Item = Result<Vec<Port>, Error>> {
        // status, status.1, status.2 … each with the ports of one controller.
        (0u32..).map_while(|index| {
            let name = match index {
                0 => format!("{DIR}/status"),
                n => format!("{DIR}/status.{n}"),
            };
            match self.root.read(&name) {
                Ok(text) => Some(status::parse(&text)),
                Err(Error::Read { source, .. })
                    if index > 0 && source.kind() == io::ErrorKind::NotFound =>
                {
                    None
                }
                Err(error) => Some(Err(error)),
            }
        })
    }

    /// Every port of every controller, in order.
    pub fn ports(&self) -> Result<Vec<Port>, Error> {
        let mut all = Vec::new();
        for ports in self.controllers() {
            all.extend(ports?);
        }
        all.sort_by_key(|port| port.number);
        Ok(all)
    }

    /// One port. It costs one small file instead of all controllers'.
    pub fn port(&self, number: u32) -> Result<Option<Port>, Error> {
        // The file is not known from the number alone: ports per controller is a build option.
        for ports in self.controllers() {
            let found = ports?.into_iter().find(|port| port.number == number);
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// Give a socket to the kernel, which keeps its own reference to it.
    pub fn attach(
        &self,
        port: u32,
        socket: BorrowedFd<'_>,
        devid: DevId,
        speed: Speed,
    ) -> Result<Attach, Error> {
        let words = format!("{port} {} {} {}", socket.as_raw_fd(), devid.0, speed.code());
        match self.write("attach", &words) {
            Ok(()) => Ok(Attach::Done),
            Err((_, source)) if source.kind() == io::ErrorKind::ResourceBusy => {
                Ok(Attach::PortBusy)
            }
            Err((path, source)) => Err(Error::Write { path, source }),
        }
    }

    /// End the attachment of `devid` on a port and wait until the port is free. Another devid there
    /// is left alone: it is another device.
    pub fn detach(&self, port: u32, devid: DevId) -> Result<(), Error> {
        let still_there = || -> Result<bool, Error> {
            Ok(self.port(port)?.is_some_and(|found| match found.state {
                PortState::Free => false,
                // Its devid shows only once it is used.
                PortState::Enumerating | PortState::Error => true,
                PortState::Used => found.devid == devid,
            }))
        };
        if !still_there()? {
            return Ok(());
        }
        match self.write("detach", &port.to_string()) {
            Ok(()) => {}
            // The peer hung up first: not in use any more.
            Err((_, source)) if source.kind() == io::ErrorKind::InvalidInput => {}
            Err((path, source)) => return Err(Error::Write { path, source }),
        }
        wait::until(DETACH_LIMIT, || {
            still_there().map(|there| (!there).then_some(()))
        })?
        .ok_or(Error::NotDetached {
            port,
            limit: DETACH_LIMIT,
        })
    }

    fn write(&self, file: &str, words: &str) -> Result<(), (std::path::PathBuf, io::Error)> {
        let path = self.root.path(&format!("{DIR}/{file}"));
        self.root
            .write_attribute(&path, words)
            .map_err(|source| (path, source))
    }
}
