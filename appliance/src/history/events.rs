//! The table of events.

use sqlx::{QueryBuilder, Row, Sqlite, SqliteConnection, SqlitePool, sqlite::SqliteRow};

use super::{Clock, Cursor, Event, Filter, Kind, Record, Stamp, Subject};
use crate::manager::Identity;

/// Most events deleted in one transaction.
const PRUNED_AT_ONCE: i64 = 2000;
/// Of what anybody on the network can cause, this part of all events is kept at most.
const NOISE_PART: u32 = 5;

/// Write one, or what changed since it was written.
pub(super) async fn write(connection: &mut SqliteConnection, record: &Record) -> sqlx::Result<()> {
    let event = &record.event;
    let device = event.device.as_ref();
    sqlx::query(
        "INSERT INTO event (sequence, boot_id, mono_ms, unix_ms, clock, kind, device, busid, name,
                            peer, message, attached, count, last_ms)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (sequence) DO UPDATE SET
            device = excluded.device, name = excluded.name, message = excluded.message,
            attached = excluded.attached, count = excluded.count, last_ms = excluded.last_ms",
    )
    .bind(record.sequence)
    .bind(&*record.boot_id)
    .bind(record.mono_ms)
    .bind(record.unix_ms)
    .bind(record.clock.number())
    .bind(event.kind.as_str())
    .bind(device.map(|device| device.identity.as_str()))
    .bind(device.map(|device| device.busid.as_str()))
    .bind(device.and_then(|device| device.name.as_deref()))
    .bind(event.peer.map(|peer| peer.to_string()))
    .bind(&event.message)
    .bind(
        event
            .attached
            .as_ref()
            .and_then(|attached| serde_json::to_string(attached).ok()),
    )
    .bind(record.count)
    .bind(record.last_ms)
    .execute(connection)
    .await
    .map(drop)
}

/// Work out the times of this boot's events from before the clock was set.
pub(super) async fn date(
    connection: &mut SqliteConnection,
    boot_id: &str,
    now: Stamp,
) -> sqlx::Result<()> {
    // What the wall clock showed when this boot's other clock showed 0.
    let boot_ms = now.unix_at(0);
    sqlx::query(
        "UPDATE event SET
            last_ms = CASE WHEN last_ms < ? THEN ? + mono_ms + last_ms - unix_ms ELSE last_ms END,
            unix_ms = ? + mono_ms, clock = ?
         WHERE boot_id = ? AND clock = 0",
    )
    .bind(boot_ms)
    .bind(boot_ms)
    .bind(boot_ms)
    .bind(Clock::WorkedOut.number())
    .bind(boot_id)
    .execute(connection)
    .await
    .map(drop)
}

/// Delete the oldest beyond `most`, and of the noise beyond its part, at most [`PRUNED_AT_ONCE`] of each.
pub(super) async fn prune(connection: &mut SqliteConnection, most: u32) -> sqlx::Result<()> {
    let noise = Kind::ALL.iter().filter(|kind| kind.is_noise());
    let noise: Vec<&str> = noise.map(|kind| kind.as_str()).collect();
    for (kinds, most) in [(&noise[..], most / NOISE_PART), (&[], most)] {
        let among = |mut query: QueryBuilder<Sqlite>| {
            if !kinds.is_empty() {
                query.push(" WHERE kind IN (");
                let mut list = query.separated(", ");
                for kind in kinds {
                    list.push_bind((*kind).to_owned());
                }
                query.push(")");
            }
            query
        };
        let count: i64 = among(QueryBuilder::new("SELECT count(*) AS count FROM event"))
            .build()
            .fetch_one(&mut *connection)
            .await?
            .try_get("count")?;
        let excess = (count - i64::from(most)).min(PRUNED_AT_ONCE);
        if excess > 0 {
            let mut query = among(QueryBuilder::new(
                "DELETE FROM event WHERE sequence IN (SELECT sequence FROM event",
            ));
            query
                .push(" ORDER BY sequence LIMIT ")
                .push_bind(excess)
                .push(")");
            query.build().execute(&mut *connection).await?;
        }
    }
    Ok(())
}

/// At most `limit` of those that are wanted.
pub(super) async fn read(
    pool: &SqlitePool,
    filter: &Filter,
    cursor: Cursor,
    limit: u32,
) -> sqlx::Result<Vec<Record>> {
    let mut query = QueryBuilder::<Sqlite>::new("SELECT * FROM event WHERE true");
    if let Some(kind) = filter.kind {
        query.push(" AND kind = ").push_bind(kind.as_str());
    }
    if let Some(device) = &filter.device {
        query
            .push(" AND device = ")
            .push_bind(device.as_str().to_owned());
    }
    if let Some(from) = filter.from_ms {
        query.push(" AND unix_ms >= ").push_bind(from);
    }
    if let Some(to) = filter.to_ms {
        query.push(" AND unix_ms < ").push_bind(to);
    }
    match cursor {
        Cursor::Newest => {}
        Cursor::Before(end) => {
            query.push(" AND sequence < ").push_bind(end);
        }
        Cursor::After(begin) => {
            query.push(" AND sequence > ").push_bind(begin);
        }
    }
    query.push(" ORDER BY sequence");
    query.push(if cursor.is_ascending() { "" } else { " DESC" });
    query.push(" LIMIT ").push_bind(limit);
    let rows = query.build().fetch_all(pool).await?;
    rows.iter().map(record).collect()
}

fn record(row: &SqliteRow) -> sqlx::Result<Record> {
    let word: String = row.try_get("kind")?;
    let mut message: Option<String> = row.try_get("message")?;
    let kind = Kind::from_word(&word).unwrap_or_else(|| {
        message = Some(match message.take() {
            Some(message) => format!("{word}: {message}"),
            None => word.clone(),
        });
        Kind::Other
    });
    let (identity, busid): (Option<String>, Option<String>) =
        (row.try_get("device")?, row.try_get("busid")?);
    let name = row.try_get("name")?;
    let busid = busid.and_then(|busid| busid.parse().ok());
    let device = identity.zip(busid).map(|(identity, busid)| Subject {
        identity: Identity::from(identity),
        busid,
        name,
    });
    let peer: Option<String> = row.try_get("peer")?;
    let attached: Option<String> = row.try_get("attached")?;
    Ok(Record {
        sequence: row.try_get("sequence")?,
        boot_id: row.try_get::<String, _>("boot_id")?.into(),
        mono_ms: row.try_get("mono_ms")?,
        unix_ms: row.try_get("unix_ms")?,
        clock: Clock::from_number(row.try_get("clock")?),
        event: Event {
            kind,
            device,
            peer: peer.and_then(|peer| peer.parse().ok()),
            message,
            attached: attached.and_then(|attached| serde_json::from_str(&attached).ok()),
        },
        count: row.try_get("count")?,
        last_ms: row.try_get("last_ms")?,
    })
}
