//! Writing that nobody waits for.

use std::{
    collections::BTreeMap,
    error::Error,
    fmt::Write as _,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::{sleep, timeout};

use super::{
    change::{Change, Key, Recalled},
    database::{Database, DatabaseError, set_aside},
    queue::MOST_EVENTS,
    store::{Shared, lock},
};

/// How long events are gathered before they are written: a card wears with each write.
const GATHER: Duration = Duration::from_secs(1);
/// After a failed write, how long until the next try, at first; doubled each time,
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// up to this.
const LAST_RETRY: Duration = Duration::from_secs(30);
/// How long an open or a write may take before it counts as failed.
pub(super) const TOO_LONG: Duration = Duration::from_secs(10);
/// After how many written events it is looked whether there are too many.
const PRUNE_EACH: usize = 256;

/// Why nothing is stored.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    #[error(transparent)]
    Database(#[from] DatabaseError),
    #[error("{} did not answer within {} s", .0.display(), TOO_LONG.as_secs())]
    TooLong(PathBuf),
}

impl StoreError {
    fn is_corrupt(&self) -> bool {
        matches!(self, Self::Database(error) if error.is_corrupt())
    }
}

/// What people are to know about storing.
#[derive(Default)]
pub(super) struct Notices {
    set_aside: Option<String>,
    broken: Option<String>,
}

impl Notices {
    /// Nothing can be stored. Said in the log when it is news.
    pub(super) fn fail(&mut self, error: &StoreError) {
        let why = sentence(error);
        if self.broken.as_ref() != Some(&why) {
            tracing::warn!("nothing is stored: {why}");
        }
        self.broken = Some(why);
    }

    /// For people. `lost` events had to be dropped.
    pub(super) fn sentences(&self, lost: u64) -> Vec<String> {
        let broken = self.broken.as_ref().map(|why| {
            let lost = if lost > 0 {
                format!(" {lost} older ones are lost.")
            } else {
                String::new()
            };
            format!(
                "Nothing is stored at the moment ({why}). Devices work; what was held back may be forgotten when the Pi restarts. The latest {MOST_EVENTS} events are kept in memory.{lost}"
            )
        });
        broken.into_iter().chain(self.set_aside.clone()).collect()
    }
}

/// The one that writes.
pub(super) struct Writer {
    shared: Arc<Shared>,
    /// Open for writing. `Shared::database` is a clone of it, or open for reading alone.
    database: Option<Database>,
    /// All rows that belong in the file, for the case that it has to be replaced.
    kept: BTreeMap<Key, Change>,
    retry: Duration,
    unpruned: usize,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, writable: bool) -> Self {
        let database = lock(&shared.database).clone().filter(|_| writable);
        let kept = shared.recalled.changes();
        let kept = kept.map(|change| (change.key(), change)).collect();
        Self {
            shared,
            database,
            kept,
            retry: FIRST_RETRY,
            unpruned: PRUNE_EACH,
        }
    }

    /// Write until the store is closed.
    pub(super) async fn run(mut self) {
        loop {
            self.shared.wake.notified().await;
            let _ = timeout(GATHER, self.shared.hurry.notified()).await;
            loop {
                let (asked, closing) = {
                    let queue = lock(&self.shared.queue);
                    (queue.asked, queue.closing)
                };
                let saved = self.save().await;
                self.note(saved.as_ref().err());
                let progress = &self.shared.progress;
                progress.send_modify(|progress| progress.tried = asked);
                if closing {
                    lock(&self.shared.database).take();
                    if let Some(database) = self.database.take() {
                        database.close().await;
                    }
                    progress.send_modify(|progress| progress.closed = true);
                    return;
                }
                if saved.is_ok() {
                    self.retry = FIRST_RETRY;
                    break;
                }
                sleep(FIRST_RETRY).await;
                let _ = timeout(self.retry, self.shared.hurry.notified()).await;
                self.retry = (self.retry * 2).min(LAST_RETRY);
            }
        }
    }

    fn note(&self, error: Option<&StoreError>) {
        let mut notices = lock(&self.shared.notices);
        match error {
            Some(error) => notices.fail(error),
            None => {
                if notices.broken.take().is_some() {
                    tracing::info!(path = %self.shared.path.display(), "storing works again");
                }
            }
        }
    }

    /// Write what waits.
    async fn save(&mut self) -> Result<(), StoreError> {
        let damaged = self.shared.damaged.swap(false, Ordering::Relaxed);
        if damaged {
            self.replace("a page of it cannot be read").await?;
        }
        match self.write().await {
            Err(error) if error.is_corrupt() => {
                self.replace(&sentence(&error)).await?;
                self.write().await
            }
            result => result,
        }
    }

    async fn write(&mut self) -> Result<(), StoreError> {
        let path = self.shared.path.clone();
        let now = self.shared.options.now.clone();
        if lock(&self.shared.queue).batch(now()).is_empty() {
            return Ok(());
        }
        let database = match &self.database {
            Some(database) => database.clone(),
            None => self.open().await?,
        };
        let batch = lock(&self.shared.queue).batch(now());
        in_time(&path, database.write(&batch)).await?;
        lock(&self.shared.queue).written(&batch);
        for change in batch.changes {
            if change.is_end() {
                self.kept.remove(&change.key());
            } else {
                self.kept.insert(change.key(), change);
            }
        }
        self.unpruned += batch.events.len();
        if self.unpruned >= PRUNE_EACH {
            self.unpruned = 0;
            let most = self.shared.options.most_events;
            in_time(&path, database.prune(most)).await?;
        }
        Ok(())
    }

    /// Open the file, which may be another than the one that was known.
    async fn open(&mut self) -> Result<Database, StoreError> {
        let mut notices = Notices::default();
        let (database, recalled) = open(&self.shared.path, &mut notices).await?;
        if let Some(sentence) = notices.set_aside {
            lock(&self.shared.notices).set_aside = Some(sentence);
        }
        {
            let mut queue = lock(&self.shared.queue);
            queue.follow(recalled.newest);
            if recalled.changes().next().is_none() {
                // What the lost file held is still known.
                for change in self.kept.values() {
                    queue.change_if_none(change);
                }
            }
        }
        let stale = lock(&self.shared.database).replace(database.clone());
        if let Some(stale) = stale {
            stale.close().await;
        }
        self.database = Some(database.clone());
        Ok(database)
    }

    /// Set the damaged file aside and begin a new one.
    async fn replace(&mut self, why: &str) -> Result<(), StoreError> {
        let shared = lock(&self.shared.database).take();
        for database in [shared, self.database.take()].into_iter().flatten() {
            // Closing merges the log into the file, which may fail for the same reason; it is over then, too.
            let _ = timeout(TOO_LONG, database.close()).await;
        }
        let sentence = aside(&self.shared.path, why).await?;
        lock(&self.shared.notices).set_aside = Some(sentence);
        self.open().await?;
        Ok(())
    }
}

/// Open the file and read it; set it aside and begin a new one where it is damaged.
pub(super) async fn open(
    path: &Path,
    notices: &mut Notices,
) -> Result<(Database, Recalled), StoreError> {
    match in_time(path, open_once(path)).await {
        Err(error) if error.is_corrupt() => {
            notices.set_aside = Some(aside(path, &sentence(&error)).await?);
            in_time(path, open_once(path)).await
        }
        result => result,
    }
}

async fn open_once(path: &Path) -> Result<(Database, Recalled), DatabaseError> {
    recalled(Database::open(path).await?).await
}

/// What can be read where nothing can be written.
pub(super) async fn open_read_only(path: &Path) -> Option<(Database, Recalled)> {
    let open = async { recalled(Database::open_read_only(path).await?).await };
    in_time(path, open).await.ok()
}

async fn recalled(database: Database) -> Result<(Database, Recalled), DatabaseError> {
    match database.recall().await {
        Ok(recalled) => Ok((database, recalled)),
        Err(error) => {
            database.close().await;
            Err(error)
        }
    }
}

/// Set a damaged file aside; returns the sentence for people.
async fn aside(path: &Path, why: &str) -> Result<String, StoreError> {
    let aside = set_aside(path).await?;
    tracing::warn!(path = %path.display(), aside = %aside.display(), "damaged file set aside: {why}");
    Ok(format!(
        "{} was damaged. It was kept as {} and a new one begun; what was held back may be forgotten.",
        path.display(),
        aside.display()
    ))
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

/// An error and what caused it.
pub(super) fn sentence(error: &StoreError) -> String {
    let mut why = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        // Writing to a String cannot fail.
        let _ = write!(why, ": {cause}");
        source = cause.source();
    }
    why
}
