//! Locks between the processes that attach: a session, `usb-boot-attach`, a person's command.

use std::{
    fs::{self, File, TryLockError},
    io,
    time::Duration,
};

use protocol::BusId;

use crate::{failure::Error, root::Root, wait};

/// Where the helper keeps what is true until the next boot.
pub(crate) const RUN_DIR: &str = "/run/usbip-vm";
/// How long another import of the same device may take: connect, reply, enumeration's start.
const DEVICE_LIMIT: Duration = Duration::from_secs(20);
/// How long choosing a port and attaching to it may take, or changing the links; it is a matter of
/// milliseconds.
const PORTS_LIMIT: Duration = Duration::from_secs(10);

/// Held until dropped; the kernel drops it when the process dies.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Nobody else attaches or detaches this device.
    pub(crate) fn device(root: &Root, busid: &BusId) -> Result<Self, Error> {
        Self::take(root, &format!("lock-{busid}"), DEVICE_LIMIT)
    }

    /// Nobody else chooses a vhci port.
    pub(crate) fn ports(root: &Root) -> Result<Self, Error> {
        Self::take(root, "lock", PORTS_LIMIT)
    }

    /// Nobody else changes the links.
    pub(crate) fn links(root: &Root) -> Result<Self, Error> {
        Self::take(root, "lock-links", PORTS_LIMIT)
    }

    fn take(root: &Root, name: &str, limit: Duration) -> Result<Self, Error> {
        let dir = root.path(RUN_DIR);
        let path = dir.join(name);
        let failed = |source| Error::Write {
            path: path.clone(),
            source,
        };
        fs::create_dir_all(&dir).map_err(failed)?;
        let file = File::create(&path).map_err(failed)?;
        wait::until(limit, || match file.try_lock() {
            Ok(()) => Ok(Some(())),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Interrupted => {
                Ok(None)
            }
            Err(TryLockError::Error(error)) => Err(failed(error)),
        })?
        .ok_or_else(|| Error::Locked {
            path: path.clone(),
            limit,
        })?;
        Ok(Self { _file: file })
    }
}
