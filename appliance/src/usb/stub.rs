//! Binding devices to usbip-host, and its sessions.

mod error;

use std::{
    collections::BTreeMap,
    fmt,
    fs::{self, OpenOptions},
    io::{self, Write},
    os::fd::{AsRawFd, BorrowedFd},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use protocol::{BusId, DevId};

use super::{device::StubStatus, slots::Pin, sysfs::Sysfs};
pub use error::StubError;

/// Slots of usbip-host's table (`MAX_BUSID`, drivers/usb/usbip/stub_main.c).
const SLOTS: usize = 16;

/// How long a session may take to end: the kernel resets the device, which takes a few hundred
/// milliseconds, and one after the other when several end at once.
const END_LIMIT: Duration = Duration::from_secs(5);

/// How often `usbip_status` is looked at meanwhile; it raises no poll event.
const END_POLL: Duration = Duration::from_millis(5);

const USB: &str = "usb";
const USBIP_HOST: &str = "usbip-host";

/// Writes to sysfs attributes; tests put a fake kernel here.
pub(super) trait Attributes: Send + Sync {
    /// Writes a whole value by one call.
    fn write(&self, path: &Path, value: &str) -> io::Result<()>;
}

/// The kernel's own files.
struct Kernel;

impl Attributes for Kernel {
    fn write(&self, path: &Path, value: &str) -> io::Result<()> {
        let written = OpenOptions::new()
            .write(true)
            .open(path)?
            .write(value.as_bytes())?;
        if written == value.len() {
            Ok(())
        } else {
            Err(io::ErrorKind::WriteZero.into())
        }
    }
}

/// The device bound at a busid, kept until its slot is freed.
type Place = Arc<Mutex<Option<Pin>>>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is behind these locks is right at every step.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The kernel's usbip-host. All methods block; a device that is being reset can hold one up for
/// seconds.
///
/// One process must have one of these, and nothing else may bind devices: see [`Stub::sweep`].
pub struct Stub {
    sysfs: Sysfs,
    nodes: PathBuf,
    attributes: Box<dyn Attributes>,
    /// Every busid that had a device bound.
    places: Mutex<BTreeMap<BusId, Place>>,
}

impl fmt::Debug for Stub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stub")
            .field("sysfs", &self.sysfs)
            .finish_non_exhaustive()
    }
}

impl Stub {
    /// usbip-host of the running kernel, below this sysfs.
    #[must_use]
    pub fn new(sysfs: Sysfs) -> Self {
        Self::with_attributes(sysfs, "/dev/bus/usb".into(), Box::new(Kernel))
    }

    pub(super) fn with_attributes(
        sysfs: Sysfs,
        nodes: PathBuf,
        attributes: Box<dyn Attributes>,
    ) -> Self {
        Self {
            sysfs,
            nodes,
            attributes,
            places: Mutex::default(),
        }
    }

    /// The sysfs tree it works on.
    #[must_use]
    pub fn sysfs(&self) -> &Sysfs {
        &self.sysfs
    }

    /// Frees the slots of devices that were unplugged while bound, and takes note of devices that
    /// an earlier process bound.
    ///
    /// To be called at start, and after each unplug. A slot can be freed only if this or the bind
    /// came before the unplug, so slots of devices unplugged while no appliance ran stay taken
    /// until a device is bound at the same busid again. This waits for hubs that are busy with
    /// another plug.
    pub fn sweep(&self) {
        let noted = lock(&self.places).clone();
        for (busid, place) in noted {
            // One that is locked is being bound or unbound.
            if let Ok(mut pin) = place.try_lock() {
                self.sweep_one(&busid, &mut pin);
            }
        }
        for busid in self.bound() {
            let place = self.place(&busid);
            let Ok(mut pin) = place.try_lock() else {
                continue;
            };
            if pin.as_ref().map(|pin| pin.devid) != self.sysfs.devid(&busid) {
                *pin = self.pin(&busid);
            }
        }
    }

    fn sweep_one(&self, busid: &BusId, pin: &mut Option<Pin>) {
        // Another device at the same busid uses the slot again, so only absence counts.
        if pin.is_none() || self.sysfs.devid(busid).is_some() {
            return;
        }
        match self.write(USBIP_HOST, "rebind", busid.as_str()) {
            Ok(()) => tracing::debug!(%busid, "freed the slot of an unplugged device"),
            Err(error) => tracing::warn!(%busid, %error, "failed to free a slot of usbip-host"),
        }
        *pin = None;
    }

    /// Binds a device. One that is bound already is fine.
    pub fn bind(&self, busid: &BusId) -> Result<(), StubError> {
        self.bind_if(busid, |_| true)
    }

    /// Binds this generation of a device, and no other.
    pub fn bind_generation(&self, busid: &BusId, devid: DevId) -> Result<(), StubError> {
        self.bind_if(busid, |now| now == devid)
    }

    fn bind_if(&self, busid: &BusId, meant: impl Fn(DevId) -> bool) -> Result<(), StubError> {
        let place = self.place(busid);
        let mut pinned = lock(&place);
        if !self.sysfs.driver(USBIP_HOST).exists() {
            return Err(StubError::NoModule);
        }
        let pin = self.pin(busid);
        let now = pin.as_ref().map(|pin| pin.devid);
        match now.or_else(|| self.sysfs.devid(busid)) {
            Some(devid) if meant(devid) => {}
            Some(_) => return Err(StubError::Replugged(busid.clone())),
            None => return Err(StubError::NotPluggedIn(busid.clone())),
        }
        if self.driver_of(busid).as_deref() == Some(USBIP_HOST) {
            *pinned = pin;
            return Ok(());
        }
        // The table first: when it is full, nothing has happened to the device yet.
        self.add(busid)?;
        self.release(busid, USB)?;
        if let Err(source) = self.write(USBIP_HOST, "bind", busid.as_str()) {
            // Not bound, so this poisons nothing.
            let _ = self.write(USBIP_HOST, "match_busid", &format!("del {busid}"));
            if self.sysfs.devid(busid).is_none() {
                return Err(StubError::NotPluggedIn(busid.clone()));
            }
            self.give_back(busid)?;
            return Err(StubError::Bind {
                busid: busid.clone(),
                source,
            });
        }
        // Still the same device, so that is the one that was bound. Otherwise the table points to
        // a device that nothing keeps, and its slot must not be touched.
        *pinned = pin.filter(|pin| self.sysfs.devid(busid) == Some(pin.devid));
        Ok(())
    }

    /// Ends the device's session, and gives it back to the driver `usb`. One that is not bound is
    /// fine.
    pub fn unbind(&self, busid: &BusId) -> Result<(), StubError> {
        let place = self.place(busid);
        let mut pinned = lock(&place);
        if self.driver_of(busid).as_deref() != Some(USBIP_HOST) {
            return Ok(());
        }
        // Unbinding a device in use is a use after free in the kernel.
        match self.end_session(busid) {
            Ok(()) | Err(StubError::Broken(_)) => {}
            Err(error) => return Err(error),
        }
        self.release(busid, USBIP_HOST)?;
        // `rebind` frees the slot and finds the device a driver, but goes through its pointer.
        if (pinned.is_some() || self.sysfs.devid(busid).is_some())
            && let Err(error) = self.write(USBIP_HOST, "rebind", busid.as_str())
        {
            tracing::warn!(%busid, %error, "failed to rebind");
        }
        *pinned = None;
        self.give_back(busid)
    }

    /// Unbinds and binds again, as a device needs whose reset failed ([`StubStatus::Error`]).
    pub fn recover(&self, busid: &BusId) -> Result<(), StubError> {
        self.unbind(busid)?;
        self.bind(busid)
    }

    /// Hands a connected stream socket to the kernel, which keeps its own reference to it. Fails
    /// unless the device is [`StubStatus::Available`].
    pub fn hand_over(&self, busid: &BusId, socket: BorrowedFd<'_>) -> Result<(), StubError> {
        self.attributes
            .write(&self.socket_file(busid), &socket.as_raw_fd().to_string())
            .map_err(|source| StubError::HandOver {
                busid: busid.clone(),
                source,
            })
    }

    /// Ends the device's session and waits until it is [`StubStatus::Available`] or gone. None is
    /// fine.
    pub fn end_session(&self, busid: &BusId) -> Result<(), StubError> {
        let failed = |source| StubError::End {
            busid: busid.clone(),
            source,
        };
        let used = || self.sysfs.stub_status(busid) == Some(StubStatus::Used);
        if used() {
            let asked = self.attributes.write(&self.socket_file(busid), "-1");
            let deadline = Instant::now() + END_LIMIT;
            while used() {
                if Instant::now() > deadline {
                    return Err(failed(
                        asked.err().unwrap_or(io::ErrorKind::TimedOut.into()),
                    ));
                }
                thread::sleep(END_POLL);
            }
        }
        match self.sysfs.stub_status(busid) {
            Some(StubStatus::Error) => Err(StubError::Broken(busid.clone())),
            _ => Ok(()),
        }
    }

    /// The pin at a busid, locked by whoever works on that place.
    fn place(&self, busid: &BusId) -> Place {
        let mut places = lock(&self.places);
        Arc::clone(places.entry(busid.clone()).or_default())
    }

    fn pin(&self, busid: &BusId) -> Option<Pin> {
        Pin::open(&self.sysfs, &self.nodes, busid)
            .inspect_err(|error| tracing::warn!(%busid, %error, "failed to pin a device"))
            .ok()
    }

    fn write(&self, driver: &str, file: &str, value: &str) -> io::Result<()> {
        let path = self.sysfs.driver(driver).join(file);
        self.attributes.write(&path, value)
    }

    fn socket_file(&self, busid: &BusId) -> PathBuf {
        let device = self.sysfs.devices().join(busid.as_str());
        device.join("usbip_sockfd")
    }

    /// The devices usbip-host has.
    fn bound(&self) -> Vec<BusId> {
        fs::read_dir(self.sysfs.driver(USBIP_HOST))
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect()
    }

    fn driver_of(&self, busid: &BusId) -> Option<String> {
        let link = self.sysfs.devices().join(busid.as_str()).join("driver");
        let target = fs::read_link(link).ok()?;
        Some(target.file_name()?.to_string_lossy().into_owned())
    }

    fn add(&self, busid: &BusId) -> Result<(), StubError> {
        let add = || self.write(USBIP_HOST, "match_busid", &format!("add {busid}"));
        if add().is_ok() {
            return Ok(());
        }
        self.sweep();
        let Err(source) = add() else {
            return Ok(());
        };
        let table = self.sysfs.driver(USBIP_HOST).join("match_busid");
        let entries = fs::read_to_string(table).unwrap_or_default();
        let busid = busid.clone();
        Err(if entries.split_whitespace().count() >= SLOTS {
            let entries = entries.trim().to_owned();
            StubError::TableFull { busid, entries }
        } else {
            StubError::Add { busid, source }
        })
    }

    fn release(&self, busid: &BusId, driver: &'static str) -> Result<(), StubError> {
        match self.write(driver, "unbind", busid.as_str()) {
            // No driver has it, or it is gone.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error()) => {
                Ok(())
            }
            Err(source) => Err(StubError::Release {
                busid: busid.clone(),
                driver,
                source,
            }),
            Ok(()) => Ok(()),
        }
    }

    /// Leaves the device with the driver `usb`, unless it is gone.
    fn give_back(&self, busid: &BusId) -> Result<(), StubError> {
        if self.driver_of(busid).is_some() {
            return Ok(());
        }
        match self.write(USB, "bind", busid.as_str()) {
            Err(source) if self.sysfs.devid(busid).is_some() => Err(StubError::GiveBack {
                busid: busid.clone(),
                source,
            }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
