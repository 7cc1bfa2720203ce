//! Who may use the portal: sessions and tokens.

use sqlx::{Row, Sqlite, SqlitePool, query::Query, sqlite::SqliteArguments, sqlite::SqliteRow};
use std::time::Duration;

use crate::access::{Digest, Kept, KeptSession, KeptToken, from_hex, hex};

/// Which row it is about.
pub(super) fn key(kept: &Kept) -> super::change::Key {
    match kept {
        Kept::Session(key, _) => ("session", hex(key)),
        Kept::Token(key, _) => ("token", hex(key)),
    }
}

/// What stores it.
pub(super) fn write(kept: &Kept) -> Query<'static, Sqlite, SqliteArguments> {
    match kept {
        Kept::Session(key, Some(session)) => sqlx::query(
            "INSERT INTO session (key, address, created_ms, ran_s) VALUES (?, ?, ?, ?)
             ON CONFLICT (key) DO UPDATE SET ran_s = excluded.ran_s",
        )
        .bind(hex(key))
        .bind(session.address.to_string())
        .bind(session.created_ms)
        .bind(session.age.as_secs().cast_signed()),
        Kept::Session(key, None) => sqlx::query("DELETE FROM session WHERE key = ?").bind(hex(key)),
        Kept::Token(key, Some(token)) => sqlx::query(
            "INSERT INTO token (key, name, created_ms, used_ms) VALUES (?, ?, ?, ?)
             ON CONFLICT (key) DO UPDATE SET used_ms = excluded.used_ms",
        )
        .bind(hex(key))
        .bind(token.name.clone())
        .bind(token.created_ms)
        .bind(token.used_ms),
        Kept::Token(key, None) => sqlx::query("DELETE FROM token WHERE key = ?").bind(hex(key)),
    }
}

/// What earlier runs kept. A row that cannot be understood lets nobody in.
pub(super) async fn read(pool: &SqlitePool) -> sqlx::Result<Vec<Kept>> {
    let sessions = sqlx::query("SELECT key, address, created_ms, ran_s FROM session");
    let sessions = sessions.fetch_all(pool).await?;
    let tokens = sqlx::query("SELECT key, name, created_ms, used_ms FROM token");
    let tokens = tokens.fetch_all(pool).await?;
    let sessions = sessions.iter().filter_map(|row| session(row).transpose());
    let tokens = tokens.iter().filter_map(|row| token(row).transpose());
    sessions.chain(tokens).collect()
}

fn session(row: &SqliteRow) -> sqlx::Result<Option<Kept>> {
    let address = row.try_get::<String, _>("address")?.parse();
    let session = KeptSession {
        created_ms: row.try_get("created_ms")?,
        age: Duration::from_secs(row.try_get::<i64, _>("ran_s")?.unsigned_abs()),
        address: match address {
            Ok(address) => address,
            Err(_) => return Ok(None),
        },
    };
    Ok(digest(row)?.map(|key| Kept::Session(key, Some(session))))
}

fn token(row: &SqliteRow) -> sqlx::Result<Option<Kept>> {
    let token = KeptToken {
        name: row.try_get("name")?,
        created_ms: row.try_get("created_ms")?,
        used_ms: row.try_get("used_ms")?,
    };
    Ok(digest(row)?.map(|key| Kept::Token(key, Some(token))))
}

fn digest(row: &SqliteRow) -> sqlx::Result<Option<Digest>> {
    Ok(from_hex(&row.try_get::<String, _>("key")?))
}
