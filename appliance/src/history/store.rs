//! Storing that nobody waits for.

use std::{
    collections::BTreeMap,
    error::Error,
    fmt::Write as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::{sleep, timeout},
};

use super::database::{Database, DatabaseError, set_aside};
use crate::manager::{Identity, Memory, Remembered};

/// After a failed write: when it is tried again without a new reason,
const RETRY: Duration = Duration::from_secs(30);
/// and with one.
const RETRY_SOONEST: Duration = Duration::from_secs(1);

/// How long an open or a write may take before it counts as failed.
const TOO_LONG: Duration = Duration::from_secs(10);

/// Devices that can wait to be written; one more is not stored.
const MOST_PENDING: usize = 1024;

/// What is kept across restarts. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

struct Shared {
    path: PathBuf,
    recalled: Vec<Remembered>,
    queue: Mutex<Queue>,
    wake: Notify,
    progress: watch::Sender<Progress>,
    notices: Mutex<Notices>,
}

#[derive(Default)]
struct Queue {
    /// The latest of each device.
    devices: BTreeMap<Identity, Remembered>,
    /// How many calls of `remember` there were.
    asked: u64,
    closing: bool,
}

#[derive(Default, Clone, Copy)]
struct Progress {
    /// `Queue::asked` when the latest batch that was tried was taken.
    tried: u64,
    closed: bool,
}

#[derive(Default)]
struct Notices {
    set_aside: Option<String>,
    broken: Option<String>,
}

impl Store {
    /// Open the store in this file. Where that fails, everything works but nothing is stored, and
    /// [`Store::notices`] says so; opening is tried again with later writes.
    ///
    /// A damaged file is set aside under another name and a new one begun.
    pub async fn open(path: &Path) -> Self {
        let mut notices = Notices::default();
        let (database, recalled) = match open(path, &mut notices).await {
            Ok((database, recalled)) => (Some(database), recalled),
            Err(error) => {
                notices.broken = Some(not_stored(&error));
                (None, recall_read_only(path).await)
            }
        };
        let shared = Arc::new(Shared {
            path: path.to_owned(),
            recalled,
            queue: Mutex::default(),
            wake: Notify::new(),
            progress: watch::Sender::default(),
            notices: Mutex::new(notices),
        });
        tokio::spawn(write_behind(Arc::clone(&shared), database));
        Self { shared }
    }

    /// What earlier runs remembered.
    #[must_use]
    pub fn recall(&self) -> Vec<Remembered> {
        self.shared.recalled.clone()
    }

    /// Store this in the background, in place of what was stored of the same device. Never blocks.
    pub fn remember(&self, device: Remembered) {
        let mut queue = lock(&self.shared.queue);
        queue.asked += 1;
        if queue.devices.len() >= MOST_PENDING && !queue.devices.contains_key(&device.identity) {
            tracing::warn!(identity = %device.identity, "not stored: too many devices wait to be");
            return;
        }
        queue.devices.insert(device.identity.clone(), device);
        drop(queue);
        self.shared.wake.notify_one();
    }

    /// Sentences to show to people: why nothing is stored, and that a damaged file was set aside.
    #[must_use]
    pub fn notices(&self) -> Vec<String> {
        let notices = lock(&self.shared.notices);
        [&notices.broken, &notices.set_aside]
            .into_iter()
            .flatten()
            .cloned()
            .collect()
    }

    /// Wait, at most 10 s, until writing what was remembered before this call has been tried.
    pub async fn flush(&self) {
        let asked = lock(&self.shared.queue).asked;
        self.wait_for(|progress| progress.tried >= asked).await;
    }

    /// Write what still waits and close the file, in at most 10 s. What is remembered afterwards is not stored.
    pub async fn close(self) {
        lock(&self.shared.queue).closing = true;
        self.shared.wake.notify_one();
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
    fn remember(&self, remembered: Remembered) {
        Self::remember(self, remembered);
    }
}

/// The writer: ends when the store is closed.
async fn write_behind(shared: Arc<Shared>, mut database: Option<Database>) {
    loop {
        shared.wake.notified().await;
        loop {
            let (batch, asked, closing) = {
                let mut queue = lock(&shared.queue);
                (
                    std::mem::take(&mut queue.devices),
                    queue.asked,
                    queue.closing,
                )
            };
            let failed = if batch.is_empty() {
                false
            } else {
                let saved = save(&shared, &mut database, &batch).await;
                note(&shared, saved.as_ref().err());
                if saved.is_err() {
                    put_back(&shared, batch);
                }
                saved.is_err()
            };
            shared
                .progress
                .send_modify(|progress| progress.tried = asked);
            if closing {
                if let Some(database) = database {
                    database.close().await;
                }
                shared
                    .progress
                    .send_modify(|progress| progress.closed = true);
                return;
            }
            if !failed {
                break;
            }
            sleep(RETRY_SOONEST).await;
            let _ = timeout(RETRY, shared.wake.notified()).await;
        }
    }
}

/// Put a batch that could not be written behind what came meanwhile.
fn put_back(shared: &Shared, batch: BTreeMap<Identity, Remembered>) {
    let mut queue = lock(&shared.queue);
    for (identity, device) in batch {
        queue.devices.entry(identity).or_insert(device);
    }
}

fn note(shared: &Shared, error: Option<&StoreError>) {
    let mut notices = lock(&shared.notices);
    let sentence = error.map(not_stored);
    if sentence.is_none() && notices.broken.is_some() {
        tracing::info!(path = %shared.path.display(), "storing works again");
    }
    notices.broken = sentence;
}

/// Why nothing is stored.
#[derive(Debug, thiserror::Error)]
enum StoreError {
    #[error(transparent)]
    Database(#[from] DatabaseError),
    #[error("{} did not answer within {} s", .0.display(), TOO_LONG.as_secs())]
    TooLong(PathBuf),
}

async fn save(
    shared: &Shared,
    database: &mut Option<Database>,
    batch: &BTreeMap<Identity, Remembered>,
) -> Result<(), StoreError> {
    if let Some(open) = database {
        match in_time(&shared.path, open.remember(batch.values())).await {
            Err(StoreError::Database(error)) if error.is_corrupt() => {
                if let Some(damaged) = database.take() {
                    damaged.close().await;
                }
            }
            result => return result,
        }
    }
    let mut notices = Notices::default();
    let (fresh, known) = open(&shared.path, &mut notices).await?;
    if let Some(sentence) = notices.set_aside {
        lock(&shared.notices).set_aside = Some(sentence);
    }
    // What the lost file held is still known from the start; what is newer comes last.
    let from_start = if known.is_empty() {
        shared.recalled.as_slice()
    } else {
        &[]
    };
    let result = in_time(
        &shared.path,
        fresh.remember(from_start.iter().chain(batch.values())),
    )
    .await;
    *database = Some(fresh);
    result
}

/// Open the file and read it; set it aside and begin a new one where it is damaged.
async fn open(
    path: &Path,
    notices: &mut Notices,
) -> Result<(Database, Vec<Remembered>), StoreError> {
    match in_time(path, open_once(path)).await {
        Err(StoreError::Database(error)) if error.is_corrupt() => {
            let aside = set_aside(path).await?;
            tracing::warn!(path = %path.display(), aside = %aside.display(), %error, "damaged file set aside");
            notices.set_aside = Some(format!(
                "{} was damaged. It was kept as {} and a new one begun; what was held back may be forgotten.",
                path.display(),
                aside.display()
            ));
            in_time(path, open_once(path)).await
        }
        result => result,
    }
}

async fn open_once(path: &Path) -> Result<(Database, Vec<Remembered>), DatabaseError> {
    let database = Database::open(path).await?;
    match database.recall().await {
        Ok(recalled) => Ok((database, recalled)),
        Err(error) => {
            database.close().await;
            Err(error)
        }
    }
}

/// What can be read where nothing can be written.
async fn recall_read_only(path: &Path) -> Vec<Remembered> {
    let read = async {
        let database = Database::open_read_only(path).await?;
        let recalled = database.recall().await;
        database.close().await;
        recalled
    };
    in_time(path, read).await.unwrap_or_default()
}

async fn in_time<T>(
    path: &Path,
    work: impl Future<Output = Result<T, DatabaseError>>,
) -> Result<T, StoreError> {
    match timeout(TOO_LONG, work).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(StoreError::TooLong(path.to_owned())),
    }
}

/// The sentence to show, which is also logged.
fn not_stored(error: &StoreError) -> String {
    let mut why = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let _ = write!(why, ": {cause}");
        source = cause.source();
    }
    tracing::warn!("nothing is stored: {why}");
    format!(
        "Nothing is stored at the moment ({why}). Devices work; what was held back may be forgotten when the Pi restarts."
    )
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change under the lock is whole at each step, so a panic elsewhere spoils nothing.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
