//! The page about what happened.

use maud::{Markup, html};

use super::{
    super::{
        guard::visitor::Visitor,
        history::{
            query::{Query, QueryError},
            when,
        },
        text::shown,
    },
    frame,
};
use crate::{
    history::{AttachDetail, Clock, Filter, Kind, Known, Record},
    manager::View,
};

/// Devices to choose from and to list, those seen last first.
const MOST_DEVICES: usize = 100;

/// What the page shows.
pub(in super::super) struct Shown<'a> {
    pub query: &'a Query,
    /// What is wrong with the query.
    pub wrong: Option<&'a QueryError>,
    /// The newest first.
    pub records: &'a [Record],
    /// Whether the database could be read.
    pub complete: bool,
    /// The sequence number after which newer ones follow, where there are any;
    pub newer: Option<i64>,
    /// and before which older ones do.
    pub older: Option<i64>,
    pub known: &'a [Known],
    pub view: &'a View,
    /// What is wrong with the database.
    pub notices: &'a [String],
}

/// The page.
pub(in super::super) fn page(visitor: &Visitor, page: &Shown) -> Markup {
    let mut known: Vec<&Known> = page.known.iter().collect();
    known.sort_by_key(|known| (std::cmp::Reverse(known.last_ms), &known.identity));
    known.truncate(MOST_DEVICES);
    frame::frame(
        "History",
        visitor,
        &html! {
            h2 { "History" }
            @for notice in page.notices {
                p.notice { (shown(notice)) }
            }
            @if !page.complete {
                p.notice { "The stored history cannot be read at the moment. These are the latest events." }
            }
            @if let Some(error) = page.wrong {
                p.outcome.bad role="alert" {
                    (shown(&error.to_string())) ". It has to be " (error.remedy()) "."
                }
            }
            (filter(page.query, &known))
            (events(page))
            (pages(page))
            (devices(&known, page.view))
        },
    )
}

fn filter(query: &Query, known: &[&Known]) -> Markup {
    let chosen = query.filter.device.as_ref();
    let [from, to] = &query.days;
    html! {
        form.filter method="get" action="/history" role="search" {
            label {
                "What"
                select name="kind" {
                    option value="" { "Everything" }
                    @for kind in Kind::ALL.iter().filter(|kind| **kind != Kind::Other) {
                        option value=(kind.as_str()) selected[query.filter.kind == Some(*kind)] {
                            (kind.label())
                        }
                    }
                }
            }
            label {
                "Device"
                select name="device" {
                    option value="" { "All" }
                    @for known in known {
                        option value=(known.identity) selected[chosen == Some(&known.identity)] {
                            (name(known)) " · " (tail(known.identity.as_str()))
                        }
                    }
                    @if let Some(chosen) = chosen
                        && !known.iter().any(|known| known.identity == *chosen) {
                        option value=(chosen) selected { (shown(chosen.as_str())) }
                    }
                }
            }
            label { "From" input type="date" name="from" value=[from.as_deref()]; }
            label { "To" input type="date" name="to" value=[to.as_deref()]; }
            button type="submit" { "Show" }
        }
    }
}

fn events(page: &Shown) -> Markup {
    let records = page.records;
    html! {
        @if records.is_empty() {
            p.empty {
                @if page.query.filter == Filter::default() {
                    "Nothing has happened yet. What devices, the VM and people do is listed here."
                } @else {
                    "Nothing like that has happened. " a href="/history" { "Show everything" }
                }
            }
        } @else {
            ol.events {
                @for (n, record) in records.iter().enumerate() {
                    @if n > 0 && records[n - 1].boot_id != record.boot_id {
                        li.boot { "The Pi was restarted" }
                    }
                    (event(record, page.query))
                }
            }
        }
    }
}

fn event(record: &Record, query: &Query) -> Markup {
    let event = &record.event;
    html! {
        li {
            (time(record))
            div {
                strong.(colour(event.kind)) { (event.kind.label()) }
                @if record.count > 1 {
                    " " span.count { "×" (record.count) }
                }
            }
            div {
                @if let Some(device) = &event.device {
                    @let name = device.name.as_deref().map(shown).filter(|name| !name.is_empty());
                    @let only = Query { filter: Filter { device: Some(device.identity.clone()), ..query.filter.clone() }, ..query.clone() };
                    p {
                        a href=(only.address("/history", None)) title="Only this device" {
                            bdi { (name.as_deref().unwrap_or("USB device")) }
                        }
                        span.quiet { " at " (device.busid) }
                    }
                }
                @if let Some(message) = &event.message {
                    p { bdi { (shown(message)) } }
                }
                @if let Some(peer) = event.peer {
                    p.quiet { "from " (peer) }
                }
                @if let Some(attached) = &event.attached {
                    (attach(attached))
                }
                @if record.count > 1 && record.clock != Clock::Unset {
                    p.quiet { "until " (moment(record.last_ms)) }
                }
            }
        }
    }
}

fn time(record: &Record) -> Markup {
    html! {
        div.when {
            @match record.clock {
                Clock::Set => (moment(record.unix_ms)),
                Clock::WorkedOut => {
                    (moment(record.unix_ms))
                    span.quiet { " ≈" }
                }
                Clock::Unset => {
                    (since_boot(record.mono_ms))
                    span.quiet { " after the Pi started; its clock was not set" }
                }
            }
        }
    }
}

fn moment(ms: i64) -> Markup {
    html! { time datetime=(when::rfc3339(ms)) { (when::shown(ms)) } }
}

fn since_boot(ms: i64) -> String {
    match ms / 1000 {
        seconds @ ..120 => format!("{seconds} s"),
        seconds @ ..7200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}

fn attach(attached: &AttachDetail) -> Markup {
    html! {
        @if !attached.ttys.is_empty() {
            p.tty { @for tty in &attached.ttys { code { (shown(tty)) } } }
        }
        p.quiet {
            "vhci port " (attached.port)
            @if let Some(ms) = attached.plug_to_tty_ms {
                ", plug to tty " (ms) " ms"
            }
            @if let Some(parts) = attached.timings {
                (format!(
                    " (import {:.0}, attach {:.0}, enumerate {:.0}, tty {:.0} ms)",
                    parts.import_ms, parts.attach_ms, parts.enumerate_ms, parts.tty_ms
                ))
            }
        }
    }
}

fn pages(page: &Shown) -> Markup {
    let query = page.query;
    html! {
        nav.pages aria-label="Parts of the history" {
            @if let Some(newer) = page.newer {
                a href=(query.address("/history", None)) { "Newest" }
                a href=(query.address("/history", Some(("after", newer)))) rel="prev" { "Newer" }
            }
            @if let Some(older) = page.older {
                a href=(query.address("/history", Some(("before", older)))) rel="next" { "Older" }
            }
            @if !page.records.is_empty() {
                span.save {
                    "Save as "
                    a href=(query.address("/history.csv", None)) download { "CSV" }
                    " or "
                    a href=(query.address("/history.json", None)) download { "JSON" }
                }
            }
        }
        p.quiet #zone { "Times and days are in UTC." }
        @if page.records.iter().any(|record| record.clock == Clock::WorkedOut) {
            p.quiet { "≈ The Pi’s clock was not set yet; the time was worked out later." }
        }
    }
}

fn devices(known: &[&Known], view: &View) -> Markup {
    html! {
        @if !known.is_empty() {
            section aria-labelledby="known-title" {
                h2 #known-title { "Devices seen" }
                ul.known {
                    @for known in known {
                        (device(known, view))
                    }
                }
            }
        }
    }
}

fn device(known: &Known, view: &View) -> Markup {
    let there = view.devices.iter().find(|d| d.identity == known.identity);
    let query = Query {
        filter: Filter {
            device: Some(known.identity.clone()),
            ..Filter::default()
        },
        ..Query::default()
    };
    html! {
        li {
            div {
                a href=(query.address("/history", None)) { bdi { (name(known)) } }
                p.quiet { (tail(known.identity.as_str())) }
            }
            div {
                @if let Some(there) = there {
                    p { "Plugged in now, at " (there.facts.busid) }
                } @else if let Some(last) = known.last_ms {
                    p { "Last seen " (moment(last)) }
                } @else {
                    p { "Last seen before the clock was set" }
                }
                p.quiet {
                    @if let Some(first) = known.first_ms { "First seen " (moment(first)) ", plugged in " }
                    @else { "Plugged in " }
                    @match known.plugs { 1 => "once", n => { (n) " times" } }
                }
            }
        }
    }
}

/// How an event is meant; its word says the same.
fn colour(kind: Kind) -> &'static str {
    match kind {
        Kind::Attached | Kind::SessionUp => "good",
        Kind::Failed
        | Kind::Refused
        | Kind::SessionLost
        | Kind::SessionFailed
        | Kind::SignInFailed => "bad",
        _ => "plain",
    }
}

fn name(known: &Known) -> String {
    known
        .name
        .as_deref()
        .map(shown)
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| format!("USB device {:04x}:{:04x}", known.vendor, known.product))
}

/// An identity, of a long physical port the part that tells ports apart.
fn tail(identity: &str) -> String {
    let text = match identity.rsplit_once('/') {
        Some((_, port)) if identity.contains(" port ") => {
            let ids = identity.split(' ').next().unwrap_or_default();
            format!("{ids} port …/{port}")
        }
        _ => identity.to_owned(),
    };
    shown(&text)
}
