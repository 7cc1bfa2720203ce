//! The table of devices that were seen.

use sqlx::{Row, SqliteConnection, SqlitePool};

use super::{Known, Stamp, queue::Seen};
use crate::manager::Identity;

/// Devices that are kept. A board can make up another serial number each time.
const MOST: u32 = 1000;

/// Add to what is known of a device.
pub(super) async fn write(connection: &mut SqliteConnection, seen: &Seen) -> sqlx::Result<()> {
    let ms = |stamp: Stamp| stamp.is_set().then_some(stamp.unix_ms);
    let sighting = &seen.sighting;
    sqlx::query(
        "INSERT INTO seen (identity, vendor, product, manufacturer, name, serial, port, first_ms,
                           last_ms, plugs)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (identity) DO UPDATE SET
            manufacturer = excluded.manufacturer, name = excluded.name, serial = excluded.serial,
            port = excluded.port, first_ms = coalesce(first_ms, excluded.first_ms),
            last_ms = coalesce(excluded.last_ms, last_ms), plugs = plugs + excluded.plugs",
    )
    .bind(sighting.identity.as_str())
    .bind(sighting.vendor)
    .bind(sighting.product)
    .bind(&sighting.manufacturer)
    .bind(&sighting.name)
    .bind(&sighting.serial)
    .bind(&sighting.port)
    .bind(ms(seen.first))
    .bind(ms(seen.last))
    .bind(seen.plugs)
    .execute(connection)
    .await
    .map(drop)
}

/// Forget those that were not seen for the longest time, and the names of those that are forgotten once
/// there are too many.
pub(super) async fn prune(connection: &mut SqliteConnection) -> sqlx::Result<()> {
    sqlx::query(
        "DELETE FROM seen WHERE identity IN (
            SELECT identity FROM seen ORDER BY last_ms DESC NULLS LAST LIMIT -1 OFFSET ?)",
    )
    .bind(MOST)
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "DELETE FROM device WHERE (SELECT count(*) FROM device) > ?
            AND identity NOT IN (SELECT identity FROM seen)",
    )
    .bind(MOST)
    .execute(connection)
    .await
    .map(drop)
}

/// All of them, in the order of their identity.
pub(super) async fn read(pool: &SqlitePool) -> sqlx::Result<Vec<Known>> {
    let rows = sqlx::query("SELECT * FROM seen ORDER BY identity")
        .fetch_all(pool)
        .await?;
    rows.iter()
        .map(|row| {
            Ok(Known {
                identity: Identity::from(row.try_get::<String, _>("identity")?),
                vendor: row.try_get("vendor")?,
                product: row.try_get("product")?,
                manufacturer: row.try_get("manufacturer")?,
                name: row.try_get("name")?,
                serial: row.try_get("serial")?,
                port: row.try_get("port")?,
                first_ms: row.try_get("first_ms")?,
                last_ms: row.try_get("last_ms")?,
                plugs: row.try_get("plugs")?,
            })
        })
        .collect()
}

impl Seen {
    /// As it will be known once it is written, where nothing was known before.
    pub(super) fn known(&self) -> Known {
        let ms = |stamp: Stamp| stamp.is_set().then_some(stamp.unix_ms);
        let sighting = self.sighting.clone();
        Known {
            identity: sighting.identity,
            vendor: sighting.vendor,
            product: sighting.product,
            manufacturer: sighting.manufacturer,
            name: sighting.name,
            serial: sighting.serial,
            port: sighting.port,
            first_ms: ms(self.first),
            last_ms: ms(self.last),
            plugs: self.plugs,
        }
    }
}
