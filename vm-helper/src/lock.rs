//! Locks between the processes that attach: a session, `usb-boot-attach`, a person's command.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    time::Duration,
};

use protocol::BusId;

use crate::{
    failure::Error,
    root::{Root, with_dir},
    wait,
};

/// Where the helper keeps what is true until the next boot.
pub(crate) const RUN_DIR: &str = "/run/usbip-vm";
/// How long another import of the same device may take: connect, reply, enumeration's start.
const DEVICE_LIMIT: Duration = Duration::from_secs(20);
/// How long changing the records, the names or the links may take; it is a matter of milliseconds.
const FILE_LIMIT: Duration = Duration::from_secs(10);

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

    /// Nobody else writes or removes a port's record.
    pub(crate) fn records(root: &Root) -> Result<Self, Error> {
        Self::take(root, "lock-records", FILE_LIMIT)
    }

    /// Nobody else changes the names.
    pub(crate) fn names(root: &Root) -> Result<Self, Error> {
        Self::take(root, "lock-names", FILE_LIMIT)
    }

    /// Nobody else changes the links.
    pub(crate) fn links(root: &Root) -> Result<Self, Error> {
        Self::take(root, "lock-links", FILE_LIMIT)
    }

    fn take(root: &Root, name: &str, limit: Duration) -> Result<Self, Error> {
        let path = root.path(RUN_DIR).join(name);
        let failed = |source| Error::Write {
            path: path.clone(),
            source,
        };
        // It stays empty: nothing to truncate, which costs as much as the rest.
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false);
        let file = with_dir(&path, || options.open(&path)).map_err(failed)?;
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
