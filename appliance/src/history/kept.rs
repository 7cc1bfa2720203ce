//! The rows of names, rules and holds.

use sqlx::{Row, Sqlite, SqlitePool, query::Query, sqlite::SqliteArguments};

use super::change::Key;
use crate::manager::{Keep, Ruling};

pub(super) fn key(keep: &Keep) -> Key {
    match keep {
        Keep::Alias(scope, _) => ("alias", scope.to_string()),
        Keep::Rule(scope, _) => ("rule", scope.to_string()),
        Keep::Held(scope, _) => ("held", scope.to_string()),
    }
}

/// Whether there is no such row any more.
pub(super) fn is_end(keep: &Keep) -> bool {
    matches!(
        keep,
        Keep::Alias(_, None) | Keep::Rule(_, None) | Keep::Held(_, false)
    )
}

/// What stores it.
pub(super) fn write(keep: &Keep) -> Query<'static, Sqlite, SqliteArguments> {
    match keep {
        Keep::Alias(scope, Some(alias)) => sqlx::query(
            "INSERT INTO alias (scope, alias) VALUES (?, ?)
             ON CONFLICT (scope) DO UPDATE SET alias = excluded.alias",
        )
        .bind(scope.to_string())
        .bind(alias.to_string()),
        Keep::Alias(scope, None) => {
            sqlx::query("DELETE FROM alias WHERE scope = ?").bind(scope.to_string())
        }
        Keep::Rule(scope, Some(ruling)) => sqlx::query(
            "INSERT INTO rule (scope, ruling) VALUES (?, ?)
             ON CONFLICT (scope) DO UPDATE SET ruling = excluded.ruling",
        )
        .bind(scope.to_string())
        .bind(ruling.word()),
        Keep::Rule(scope, None) => {
            sqlx::query("DELETE FROM rule WHERE scope = ?").bind(scope.to_string())
        }
        Keep::Held(scope, true) => {
            sqlx::query("INSERT OR IGNORE INTO held (scope) VALUES (?)").bind(scope.to_string())
        }
        Keep::Held(scope, false) => {
            sqlx::query("DELETE FROM held WHERE scope = ?").bind(scope.to_string())
        }
    }
}

/// All of them; what only another version understands is left out.
pub(super) async fn read(pool: &SqlitePool) -> sqlx::Result<Vec<Keep>> {
    // A file that cannot be written may be of an older schema.
    let has = |table| {
        let tables = sqlx::query("SELECT 1 FROM sqlite_schema WHERE name = ?").bind(table);
        tables.fetch_optional(pool)
    };
    let mut kept = Vec::new();
    if has("rule").await?.is_none() {
        return Ok(kept);
    }
    let aliases = sqlx::query("SELECT scope, alias FROM alias");
    for row in aliases.fetch_all(pool).await? {
        let (scope, alias): (String, String) = (row.try_get("scope")?, row.try_get("alias")?);
        if let (Ok(scope), Ok(alias)) = (scope.parse(), alias.parse()) {
            kept.push(Keep::Alias(scope, Some(alias)));
        }
    }
    let rules = sqlx::query("SELECT scope, ruling FROM rule");
    for row in rules.fetch_all(pool).await? {
        let (scope, ruling): (String, String) = (row.try_get("scope")?, row.try_get("ruling")?);
        if let (Ok(scope), Some(ruling)) = (scope.parse(), Ruling::from_word(&ruling)) {
            kept.push(Keep::Rule(scope, Some(ruling)));
        }
    }
    if has("held").await?.is_some() {
        for row in sqlx::query("SELECT scope FROM held")
            .fetch_all(pool)
            .await?
        {
            if let Ok(scope) = row.try_get::<String, _>("scope")?.parse() {
                kept.push(Keep::Held(scope, true));
            }
        }
    }
    Ok(kept)
}
