//! Connects the manager and the USB/IP server to the parts that carry out their orders.

use std::{error::Error, fmt::Write as _, io, os::fd::BorrowedFd, sync::Arc};

use protocol::{
    BusId, DevId,
    line::{Answer, Request},
};

use crate::{
    manager::{Sessions, UsbHost, VmLink},
    usb::{Monitor, Stub, StubError, StubStatus, Sysfs, UsbDevice, power},
    usbipd::{EndError, Exporter, Handle},
    vm::{Config, LinkHandle, Pairer},
};

/// The Pi's USB side.
pub struct Pi {
    /// usbip-host.
    pub stub: Arc<Stub>,
    /// The watch on the bus.
    pub monitor: Monitor,
}

impl Pi {
    fn act<E: Error>(
        &self,
        busid: &BusId,
        devid: DevId,
        act: impl FnOnce(&Stub) -> Result<(), E>,
    ) -> Result<(), String> {
        if self.stub.sysfs().devid(busid) != Some(devid) {
            return Err(sentence(&StubError::Replugged(busid.clone())));
        }
        act(&self.stub).map_err(|error| sentence(&error))
    }
}

impl UsbHost for Pi {
    fn rescan(&self) {
        self.monitor.rescan();
    }

    fn announce(&self, coming: bool) {
        self.monitor.announce(coming);
    }

    fn bind(&self, busid: &BusId, devid: DevId) -> Result<(), String> {
        let bound = self.stub.bind_generation(busid, devid);
        bound.map_err(|error| sentence(&error))
    }

    fn rebind(&self, busid: &BusId, devid: DevId) -> Result<(), String> {
        self.act(busid, devid, |stub| stub.recover(busid))
    }

    fn unbind(&self, busid: &BusId, devid: DevId) -> Result<(), String> {
        self.act(busid, devid, |stub| stub.unbind(busid))
    }

    fn power_cycle(&self, busid: &BusId, devid: DevId) -> Result<(), String> {
        self.act(busid, devid, |stub| power::cycle(stub.sysfs(), busid))
    }

    fn sweep(&self) {
        self.stub.sweep();
    }
}

/// What the USB/IP server needs of the devices.
pub struct Kernel(pub Arc<Stub>);

impl Kernel {
    fn sysfs(&self) -> &Sysfs {
        self.0.sysfs()
    }
}

impl Exporter for Kernel {
    fn devices(&self) -> io::Result<Vec<UsbDevice>> {
        self.sysfs().snapshot().map_err(io::Error::other)
    }

    fn device(&self, busid: &BusId) -> io::Result<Option<UsbDevice>> {
        Ok(self.sysfs().device(busid))
    }

    fn devid(&self, busid: &BusId) -> io::Result<Option<DevId>> {
        Ok(self.sysfs().devid(busid))
    }

    fn stub_status(&self, busid: &BusId) -> io::Result<Option<StubStatus>> {
        Ok(self.sysfs().stub_status(busid))
    }

    fn hand_over(&self, busid: &BusId, socket: BorrowedFd<'_>) -> io::Result<()> {
        self.0.hand_over(busid, socket).map_err(io::Error::other)
    }

    fn end_session(&self, busid: &BusId) -> io::Result<()> {
        self.0.end_session(busid).map_err(io::Error::other)
    }
}

impl Sessions for Handle {
    fn give(&self, busid: &BusId) {
        Self::give(self, busid);
    }

    fn end_waiting(&self) {
        Self::end_waiting(self);
    }

    async fn end(&self, busid: BusId, devid: DevId) -> Result<(), String> {
        match self.end_session(&busid, devid).await {
            Ok(()) | Err(EndError::Over(_)) => Ok(()),
            Err(error) => Err(sentence(&error)),
        }
    }
}

impl VmLink for LinkHandle {
    fn send(&self, request: Request) -> Result<(), Box<Answer>> {
        Self::send(self, request).map_err(Box::new)
    }

    fn kick(&self) {
        Self::kick(self);
    }
}

/// What makes and ends the pairing.
///
/// # Panics
/// Outside of a tokio runtime.
#[must_use]
pub fn pairer(config: Config, link: &LinkHandle) -> Pairer {
    let link = link.clone();
    let kick = Arc::new(move || link.kick());
    Pairer::new(config, kick)
}

/// An error and what caused it, in one line.
fn sentence(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        // Writing to a String cannot fail.
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}
