//! A free vhci port, kept for a device while the Pi is asked for it.

use crate::{
    failure::Error,
    lock::Lock,
    record::Record,
    root::Root,
    vhci::{PortState, Vhci},
};

/// A free port that no other process of ours takes. Its record goes with it, unless the device stays.
#[derive(Debug)]
pub(crate) struct ReservedPort {
    /// Its number.
    pub(crate) number: u32,
    root: Root,
    stays: bool,
    _lock: Lock,
}

impl ReservedPort {
    /// This one, if it is for what is not SuperSpeed and free: with its lock in hand one look is enough.
    pub(crate) fn guess(root: &Root, vhci: &Vhci, number: u32) -> Result<Option<Self>, Error> {
        let Some(lock) = Lock::port(root, number)? else {
            return Ok(None);
        };
        let found = vhci.port(number)?;
        let free = found.is_some_and(|port| !port.is_super && port.state == PortState::Free);
        Ok(free.then(|| Self::locked(root, number, lock)))
    }

    fn locked(root: &Root, number: u32, lock: Lock) -> Self {
        Self {
            number,
            root: root.clone(),
            stays: false,
            _lock: lock,
        }
    }

    /// The lowest free port from `first` on, so that names stay the same.
    pub(crate) fn take(
        root: &Root,
        vhci: &Vhci,
        is_super: bool,
        first: u32,
    ) -> Result<Self, Error> {
        let mut total = 0;
        for ports in vhci.controllers() {
            for port in ports? {
                if port.is_super != is_super {
                    continue;
                }
                total += 1;
                if port.state != PortState::Free || port.number < first {
                    continue;
                }
                let Some(lock) = Lock::port(root, port.number)? else {
                    continue;
                };
                // Who had the lock a moment ago may have attached.
                let now = vhci.port(port.number)?;
                if now.is_some_and(|port| port.state == PortState::Free) {
                    return Ok(Self::locked(root, port.number, lock));
                }
            }
        }
        Err(Error::NoFreePort { total })
    }

    /// Something is attached to it: what is recorded stays.
    pub(crate) fn stays(&mut self) {
        self.stays = true;
    }
}

impl Drop for ReservedPort {
    fn drop(&mut self) {
        if !self.stays {
            Record::remove(&self.root, self.number);
        }
    }
}
