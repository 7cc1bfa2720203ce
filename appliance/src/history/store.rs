//! What the rest of the appliance uses.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::timeout,
};

use super::{
    Counts, Cursor, Event, Filter, Known, Now, Record, Sighting, Stamp,
    change::{Change, Recalled},
    database::{Database, DatabaseError},
    queue::Queue,
    writer::{self, Notices, StoreError, TOO_LONG},
};
use crate::{
    access::Kept,
    manager::{Keep, Memory, Remembered},
};

/// How long a reader waits for the file.
const READ_TOO_LONG: Duration = Duration::from_secs(5);
/// Most events read at once.
pub const MOST_READ: u32 = 1000;

/// What is kept across restarts. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

/// How a store works.
#[derive(Clone)]
pub struct Options {
    /// Events that are kept; the oldest are deleted.
    pub most_events: u32,
    /// The kernel's boot id.
    pub boot_id: String,
    /// Tells the time.
    pub now: Now,
}

impl Default for Options {
    fn default() -> Self {
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
        Self {
            most_events: 100_000,
            boot_id: boot_id.unwrap_or_default().trim().to_owned(),
            now: Arc::new(Stamp::now),
        }
    }
}

/// Events that were asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// In the order of the cursor.
    pub records: Vec<Record>,
    /// Whether there are more in that direction.
    pub more: bool,
    /// Whether the file could be read; where not, these are only those that wait to be written.
    pub complete: bool,
}

pub(super) struct Shared {
    pub path: PathBuf,
    pub options: Options,
    pub recalled: Recalled,
    pub queue: Mutex<Queue>,
    /// The open file, for reading.
    pub database: Mutex<Option<Database>>,
    /// A reader found the file damaged.
    pub damaged: AtomicBool,
    /// There is something to write;
    pub wake: Notify,
    /// and somebody waits for it.
    pub hurry: Notify,
    pub progress: watch::Sender<Progress>,
    pub notices: Mutex<Notices>,
    pub counts: Mutex<Counts>,
}

impl Shared {
    fn new(path: &Path, options: Options, database: Option<Database>, recalled: Recalled) -> Self {
        Self {
            queue: Mutex::new(Queue::new(&options.boot_id, recalled.newest)),
            path: path.to_owned(),
            options,
            recalled,
            database: Mutex::new(database),
            damaged: AtomicBool::new(false),
            wake: Notify::new(),
            hurry: Notify::new(),
            progress: watch::Sender::default(),
            notices: Mutex::default(),
            counts: Mutex::default(),
        }
    }
}

#[derive(Default, Clone, Copy)]
pub(super) struct Progress {
    /// `Queue::asked` when the latest batch that was tried was taken.
    pub tried: u64,
    pub closed: bool,
}

impl Store {
    /// Open the store in this file. Where that fails, everything works but nothing is stored, and
    /// [`Store::notices`] says so; opening is tried again with later writes.
    ///
    /// A damaged file is set aside under another name and a new one begun.
    pub async fn open(path: &Path) -> Self {
        Self::open_with(path, Options::default()).await
    }

    /// The same, with these options.
    pub async fn open_with(path: &Path, options: Options) -> Self {
        let mut notices = Notices::default();
        let (database, recalled, writable) = match writer::open(path, &mut notices).await {
            Ok((database, recalled)) => (Some(database), recalled, true),
            Err(error) => {
                notices.fail(&error);
                match writer::open_read_only(path).await {
                    Some((database, recalled)) => (Some(database), recalled, false),
                    None => (None, Recalled::default(), false),
                }
            }
        };
        let shared = Arc::new(Shared::new(path, options, database, recalled));
        *lock(&shared.notices) = notices;
        tokio::spawn(writer::Writer::new(Arc::clone(&shared), writable).run());
        Self { shared }
    }

    /// A store without a file, which forgets everything at its end and all but the latest events
    /// before: to show the portal without a Pi.
    #[must_use]
    pub fn in_memory(options: Options) -> Self {
        let shared = Shared::new(Path::new(""), options, None, Recalled::default());
        let progress = Progress {
            tried: u64::MAX,
            closed: true,
        };
        shared.progress.send_replace(progress);
        Self {
            shared: Arc::new(shared),
        }
    }

    /// What earlier runs remembered of devices.
    #[must_use]
    pub fn recall(&self) -> Vec<Remembered> {
        self.shared.recalled.devices.clone()
    }

    /// Store this in the background, in place of what was stored of the same device. Never blocks.
    pub fn remember(&self, device: Remembered) {
        self.write(|queue, _| queue.change(Change::Device(device)));
    }

    /// Sessions and tokens that earlier runs kept.
    #[must_use]
    pub fn recall_access(&self) -> Vec<Kept> {
        self.shared.recalled.access.clone()
    }

    /// Store this of a session or token in the background. Never blocks.
    pub fn keep_access(&self, kept: impl IntoIterator<Item = Kept>) {
        for kept in kept {
            self.write(|queue, _| queue.change(Change::Access(kept)));
        }
    }

    /// The time, if the clock was set, in milliseconds since 1970.
    #[must_use]
    pub fn now_ms(&self) -> Option<i64> {
        let now = (self.shared.options.now)();
        now.is_set().then_some(now.unix_ms)
    }

    /// The names and rules that earlier runs kept.
    #[must_use]
    pub fn recall_kept(&self) -> Vec<Keep> {
        self.shared.recalled.kept.clone()
    }

    /// Store or forget a name or rule, in the background. Never blocks.
    pub fn keep(&self, keep: Keep) {
        self.write(|queue, _| queue.change(Change::Kept(keep)));
    }

    /// Add an event to the history, in the background. Never blocks.
    ///
    /// Repeats in quick succession become one record with a count.
    pub fn append(&self, event: Event) {
        lock(&self.shared.counts).count(&event);
        self.write(|queue, now| queue.append(event, now));
    }

    /// How often what happened since the appliance started.
    #[must_use]
    pub fn counts(&self) -> Counts {
        lock(&self.shared.counts).clone()
    }

    /// Add to what is known of a device, in the background. Never blocks.
    pub fn saw(&self, sighting: Sighting) {
        self.write(|queue, now| queue.saw(sighting, now));
    }

    fn write(&self, write: impl FnOnce(&mut Queue, Stamp)) {
        let now = (self.shared.options.now)();
        write(&mut lock(&self.shared.queue), now);
        self.shared.wake.notify_one();
    }

    /// At most `limit` events (and no more than [`MOST_READ`]), also those that were not written yet.
    pub async fn events(&self, filter: &Filter, cursor: Cursor, limit: u32) -> Reading {
        let limit = limit.clamp(1, MOST_READ);
        let now = (self.shared.options.now)();
        // Before the file is read: what is written meanwhile is found in both, and nothing in neither.
        let waiting = lock(&self.shared.queue).waiting(filter, cursor, now);
        // One more tells whether there are more.
        let stored =
            self.read(async |database: &Database| database.events(filter, cursor, limit + 1).await);
        let stored = stored.await;
        let complete = stored.is_some() || self.shared.path.as_os_str().is_empty();
        let mut records: BTreeMap<i64, Record> = stored
            .into_iter()
            .flatten()
            .map(|mut record| {
                record.date(&self.shared.options.boot_id, now);
                (record.sequence, record)
            })
            .collect();
        // What waits is newer than what is stored under the same number.
        let waiting = waiting.into_iter();
        records.extend(waiting.map(|record| (record.sequence, record)));
        let more = records.len() > limit as usize;
        let records = records.into_values();
        let records = if cursor.is_ascending() {
            records.take(limit as usize).collect()
        } else {
            records.rev().take(limit as usize).collect()
        };
        Reading {
            records,
            more,
            complete,
        }
    }

    /// Every known device, in the order of their identity.
    pub async fn known(&self) -> Vec<Known> {
        let stored = self.read(Database::known).await.unwrap_or_default();
        let mut known: BTreeMap<_, _> = stored
            .into_iter()
            .map(|known| (known.identity.clone(), known))
            .collect();
        for seen in lock(&self.shared.queue).sightings() {
            let waiting = seen.known();
            known
                .entry(waiting.identity.clone())
                .and_modify(|known| {
                    known.last_ms = waiting.last_ms.or(known.last_ms);
                    known.plugs += waiting.plugs;
                })
                .or_insert(waiting);
        }
        known.into_values().collect()
    }

    /// The latest event's sequence number, 0 for none.
    #[must_use]
    pub fn newest(&self) -> i64 {
        lock(&self.shared.queue).newest()
    }

    /// Read from the file; none where that is not possible.
    async fn read<T>(
        &self,
        read: impl AsyncFnOnce(&Database) -> Result<T, DatabaseError>,
    ) -> Option<T> {
        let database = lock(&self.shared.database).clone()?;
        match timeout(READ_TOO_LONG, read(&database)).await {
            Ok(Ok(read)) => Some(read),
            Ok(Err(error)) => {
                if error.is_corrupt() {
                    self.shared.damaged.store(true, Ordering::Relaxed);
                    self.shared.wake.notify_one();
                } else {
                    let error = StoreError::from(error);
                    tracing::warn!("not read: {}", writer::sentence(&error));
                }
                None
            }
            Err(_) => {
                tracing::warn!(path = %self.shared.path.display(), "reading takes too long");
                None
            }
        }
    }

    /// Sentences to show to people: why nothing is stored, and that a damaged file was set aside.
    #[must_use]
    pub fn notices(&self) -> Vec<String> {
        let lost = lock(&self.shared.queue).lost();
        lock(&self.shared.notices).sentences(lost)
    }

    /// Wait, at most 10 s, until writing what was asked for before this call has been tried.
    pub async fn flush(&self) {
        let asked = lock(&self.shared.queue).asked;
        self.shared.hurry.notify_one();
        self.wait_for(|progress| progress.tried >= asked).await;
    }

    /// Write what still waits and close the file, in at most 10 s. What is asked for afterwards is not stored.
    pub async fn close(self) {
        lock(&self.shared.queue).closing = true;
        self.shared.wake.notify_one();
        self.shared.hurry.notify_one();
        self.wait_for(|progress| progress.closed).await;
    }

    async fn wait_for(&self, reached: impl Fn(&Progress) -> bool) {
        let mut progress = self.shared.progress.subscribe();
        let waited = timeout(TOO_LONG, progress.wait_for(|p| p.closed || reached(p))).await;
        if waited.is_err() {
            tracing::warn!(path = %self.shared.path.display(), "storing takes too long");
        }
    }
}

impl Memory for Store {
    fn keep(&self, keep: Keep) {
        Self::keep(self, keep);
    }

    fn remember(&self, remembered: Remembered) {
        Self::remember(self, remembered);
    }

    fn append(&self, event: Event) {
        Self::append(self, event);
    }

    fn saw(&self, sighting: Sighting) {
        Self::saw(self, sighting);
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change under the lock is whole at each step, so a panic elsewhere spoils nothing.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
