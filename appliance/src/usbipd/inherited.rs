//! Imports that an earlier process handed over. They run on in the kernel, but there is no socket
//! here to notice their end by, so `usbip_status` is looked at.

use std::{
    collections::BTreeMap,
    io,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use protocol::{BusId, DevId};
use tokio::time::sleep;

use super::{Event, Exporter, kernel::Kernel, report::Reports};
use crate::usb::{StubStatus, UsbDevice};

/// Between two looks.
const POLL: Duration = Duration::from_secs(1);

/// The inherited imports that still run.
#[derive(Default)]
pub(super) struct Inherited(Mutex<BTreeMap<BusId, Import>>);

struct Import {
    devid: DevId,
    /// Ended by the manager; the kernel has yet to release the device.
    ended: bool,
}

impl Inherited {
    fn imports(&self) -> MutexGuard<'_, BTreeMap<BusId, Import>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a device is held by an inherited import that nobody has ended.
    pub(super) fn holds(&self, busid: &BusId, devid: DevId) -> bool {
        self.imports()
            .get(busid)
            .is_some_and(|import| import.devid == devid && !import.ended)
    }

    /// The manager ended it.
    pub(super) fn end(&self, busid: &BusId) {
        if let Some(import) = self.imports().get_mut(busid) {
            import.ended = true;
        }
    }

    /// A new import takes the place of an inherited one; returns the generation of that.
    pub(super) fn take(&self, busid: &BusId) -> Option<DevId> {
        self.imports().remove(busid).map(|import| import.devid)
    }

    /// The inherited imports.
    pub(super) fn list(&self) -> Vec<(BusId, DevId)> {
        self.imports()
            .iter()
            .map(|(busid, import)| (busid.clone(), import.devid))
            .collect()
    }

    /// Take over every import that runs. Before the first connection is accepted.
    pub(super) async fn adopt(&self, kernel: &Kernel) -> io::Result<()> {
        let devices = kernel.call(Exporter::devices).await?;
        let mut imports = self.imports();
        for device in devices.iter().filter(|device| is_used(device)) {
            let import = Import {
                devid: device.devid,
                ended: false,
            };
            imports.insert(device.busid.clone(), import);
        }
        Ok(())
    }

    /// Report each inherited import's end; returns when none is left.
    pub(super) async fn run(&self, kernel: &Kernel, reports: &Reports) {
        loop {
            let imports = self.list();
            if imports.is_empty() {
                return;
            }
            sleep(POLL).await;
            for (busid, devid) in imports {
                let asked = busid.clone();
                match kernel.call(move |e| e.device(&asked)).await {
                    Ok(device)
                        if device
                            .as_ref()
                            .is_some_and(|d| d.devid == devid && is_used(d)) => {}
                    Ok(_) => {
                        if self.take(&busid).is_none() {
                            continue;
                        }
                        reports.fact(Event::HungUp { busid, devid }).await;
                    }
                    Err(error) => tracing::warn!(%busid, %error, "failed to look at a device"),
                }
            }
        }
    }
}

fn is_used(device: &UsbDevice) -> bool {
    device.stub == Some(StubStatus::Used)
}
