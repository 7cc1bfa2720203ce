//! Noticing what changes on the bus: the kernel's uevents, without udevd.

use std::{
    collections::BTreeSet,
    io, mem,
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use protocol::BusId;
use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll},
    io::{Errno, read, retry_on_intr, write},
    net::sockopt,
};
use socket2::{SockFilter, SockRef};
use tokio::sync::mpsc::Sender;

use super::{
    device::Change,
    sysfs::Sysfs,
    tracker::{Tracker, Undelivered},
};

/// Receive buffer asked of the kernel, in bytes: a hub with many devices sends a burst of some
/// hundred uevents of about 1 KiB of kernel memory each.
const RECEIVE_BUFFER: usize = 1 << 20;

/// When the receiver has no room: time until the next try.
const FULL_PAUSE: Duration = Duration::from_millis(50);

/// Binding a device makes a handful of uevents, and they come while its import is under way: what is
/// known already is read again once they are over.
const SETTLE: Duration = Duration::from_millis(50);

/// For so long after something was told the socket is left to collect what follows, instead of waking
/// for each: giving a device its driver, binding it and importing it take as long. The next device is
/// enumerated meanwhile, which takes longer.
const BURST: Duration = Duration::from_millis(25);

/// Classic BPF for the socket (linux/filter.h): a message that begins with `change@` is dropped, see
/// [`Happened::note`]; of the others all of it is taken. The kernel's begin with their action.
const UNHEARD: [SockFilter; 4] = [
    // BPF_LD | BPF_W | BPF_ABS: four bytes at 0, in network order.
    SockFilter::new(0x20, 0, 0, 0),
    // BPF_JMP | BPF_JEQ | BPF_K
    SockFilter::new(0x15, 0, 1, u32::from_be_bytes(*b"chan")),
    // BPF_RET | BPF_K
    SockFilter::new(0x06, 0, 0, 0),
    SockFilter::new(0x06, 0, 0, u32::MAX),
];

/// Without uevents: time between two snapshots, each preceded by another try to get uevents.
const BLIND_PAUSE: Duration = Duration::from_secs(5);

/// Why the monitor could not be started.
#[derive(Debug, thiserror::Error)]
pub enum MonitorError {
    /// The descriptor that wakes the thread.
    #[error("failed to create the uevent thread's wake-up")]
    Wake(#[source] io::Error),
    /// The thread.
    #[error("failed to start the uevent thread")]
    Thread(#[source] io::Error),
}

/// The thread that watches the bus. Dropping this ends it.
#[derive(Debug)]
pub struct Monitor {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    wake: OwnedFd,
    rescan: AtomicBool,
    announce: AtomicBool,
    stop: AtomicBool,
}

impl Monitor {
    /// Starts watching. `changes` gets a [`Change::Snapshot`] first, then what changes; another
    /// snapshot follows whenever a change may have been missed, as soon as the channel has room.
    pub fn spawn(sysfs: Sysfs, changes: Sender<Change>) -> Result<Self, MonitorError> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|error| MonitorError::Wake(error.into()))?;
        let shared = Arc::new(Shared {
            wake,
            rescan: AtomicBool::new(false),
            announce: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        });
        let watched = Arc::clone(&shared);
        thread::Builder::new()
            .name("uevent".to_owned())
            .spawn(move || watch(&watched, &mut Tracker::new(sysfs, changes)))
            .map_err(MonitorError::Thread)?;
        Ok(Self { shared })
    }

    /// Asks for a snapshot.
    pub fn rescan(&self) {
        self.shared.rescan.store(true, Ordering::Release);
        self.shared.notify();
    }

    /// Whether devices are told of before they can be read whole, by [`Change::Coming`]. At first they
    /// are not.
    pub fn announce(&self, coming: bool) {
        self.shared.announce.store(coming, Ordering::Relaxed);
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.notify();
    }
}

impl Shared {
    fn notify(&self) {
        // The only failure is a counter at its limit, which wakes the thread as well.
        let _ = write(&self.wake, &1u64.to_ne_bytes());
    }
}

/// Runs until told to stop or until nobody receives.
fn watch(shared: &Shared, tracker: &mut Tracker) {
    let mut socket = None;
    let mut snapshot_due = true;
    let mut later = Later::default();
    loop {
        if socket.is_none() {
            // Events from here on are not missed by the snapshot that follows.
            snapshot_due = true;
            socket = open()
                .inspect_err(|error| tracing::warn!(%error, "failed to listen for uevents"))
                .ok();
        }
        let delivered = if snapshot_due {
            tracker.snapshot()
        } else {
            Ok(())
        };
        snapshot_due = match delivered {
            Ok(()) => false,
            Err(Undelivered::Full) => true,
            Err(Undelivered::Closed) => return,
        };
        let limit = match &socket {
            _ if snapshot_due => Some(FULL_PAUSE),
            None => Some(BLIND_PAUSE),
            Some(_) => later.wait(),
        };
        let broken = wait(shared, socket.as_ref(), limit);
        if shared.stop.load(Ordering::Acquire) {
            return;
        }
        snapshot_due |= shared.rescan.swap(false, Ordering::AcqRel);
        let Some(listening) = &socket else {
            continue;
        };
        let (happened, state) = receive(listening);
        if broken || state == State::Broken {
            tracing::warn!("uevents were lost, looking at all devices again");
            socket = None;
            continue;
        }
        later.put_off(happened, |busid| tracker.is_driven(busid));
        let happened = later.take();
        if snapshot_due {
            // It says all of it.
            later = Later::default();
            continue;
        }
        let told = tracker.happened(&happened).and_then(|()| {
            let announce = shared.announce.load(Ordering::Relaxed);
            Ok(announce && tracker.coming(&happened.added)?)
        });
        match told {
            Ok(coming) if coming || !happened.touched.is_empty() => thread::sleep(BURST),
            Ok(_) => {}
            Err(Undelivered::Full) => snapshot_due = true,
            Err(Undelivered::Closed) => return,
        }
    }
}

/// Listens to the kernel's own netlink group.
fn open() -> io::Result<udev::MonitorSocket> {
    let socket = udev::MonitorBuilder::new_kernel()?
        .match_subsystem("usb")?
        .listen()?;
    // The first needs CAP_NET_ADMIN; the second stops at net.core.rmem_max.
    sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER)
        .or_else(|_| sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER))?;
    // They would wake the thread more often, in the moment in which the device is wanted.
    if let Err(error) = SockRef::from(&socket).attach_filter(&UNHEARD) {
        tracing::debug!(%error, "failed to filter uevents: hearing all");
    }
    Ok(socket)
}

/// Sleeps until there is something to do. Whether the socket reports an error.
fn wait(shared: &Shared, socket: Option<&udev::MonitorSocket>, limit: Option<Duration>) -> bool {
    let mut sources = vec![PollFd::new(&shared.wake, PollFlags::IN)];
    if let Some(socket) = socket {
        sources.push(PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::IN));
    }
    let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
    if let Err(error) = retry_on_intr(|| poll(&mut sources, limit.as_ref())) {
        // Out of kernel memory at worst; do not spin.
        tracing::warn!(%error, "failed to wait for uevents");
        thread::sleep(FULL_PAUSE);
    }
    if sources[0].revents().contains(PollFlags::IN) {
        let _ = read(&shared.wake, &mut [0; 8]);
    }
    let errors = PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL;
    sources[1..]
        .iter()
        .any(|source| source.revents().intersects(errors))
}

/// The devices that something happened to.
#[derive(Debug, Default)]
pub(super) struct Happened {
    /// Those with any event of interest.
    pub(super) touched: BTreeSet<BusId>,
    /// Those that were removed, perhaps followed by another at the same place.
    pub(super) removed: BTreeSet<BusId>,
    /// Those that were added, and whose driver is not bound yet.
    pub(super) added: BTreeSet<BusId>,
}

impl Happened {
    /// Takes a uevent into account: its action, DEVTYPE and the device's name in sysfs.
    ///
    /// After its `add` a device's driver is not bound yet, so nothing can be done with it but to tell
    /// of it; `bind` follows, as it does after the `change` to a configuration. Of interfaces, those
    /// matter whose driver came, because of a network interface or disk below them.
    fn note(&mut self, action: udev::EventType, devtype: &str, name: &str) {
        use udev::EventType::{Add, Bind, Remove, Unbind};
        let device = name.split(':').next().unwrap_or_default();
        let Ok(busid) = device.parse::<BusId>() else {
            return;
        };
        match (devtype, action) {
            ("usb_device", Remove) => {
                self.added.remove(&busid);
                self.removed.insert(busid.clone());
                self.touched.insert(busid);
            }
            ("usb_device", Add) if !self.removed.contains(&busid) => {
                self.added.insert(busid);
            }
            ("usb_device", Bind | Unbind) | ("usb_interface", Bind) => {
                self.added.remove(&busid);
                self.touched.insert(busid);
            }
            _ => {}
        }
    }
}

/// What happened and was not looked at yet.
#[derive(Debug, Default)]
struct Later {
    now: Happened,
    settling: BTreeSet<BusId>,
    /// When the first of those that settle is due.
    due: Option<Instant>,
}

impl Later {
    /// Of devices that are there, `known` and not removed, it is enough to hear a moment later.
    fn put_off(&mut self, happened: Happened, known: impl Fn(&BusId) -> bool) {
        for busid in happened.touched {
            if known(&busid) && !happened.removed.contains(&busid) {
                self.settling.insert(busid);
                self.due.get_or_insert_with(|| Instant::now() + SETTLE);
            } else {
                self.settling.remove(&busid);
                self.now.touched.insert(busid);
            }
        }
        self.now.removed.extend(happened.removed);
        self.now.added.extend(happened.added);
    }

    /// What is to be looked at now.
    fn take(&mut self) -> Happened {
        let mut happened = mem::take(&mut self.now);
        if self.due.is_some_and(|due| due <= Instant::now()) {
            self.due = None;
            happened.touched.append(&mut self.settling);
        }
        happened
    }

    /// How long until something is due.
    fn wait(&self) -> Option<Duration> {
        let due = self.due?;
        // A moment more, since a poll may return a moment early.
        Some(due.saturating_duration_since(Instant::now()) + Duration::from_millis(1))
    }
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Empty,
    Broken,
}

/// Everything the socket holds now. A burst is told as one.
fn receive(socket: &udev::MonitorSocket) -> (Happened, State) {
    let mut happened = Happened::default();
    let mut events = socket.iter();
    loop {
        let Some(event) = events.next() else {
            // libudev leaves the reason in errno: EAGAIN at the end, ENOBUFS after a loss.
            let reason = io::Error::last_os_error().raw_os_error();
            let state = if reason == Some(Errno::NOBUFS.raw_os_error()) {
                State::Broken
            } else {
                State::Empty
            };
            return (happened, state);
        };
        let devtype = event.devtype().unwrap_or_default().to_string_lossy();
        let name = event.sysname().to_string_lossy();
        happened.note(event.event_type(), &devtype, &name);
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        sync::mpsc::{self, Receiver},
        time::timeout,
    };
    use udev::EventType;

    use super::super::tree::{Tree, UsbDescription};
    use super::*;

    async fn next(changes: &mut Receiver<Change>) -> Change {
        timeout(Duration::from_mins(1), changes.recv())
            .await
            .expect("a change within a minute")
            .expect("an open channel")
    }

    fn cp2102(busid: &str) -> UsbDescription {
        UsbDescription::new(busid, 0x10c4, 0xea60).interface([0xff, 0, 0])
    }

    #[tokio::test]
    async fn a_snapshot_comes_first_and_on_request() {
        let tree = Tree::new();
        let (sender, mut changes) = mpsc::channel(8);
        let monitor = Monitor::spawn(tree.sysfs(), sender).unwrap();
        assert_eq!(next(&mut changes).await, Change::Snapshot(Vec::new()));
        tree.plug(&cp2102("1-1"));
        monitor.rescan();
        let Change::Snapshot(devices) = next(&mut changes).await else {
            panic!("not a snapshot");
        };
        assert_eq!(devices.len(), 1);
    }

    #[tokio::test]
    async fn a_snapshot_waits_for_room_and_shows_the_newest_state() {
        let tree = Tree::new();
        let (sender, mut changes) = mpsc::channel(1);
        let monitor = Monitor::spawn(tree.sysfs(), sender).unwrap();
        monitor.rescan();
        tree.plug(&cp2102("1-1"));
        monitor.rescan();
        let wanted = async {
            loop {
                if let Change::Snapshot(devices) = next(&mut changes).await
                    && devices.len() == 1
                {
                    break;
                }
            }
        };
        timeout(Duration::from_mins(1), wanted).await.unwrap();
    }

    #[tokio::test]
    async fn dropping_it_ends_the_thread() {
        let (sender, mut changes) = mpsc::channel(8);
        drop(Monitor::spawn(Tree::new().sysfs(), sender).unwrap());
        let ended = async { while changes.recv().await.is_some() {} };
        timeout(Duration::from_mins(1), ended).await.unwrap();
    }

    #[test]
    fn what_is_known_is_read_once_it_has_settled_and_the_rest_at_once() {
        let busid = |text: &str| text.parse::<BusId>().unwrap();
        let happened = |touched: &[&str], removed: &[&str]| Happened {
            touched: touched.iter().map(|text| busid(text)).collect(),
            removed: removed.iter().map(|text| busid(text)).collect(),
            added: BTreeSet::new(),
        };
        let known = |one: &BusId| *one != busid("1-9");
        let names = |taken: Happened| {
            let names = taken.touched.iter().map(BusId::to_string);
            names.collect::<Vec<_>>()
        };
        let mut later = Later::default();
        assert_eq!(later.wait(), None);
        later.put_off(happened(&["1-1", "1-2", "1-9"], &["1-2"]), known);
        later.put_off(happened(&["1-1"], &[]), known);
        assert_eq!(names(later.take()), ["1-2", "1-9"]);
        assert!(later.wait().is_some());
        let deadline = Instant::now() + Duration::from_mins(1);
        let settled = loop {
            let taken = names(later.take());
            if !taken.is_empty() || Instant::now() > deadline {
                break taken;
            }
            thread::sleep(Duration::from_millis(5));
        };
        assert_eq!(settled, ["1-1"]);
        assert_eq!(later.wait(), None);

        // Gone meanwhile: that is told at once, and once.
        later.put_off(happened(&["1-1"], &[]), known);
        later.put_off(happened(&["1-1"], &["1-1"]), known);
        assert_eq!(names(later.take()), ["1-1"]);
        assert!(later.settling.is_empty());
    }

    #[test]
    fn only_the_events_that_matter_are_noted() {
        let mut happened = Happened::default();
        for (action, devtype, name) in [
            (EventType::Add, "usb_device", "1-1"),
            (EventType::Change, "usb_device", "1-1"),
            (EventType::Add, "usb_interface", "1-2:1.0"),
            (EventType::Bind, "usb_device", "usb1"),
            (EventType::Bind, "usb_interface", "1-0:1.0"),
            (EventType::Bind, "usb_device", "1-4\n"),
        ] {
            happened.note(action, devtype, name);
        }
        let names = |set: &BTreeSet<BusId>| set.iter().map(BusId::to_string).collect::<Vec<_>>();
        assert_eq!(happened.touched.len(), 0);
        assert_eq!(names(&happened.added), ["1-1"]);
        for (action, devtype, name) in [
            (EventType::Bind, "usb_device", "1-1.4"),
            (EventType::Bind, "usb_interface", "1-1.4:1.1"),
            (EventType::Unbind, "usb_device", "1-2"),
            (EventType::Remove, "usb_device", "1-3"),
            // Read whole, since it was removed before.
            (EventType::Add, "usb_device", "1-3"),
            (EventType::Bind, "usb_device", "1-1"),
        ] {
            happened.note(action, devtype, name);
        }
        assert_eq!(names(&happened.touched), ["1-1", "1-1.4", "1-2", "1-3"]);
        assert_eq!(names(&happened.added), [""; 0]);
        assert_eq!(names(&happened.removed), ["1-3"]);
    }
}
