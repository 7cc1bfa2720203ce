//! What happened, for people and programs.
//!
//! - [`query`]: which events are wanted
//! - [`when`]: times as text
//! - [`entry`]: an event or a known device as JSON
//! - [`export`]: all wanted events as a file

mod entry;
mod export;
pub(super) mod query;
pub(super) mod when;

use actix_web::{
    HttpRequest, HttpResponse,
    http::{StatusCode, header},
    web,
};
use serde::Serialize;

use super::{Context, api::refuse, guard::visitor::Visitor, page};
use crate::history::Cursor;
use entry::{Device, Entry};
use query::Query;

pub(super) use export::{csv, json};

/// Events on a page.
const PAGE: u32 = 50;
/// Events in one answer to a program, when it does not say.
const FEW: u32 = 100;

/// `GET /history`
pub(super) async fn show(
    request: HttpRequest,
    visitor: Visitor,
    context: web::Data<Context>,
) -> HttpResponse {
    let (query, wrong) = Query::read(request.query_string());
    let cursor = query.cursor();
    let mut reading = context.history.events(&query.filter, cursor, PAGE).await;
    // People read from the newest down.
    if cursor.is_ascending() {
        reading.records.reverse();
    }
    let (newer, older) = match cursor {
        Cursor::Newest => (false, reading.more),
        Cursor::Before(_) => (true, reading.more),
        Cursor::After(_) => (reading.more, true),
    };
    let shown = page::history::Shown {
        query: &query,
        wrong: wrong.first(),
        records: &reading.records,
        complete: reading.complete,
        newer: newer
            .then(|| reading.records.first().map(|r| r.sequence))
            .flatten(),
        older: older
            .then(|| reading.records.last().map(|r| r.sequence))
            .flatten(),
        known: &context.history.known().await,
        view: &context.view.borrow().clone(),
        notices: &context.history.notices(),
    };
    let status = if wrong.is_empty() {
        StatusCode::OK
    } else {
        StatusCode::BAD_REQUEST
    };
    page::reply(status, &page::history::page(&visitor, &shown))
}

/// The answer to `GET /api/v1/events`.
#[derive(Serialize)]
struct Answer {
    /// In the order of their sequence numbers.
    events: Vec<Entry>,
    /// Ask with `after` set to this for what comes next.
    next: i64,
    /// Whether there is more now.
    more: bool,
    /// The newest event's sequence number. When it is less than `next`, the history was lost and
    /// began anew: ask from 0 on.
    newest: i64,
    /// Whether the database could be read; where not, these are only the latest events, and `next`
    /// is the `after` of the question.
    complete: bool,
}

/// `GET /api/v1/events?after=SEQUENCE&limit=NUMBER&kind=KIND&device=IDENTITY&from=DAY&to=DAY`: events
/// newer than `after` (0 when there is none), at most `limit` (100; at most 1000), the oldest first.
pub(super) async fn events(request: HttpRequest, context: web::Data<Context>) -> HttpResponse {
    let (query, wrong) = Query::read(request.query_string());
    if let Some(error) = wrong.first() {
        return refuse(StatusCode::BAD_REQUEST, &error.to_string(), &error.remedy());
    }
    let after = query.after.unwrap_or(0);
    let limit = query.limit.unwrap_or(FEW);
    // Before reading, so that nothing that comes meanwhile is passed over.
    let newest = context.history.newest();
    let cursor = Cursor::After(after);
    let reading = context.history.events(&query.filter, cursor, limit).await;
    let last = reading.records.last().map(|record| record.sequence);
    let newest = last.map_or(newest, |last| last.max(newest));
    let next = match (reading.complete, reading.more) {
        (false, _) => after,
        (true, true) => last.unwrap_or(after),
        // What is not wanted need not be looked through again.
        (true, false) => after.max(newest),
    };
    answer(&Answer {
        next,
        events: reading.records.iter().map(Entry::of).collect(),
        more: reading.more,
        newest,
        complete: reading.complete,
    })
}

/// The answer to `GET /api/v1/devices`.
#[derive(Serialize)]
struct Known {
    /// In the order of their identity.
    devices: Vec<Device>,
}

/// `GET /api/v1/devices`: every device that was ever seen.
pub(super) async fn devices(context: web::Data<Context>) -> HttpResponse {
    let known = context.history.known().await;
    let view = context.view.borrow().clone();
    let devices = known.iter().map(|known| Device::of(known, &view));
    answer(&Known {
        devices: devices.collect(),
    })
}

fn answer(value: &impl Serialize) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .json(value)
}
