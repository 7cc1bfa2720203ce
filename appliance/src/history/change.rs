//! Rows that are kept until they are replaced or deleted, as opposed to events.
//!
//! A part of the appliance that keeps rows of its own adds a variant to [`Change`] and what it reads
//! at the start to [`Recalled`]. It works from memory, so that a broken file disturbs nobody: all of
//! these rows fit into it, and they are written anew when a damaged file was set aside.

use sqlx::{Row, SqliteConnection, SqlitePool};

use super::{access, kept};
use crate::{
    access::Kept,
    manager::{Identity, Keep, Remembered},
};

/// One row that was changed.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Change {
    /// What is remembered of a device.
    Device(Remembered),
    /// A session or a token, or its end.
    Access(Kept),
    /// A name, rule or hold that a person made, or its end.
    Kept(Keep),
}

/// Names a row: table and primary key.
pub(super) type Key = (&'static str, String);

impl Change {
    /// Which row it is about: a later change of the same row replaces this one.
    pub(super) fn key(&self) -> Key {
        match self {
            Self::Device(device) => ("device", device.identity.as_str().to_owned()),
            Self::Access(kept) => access::key(kept),
            Self::Kept(keep) => kept::key(keep),
        }
    }

    /// Whether there is no such row any more.
    pub(super) fn is_end(&self) -> bool {
        match self {
            Self::Device(_) => false,
            Self::Access(kept) => matches!(kept, Kept::Session(_, None) | Kept::Token(_, None)),
            Self::Kept(keep) => kept::is_end(keep),
        }
    }

    pub(super) async fn write(&self, connection: &mut SqliteConnection) -> sqlx::Result<()> {
        match self {
            Self::Device(device) => sqlx::query(
                "INSERT INTO device (identity, tty, held) VALUES (?, ?, 0)
                 ON CONFLICT (identity) DO UPDATE SET tty = excluded.tty",
            )
            .bind(device.identity.as_str())
            .bind(&device.tty),
            Self::Access(kept) => access::write(kept),
            Self::Kept(keep) => kept::write(keep),
        }
        .execute(connection)
        .await
        .map(drop)
    }
}

/// What earlier runs left behind.
#[derive(Debug, Clone, Default)]
pub(super) struct Recalled {
    pub devices: Vec<Remembered>,
    pub access: Vec<Kept>,
    pub kept: Vec<Keep>,
    /// The latest event's sequence number, 0 for none.
    pub newest: i64,
}

impl Recalled {
    pub(super) async fn read(pool: &SqlitePool) -> sqlx::Result<Self> {
        let rows = sqlx::query("SELECT identity, tty FROM device")
            .fetch_all(pool)
            .await?;
        let devices = rows.iter().map(|row| {
            Ok(Remembered {
                identity: Identity::from(row.try_get::<String, _>("identity")?),
                tty: row.try_get("tty")?,
            })
        });
        let devices = devices.collect::<sqlx::Result<_>>()?;
        // A file that cannot be written may be of an older schema.
        let tables = sqlx::query("SELECT 1 FROM sqlite_schema WHERE name = 'event'");
        let newest = if tables.fetch_optional(pool).await?.is_some() {
            sqlx::query("SELECT coalesce(max(sequence), 0) AS newest FROM event")
                .fetch_one(pool)
                .await?
                .try_get("newest")?
        } else {
            0
        };
        let tables = sqlx::query("SELECT 1 FROM sqlite_schema WHERE name = 'token'");
        let access = match tables.fetch_optional(pool).await? {
            None => Vec::new(),
            Some(_) => access::read(pool).await?,
        };
        Ok(Self {
            devices,
            access,
            kept: kept::read(pool).await?,
            newest,
        })
    }

    /// The same as changes.
    pub(super) fn changes(&self) -> impl Iterator<Item = Change> {
        let devices = self.devices.iter().cloned().map(Change::Device);
        let access = self.access.iter().cloned().map(Change::Access);
        let kept = self.kept.iter().cloned().map(Change::Kept);
        devices.chain(access).chain(kept)
    }
}
