//! Attaching and detaching: what the requests do.

use std::{
    collections::BTreeSet,
    os::fd::AsFd,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use protocol::{
    BusId, DevId, USBIP_PORT,
    line::{Attachment, Timings, Tty, VmStatus},
    wire::Device,
};

use crate::{
    config::PiConf,
    device,
    failure::Error,
    import::{Imported, Server, Waiting},
    lock::Lock,
    module, names,
    record::Record,
    root::Root,
    vhci::{Attach, Port, PortState, Vhci, set_fast_enumeration},
    wait,
};

/// How long enumeration may take: the kernel gives up after three tries of 5 s.
const ENUMERATE_LIMIT: Duration = Duration::from_secs(20);
/// How long the drivers may take after that; the first of its kind may have to be loaded.
const TTY_LIMIT: Duration = Duration::from_secs(10);
/// How long a second tty of the same device may take after its first: probes follow each other.
const MORE_TTYS_LIMIT: Duration = Duration::from_secs(1);
/// How long udev may take; by-id links are not worth more.
const SETTLE_LIMIT: Duration = Duration::from_secs(10);

/// This machine, with the Pi that it belongs to.
#[derive(Debug, Clone)]
pub struct Vm {
    /// Its file system.
    pub root: Root,
    /// The Pi's USB/IP server.
    pub server: Server,
    /// How long a silent attachment is held.
    pub grace: Duration,
    /// Whether vhci's ports may enumerate fast.
    pub fast_enumeration: bool,
    /// The Pi's boot id, where a session has told it.
    pub pi_boot_id: Option<String>,
    /// Whether the Pi gives its next new device to who waits for it.
    pub gives_next: bool,
    /// The connection on which we do.
    next: Arc<Mutex<Option<Waiting>>>,
    /// Whether vhci was there when it was needed last.
    has_vhci: Arc<AtomicBool>,
}

/// An attach that the kernel has begun.
#[derive(Debug)]
pub struct Begun {
    vhci: Vhci,
    busid: BusId,
    devid: DevId,
    port: u32,
    /// None when it had been attached before.
    fresh: Option<Fresh>,
}

#[derive(Debug)]
struct Fresh {
    device: Device,
    import: Duration,
    attach: Duration,
}

impl Begun {
    fn vanished(&self) -> Error {
        Error::Vanished {
            busid: self.busid.clone(),
            port: self.port,
        }
    }
}

/// A port that carries one of our Pi's devices.
#[derive(Debug, Clone)]
struct Held {
    port: Port,
    /// From the kernel, or from the record while the kernel does not say.
    devid: DevId,
    record: Record,
}

impl Vm {
    /// As pi.conf has it.
    pub fn load(root: &Root) -> Result<Self, Error> {
        Ok(Self::new(root, &PiConf::load(root)?))
    }

    /// With a Pi.
    #[must_use]
    pub fn new(root: &Root, conf: &PiConf) -> Self {
        Self {
            root: root.clone(),
            server: Server::new(&conf.host, USBIP_PORT),
            grace: conf.grace,
            fast_enumeration: conf.fast_enumeration,
            pi_boot_id: None,
            gives_next: false,
            next: Arc::default(),
            has_vhci: Arc::default(),
        }
    }

    /// Make everything ready that a connect would otherwise do on its way.
    pub fn prepare(&self) -> Result<Vhci, Error> {
        let vhci = module::vhci(&self.root)?;
        set_fast_enumeration(&self.root, self.fast_enumeration);
        Ok(vhci)
    }

    /// The controller. It is not looked for again while nothing fails: a plug has no time for that.
    fn vhci(&self) -> Result<Vhci, Error> {
        if self.has_vhci.load(Relaxed) {
            return Ok(Vhci::loaded(&self.root));
        }
        let vhci = match Vhci::open(&self.root) {
            Some(vhci) => vhci,
            None => self.prepare()?,
        };
        self.has_vhci.store(true, Relaxed);
        Ok(vhci)
    }

    /// Attach a device and wait for its ttys. Attached already is a success.
    pub fn connect(&self, busid: &BusId, asked: Option<DevId>) -> Result<Attachment, Error> {
        self.finish(self.begin(busid, asked)?)
    }

    /// Import a device and give its socket to the kernel, unless that is done already.
    pub fn begin(&self, busid: &BusId, asked: Option<DevId>) -> Result<Begun, Error> {
        let begun = self.import(busid, asked);
        begun.inspect_err(|_| self.has_vhci.store(false, Relaxed))
    }

    fn import(&self, busid: &BusId, asked: Option<DevId>) -> Result<Begun, Error> {
        let start = Instant::now();
        // The Pi gives a new device before it tells of it.
        let given = self.next().take_if(|next| next.has(busid, asked));
        // Else the way to the Pi and back takes as long as looking at what is here.
        let given = given.ok_or_else(|| self.server.dial());
        let vhci = self.vhci()?;
        let _lock = Lock::device(&self.root, busid)?;
        let own = Record::ports_of(&self.root, busid);
        for held in self.held_on(&vhci, &own, busid)? {
            if asked.is_none_or(|asked| asked == held.devid) && !self.is_of_other_boot(&held) {
                return Ok(Begun {
                    vhci,
                    busid: busid.clone(),
                    devid: held.devid,
                    port: held.port.number,
                    fresh: None,
                });
            }
            // An earlier generation: the Pi has ended it, or will with the import.
            self.release(&vhci, &held)?;
        }
        let mut controllers = vhci.controllers().peekable();
        let imported = match given {
            Ok(given) => given.import(busid)?,
            Err(dialled) => {
                let asked_for = self.server.open_dialled(dialled)?.ask(busid, self.grace)?;
                // The Pi takes a moment, in which the first ports can be looked at.
                controllers.peek();
                asked_for.answer()?
            }
        };
        let devid = imported.device.devid;
        if let Some(asked) = asked.filter(|asked| *asked != devid) {
            return Err(Error::Superseded {
                busid: busid.clone(),
                asked,
                found: devid,
            });
        }
        let import = start.elapsed();
        let port = hand_over(&vhci, controllers, &imported, &own)?;
        let attach = start.elapsed().saturating_sub(import);
        if let Err(error) = self.record(&imported, port) {
            // Nobody would know whose it is.
            vhci.detach(port, devid)?;
            return Err(error);
        }
        Ok(Begun {
            vhci,
            busid: busid.clone(),
            devid,
            port,
            fresh: Some(Fresh {
                device: imported.device,
                import,
                attach,
            }),
        })
    }

    fn next(&self) -> MutexGuard<'_, Option<Waiting>> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Have a connection ready for the Pi's next new device, where it gives it. A plug goes without as
    /// well, a few milliseconds later.
    pub fn wait_for_next(&self) {
        let waits = |next: &Waiting| !next.is_answered();
        if !self.gives_next || self.next().as_ref().is_some_and(waits) {
            return;
        }
        let waiting = self.server.open();
        let waiting = waiting.and_then(|opened| opened.wait_for_next(self.grace));
        *self.next() = waiting.ok();
    }

    /// Note whose device a port carries.
    fn record(&self, imported: &Imported, port: u32) -> Result<(), Error> {
        let record = Record {
            busid: imported.device.busid.clone(),
            devid: Some(imported.device.devid),
            host: self.server.host.clone(),
            address: Some(imported.peer),
            pi_boot_id: self.pi_boot_id.clone(),
        };
        let _lock = Lock::records(&self.root)?;
        record.save(&self.root, port)?;
        // For people who ask the stock tool; the attachment is as good without it.
        if let Err(error) = record.save_stock(&self.root, port, self.server.port) {
            eprintln!("{}", error.sentence());
        }
        Ok(())
    }

    /// Wait for enumeration and ttys.
    pub fn finish(&self, begun: Begun) -> Result<Attachment, Error> {
        let start = Instant::now();
        let Some(local) = self.wait_for_device(&begun)? else {
            self.free(&begun.vhci, begun.port, begun.devid)?;
            return Err(Error::NotEnumerated {
                busid: begun.busid,
                port: begun.port,
                limit: ENUMERATE_LIMIT,
            });
        };
        let enumerate = start.elapsed();
        let ttys = self.wait_for_ttys(&begun, &local)?;
        let tty = start.elapsed().saturating_sub(enumerate);
        if let (Some(fresh), Some(first)) = (&begun.fresh, ttys.first()) {
            // The name is for the next boot; without it this attachment is as good.
            if let Err(error) = names::remember(&self.root, &fresh.device, &first.node) {
                eprintln!("{}", error.sentence());
            }
        }
        Ok(Attachment {
            busid: begun.busid,
            devid: begun.devid,
            port: begun.port,
            local_busid: Some(local),
            ttys,
            timings: begun.fresh.map(|fresh| Timings {
                import_ms: milliseconds(fresh.import),
                attach_ms: milliseconds(fresh.attach),
                enumerate_ms: milliseconds(enumerate),
                tty_ms: milliseconds(tty),
            }),
        })
    }

    fn wait_for_device(&self, begun: &Begun) -> Result<Option<BusId>, Error> {
        wait::until(ENUMERATE_LIMIT, || {
            let found = begun.vhci.port(begun.port)?;
            match found.as_ref().map(|found| found.state) {
                Some(PortState::Enumerating) => Ok(None),
                Some(PortState::Used) if found.as_ref().is_some_and(|f| f.devid == begun.devid) => {
                    Ok(found
                        .and_then(|found| found.local_busid)
                        .filter(|local| device::exists(&self.root, local)))
                }
                _ => Err(begun.vanished()),
            }
        })
    }

    fn wait_for_ttys(&self, begun: &Begun, local: &BusId) -> Result<Vec<Tty>, Error> {
        if begun.fresh.is_some() {
            // The drivers have just begun.
            thread::sleep(wait::PAUSE);
        }
        let mut first_seen = None;
        let found = wait::until(TTY_LIMIT, || {
            let lines = device::lines(&self.root, local);
            let late = !lines.ttys.is_empty()
                && first_seen.get_or_insert_with(Instant::now).elapsed() > MORE_TTYS_LIMIT;
            if lines.complete || late {
                return Ok(Some(lines.ttys));
            }
            let here = begun
                .vhci
                .port(begun.port)?
                .is_some_and(|p| p.state == PortState::Enumerating || p.devid == begun.devid);
            if here {
                Ok(None)
            } else {
                Err(begun.vanished())
            }
        })?;
        found.ok_or_else(|| Error::NoTty {
            busid: begun.busid.clone(),
            local: local.clone(),
        })
    }

    /// Wait until udev is done with the ttys, and add their links. `since_usec` is the monotonic
    /// time before the attach.
    #[must_use]
    pub fn settle(&self, mut attachment: Attachment, since_usec: u64) -> Attachment {
        // What is not settled in time is told as it is.
        let _ = wait::until(SETTLE_LIMIT, || {
            Ok::<_, Error>(
                attachment
                    .ttys
                    .iter()
                    .all(|tty| device::is_settled(&self.root, tty, since_usec))
                    .then_some(()),
            )
        });
        device::add_links(&self.root, &mut attachment.ttys);
        attachment.timings = None;
        attachment
    }

    /// Detach a device; with a devid, only that generation. Returns whether there was anything.
    pub fn disconnect(&self, busid: &BusId, asked: Option<DevId>) -> Result<bool, Error> {
        let Some(vhci) = Vhci::open(&self.root) else {
            return Ok(false);
        };
        let _lock = Lock::device(&self.root, busid)?;
        let mut detached = false;
        let own = Record::ports_of(&self.root, busid);
        for held in self.held_on(&vhci, &own, busid)? {
            if asked.is_none_or(|asked| asked == held.devid) {
                self.release(&vhci, &held)?;
                detached = true;
            }
        }
        self.forget(&vhci, &own)?;
        Ok(detached)
    }

    /// End everything that belongs to another boot of the Pi than the session's, and write its id
    /// into the records which have none.
    pub fn clear_other_boots(&self) -> Result<Vec<BusId>, Error> {
        let Some(vhci) = Vhci::open(&self.root) else {
            return Ok(Vec::new());
        };
        let mut cleared = Vec::new();
        for busid in self.attached()? {
            let _lock = Lock::device(&self.root, &busid)?;
            // Looked up again under the lock: it may have been replaced meanwhile.
            let own = Record::ports_of(&self.root, &busid);
            for mut held in self.held_on(&vhci, &own, &busid)? {
                if self.is_of_other_boot(&held) {
                    self.release(&vhci, &held)?;
                    cleared.push(busid.clone());
                } else if held.record.pi_boot_id.is_none() {
                    held.record.pi_boot_id.clone_from(&self.pi_boot_id);
                    held.record.devid = Some(held.devid);
                    held.record.save(&self.root, held.port.number)?;
                }
            }
        }
        Ok(cleared)
    }

    /// Devids repeat after a reboot of the Pi: the boot id tells.
    fn is_of_other_boot(&self, held: &Held) -> bool {
        matches!((&held.record.pi_boot_id, &self.pi_boot_id), (Some(a), Some(b)) if a != b)
    }

    fn release(&self, vhci: &Vhci, held: &Held) -> Result<(), Error> {
        self.free(vhci, held.port.number, held.devid)
    }

    /// Detach, with the record.
    fn free(&self, vhci: &Vhci, port: u32, devid: DevId) -> Result<(), Error> {
        vhci.detach(port, devid)?;
        self.forget(vhci, &[port].into())
    }

    /// Remove what is recorded of ports that are free, also because a device left by itself: the next
    /// plug would look at it.
    fn forget(&self, vhci: &Vhci, ports: &BTreeSet<u32>) -> Result<(), Error> {
        for number in ports.iter().copied() {
            // Who attaches to it now writes the record afterwards.
            let _lock = Lock::records(&self.root)?;
            let port = vhci.port(number)?;
            if port.is_none_or(|port| port.state == PortState::Free) {
                Record::remove(&self.root, number);
            }
        }
        Ok(())
    }

    /// The ports that carry devices of our Pi. Those of other hosts are not ours to see.
    fn held(&self, vhci: &Vhci) -> Result<Vec<Held>, Error> {
        let ports = vhci.ports()?.into_iter();
        Ok(ports.filter_map(|port| self.holding(port)).collect())
    }

    /// Those of `ports` that carry one device.
    fn held_on(
        &self,
        vhci: &Vhci,
        ports: &BTreeSet<u32>,
        busid: &BusId,
    ) -> Result<Vec<Held>, Error> {
        let mut all = Vec::new();
        for number in ports.iter().copied() {
            let held = vhci.port(number)?.and_then(|port| self.holding(port));
            all.extend(held.filter(|held| held.record.busid == *busid));
        }
        Ok(all)
    }

    fn holding(&self, port: Port) -> Option<Held> {
        let known = match port.state {
            PortState::Free => return None,
            PortState::Used => Some(port.devid),
            PortState::Enumerating | PortState::Error => None,
        };
        let record = Record::load(&self.root, port.number, known)?;
        // The same Pi may have been called otherwise.
        let is_here = |address| self.server.is_at(address);
        let ours = record.host == self.server.host || record.address.is_some_and(is_here);
        ours.then_some(Held {
            devid: known.or(record.devid)?,
            port,
            record,
        })
    }

    /// The devices of our Pi that hold a port.
    pub fn attached(&self) -> Result<Vec<BusId>, Error> {
        let Some(vhci) = Vhci::open(&self.root) else {
            return Ok(Vec::new());
        };
        Ok(self
            .held(&vhci)?
            .into_iter()
            .map(|h| h.record.busid)
            .collect())
    }

    /// Every device of our Pi as it is attached, with its ttys by now.
    pub fn attachments(&self) -> Result<Vec<Attachment>, Error> {
        let Some(vhci) = Vhci::open(&self.root) else {
            return Ok(Vec::new());
        };
        let attachments = self.held(&vhci)?.into_iter().map(|held| {
            let local = held.port.local_busid;
            let mut ttys = local
                .as_ref()
                .map(|local| device::lines(&self.root, local).ttys)
                .unwrap_or_default();
            device::add_links(&self.root, &mut ttys);
            Attachment {
                busid: held.record.busid,
                devid: held.devid,
                port: held.port.number,
                local_busid: local,
                ttys,
                timings: None,
            }
        });
        Ok(attachments.collect())
    }

    /// Every device of our Pi, and how many ports are free.
    pub fn status(&self) -> Result<VmStatus, Error> {
        let ports = module::vhci(&self.root)?.ports()?;
        let high_speed = || ports.iter().filter(|port| !port.is_super);
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Ok(VmStatus {
            boot_id: self.root.boot_id()?,
            attachments: self.attachments()?,
            ports_free: count(high_speed().filter(|p| p.state == PortState::Free).count()),
            ports_total: count(high_speed().count()),
        })
    }
}

/// Give the socket to the kernel: on the port that the device had, or else the lowest that is free, so
/// that names stay the same.
fn hand_over(
    vhci: &Vhci,
    controllers: impl Iterator<Item = Result<Vec<Port>, Error>>,
    imported: &Imported,
    had: &BTreeSet<u32>,
) -> Result<u32, Error> {
    let (device, socket) = (&imported.device, imported.stream.as_fd());
    let mut total = 0;
    for ports in controllers {
        let mut ports = ports?;
        ports.retain(|port| port.is_super == device.speed.is_super());
        total += ports.len();
        ports.retain(|port| port.state == PortState::Free);
        ports.sort_by_key(|port| (!had.contains(&port.number), port.number));
        for Port { number, .. } in ports {
            match vhci.attach(number, socket, device.devid, device.speed)? {
                Attach::Done => return Ok(number),
                // Somebody else was quicker.
                Attach::PortBusy => {}
            }
        }
    }
    Err(Error::NoFreePort { total })
}

fn milliseconds(duration: Duration) -> f64 {
    // Microseconds are exact enough and print short.
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// Now, by the clock that udev stamps its entries with.
#[must_use]
pub fn monotonic_usec() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    // The clock counts from boot and is never negative.
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000
        + u64::try_from(now.tv_nsec).unwrap_or(0) / 1000
}
