//! The SQLite file.

use std::{
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    sync::LazyLock,
    time::Duration,
};

use sqlx::{
    SqlitePool,
    migrate::{MigrateError, Migrator},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tokio::fs;

use super::{Cursor, Filter, Known, Record, change::Recalled, events, queue::Batch, seen};

/// How long one statement waits for another process's lock, and a caller for the connection.
const BUSY: Duration = Duration::from_secs(5);

/// How many damaged files are kept beside the good one.
const MOST_SET_ASIDE: u32 = 100;

/// Result codes that say that the file's content is wrong: `SQLITE_CORRUPT` and `SQLITE_NOTADB`
/// (<https://sqlite.org/rescode.html>; the low byte of an extended code).
const CORRUPT: [u32; 2] = [11, 26];

static MIGRATIONS: LazyLock<Migrator> = LazyLock::new(|| {
    let mut migrations = sqlx::migrate!("../migrations");
    // After a firmware was rolled back, the file may know migrations that this one does not.
    migrations.set_ignore_missing(true);
    migrations
});

/// An open database, its schema up to date. Cheap to clone.
#[derive(Clone)]
pub(super) struct Database {
    pool: SqlitePool,
}

/// Why the database cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum DatabaseError {
    #[error("failed to open {}", path.display())]
    Open { path: PathBuf, source: sqlx::Error },
    #[error("failed to bring {} to the present schema", path.display())]
    Migrate { path: PathBuf, source: MigrateError },
    #[error("failed to read what earlier runs left behind")]
    Recall { source: sqlx::Error },
    #[error("failed to read the history")]
    Read { source: sqlx::Error },
    #[error("failed to write the history")]
    Write { source: sqlx::Error },
    #[error("failed to set the damaged {} aside", path.display())]
    SetAside { path: PathBuf, source: io::Error },
}

impl DatabaseError {
    /// Whether the file's content is at fault, so that a new file would help.
    pub(super) fn is_corrupt(&self) -> bool {
        let source = match self {
            Self::Open { source, .. }
            | Self::Recall { source }
            | Self::Read { source }
            | Self::Write { source } => source,
            Self::Migrate { source, .. } => match source {
                MigrateError::Execute(source) | MigrateError::ExecuteMigration(source, _) => source,
                _ => return false,
            },
            Self::SetAside { .. } => return false,
        };
        source
            .as_database_error()
            .and_then(sqlx::error::DatabaseError::code)
            .and_then(|code| code.parse::<u32>().ok())
            .is_some_and(|code| CORRUPT.contains(&(code & 0xff)))
    }
}

impl Database {
    /// Open the file, making it where there is none.
    pub(super) async fn open(path: &Path) -> Result<Self, DatabaseError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // With WAL, a power cut can lose the latest commits but not damage the file.
            .synchronous(SqliteSynchronous::Normal)
            // After a long outage the log may have grown; it need not stay so.
            .pragma("journal_size_limit", "4194304")
            .busy_timeout(BUSY);
        let database = Self::connect(path, options).await?;
        if let Err(source) = MIGRATIONS.run(&database.pool).await {
            database.close().await;
            let path = path.to_owned();
            return Err(DatabaseError::Migrate { path, source });
        }
        Ok(database)
    }

    /// Open the file for reading alone, as it lies on a file system that cannot be written.
    pub(super) async fn open_read_only(path: &Path) -> Result<Self, DatabaseError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .read_only(true)
            .immutable(true);
        Self::connect(path, options).await
    }

    async fn connect(path: &Path, options: SqliteConnectOptions) -> Result<Self, DatabaseError> {
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .acquire_timeout(BUSY)
            // No limits of age, so that no task wakes up to look for connections that reached one.
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_with(options)
            .await
            .map_err(|source| DatabaseError::Open {
                path: path.to_owned(),
                source,
            })?;
        Ok(Self { pool })
    }

    /// What earlier runs left behind.
    pub(super) async fn recall(&self) -> Result<Recalled, DatabaseError> {
        let recalled = Recalled::read(&self.pool).await;
        recalled.map_err(|source| DatabaseError::Recall { source })
    }

    /// Write all of this or nothing.
    pub(super) async fn write(&self, batch: &Batch) -> Result<(), DatabaseError> {
        let write = async {
            let mut transaction = self.pool.begin().await?;
            for change in &batch.changes {
                change.write(&mut transaction).await?;
            }
            for record in &batch.events {
                events::write(&mut transaction, record).await?;
            }
            for seen in &batch.seen {
                seen::write(&mut transaction, seen).await?;
            }
            if let Some(now) = batch.date {
                events::date(&mut transaction, &batch.boot_id, now).await?;
            }
            transaction.commit().await
        };
        write
            .await
            .map_err(|source| DatabaseError::Write { source })
    }

    /// Delete what is too much, in a small batch; a no-op where nothing is.
    pub(super) async fn prune(&self, most_events: u32) -> Result<(), DatabaseError> {
        let prune = async {
            let mut transaction = self.pool.begin().await?;
            events::prune(&mut transaction, most_events).await?;
            seen::prune(&mut transaction).await?;
            transaction.commit().await
        };
        prune
            .await
            .map_err(|source| DatabaseError::Write { source })
    }

    /// At most `limit` events.
    pub(super) async fn events(
        &self,
        filter: &Filter,
        cursor: Cursor,
        limit: u32,
    ) -> Result<Vec<Record>, DatabaseError> {
        let events = events::read(&self.pool, filter, cursor, limit).await;
        events.map_err(|source| DatabaseError::Read { source })
    }

    /// All known devices.
    pub(super) async fn known(&self) -> Result<Vec<Known>, DatabaseError> {
        let known = seen::read(&self.pool).await;
        known.map_err(|source| DatabaseError::Read { source })
    }

    /// Close the file.
    pub(super) async fn close(self) {
        self.pool.close().await;
    }
}

/// Rename a damaged file, and what SQLite keeps beside it, to `NAME.corrupt-N`; returns that name.
pub(super) async fn set_aside(path: &Path) -> Result<PathBuf, DatabaseError> {
    let error = |source| DatabaseError::SetAside {
        path: path.to_owned(),
        source,
    };
    let target = free_name(path).await.map_err(error)?;
    // The write-ahead log first: were it left behind alone, it would be played into the new file.
    for beside in ["-wal", "-shm"] {
        match fs::rename(suffixed(path, beside), suffixed(&target, beside)).await {
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => {}
            result => result.map_err(error)?,
        }
    }
    fs::rename(path, &target).await.map_err(error)?;
    Ok(target)
}

async fn free_name(path: &Path) -> io::Result<PathBuf> {
    for n in 1..=MOST_SET_ASIDE {
        let name = suffixed(path, &format!(".corrupt-{n}"));
        if !fs::try_exists(&name).await? {
            return Ok(name);
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}
