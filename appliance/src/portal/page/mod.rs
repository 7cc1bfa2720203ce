//! The HTML.
//!
//! - [`frame`]: what surrounds every page
//! - [`entry`]: claiming and signing in
//! - [`account`]: password, browsers, tokens for programs
//! - [`session`]: the pairing and the session with the VM
//! - [`device`]: one plugged-in device
//! - [`vm`]: the page about the VM
//! - [`join`]: pairing from the VM in one line
//! - [`downloads`]: the VM's packages
//! - [`containers`]: what containers on the VM need
//! - [`history`]: what happened
//! - [`mod@log`]: what the kernel and the appliance said lately
//!
//! Everything in the live part has an id of its own down to the level at which the script replaces
//! it, so that what did not change stays in place, with focus and selection.

pub(super) mod account;
mod containers;
mod device;
pub(super) mod downloads;
pub(super) mod entry;
pub(super) mod frame;
pub(super) mod history;
pub(super) mod join;
pub(super) mod log;
mod session;
pub(super) mod vm;

use std::sync::Arc;

use actix_web::{
    HttpRequest, HttpResponse,
    http::{StatusCode, header},
    web,
};
use maud::{Markup, html};

use super::{Context, action::Outcome, guard::visitor::Visitor, text::shown};
use crate::manager::{View, view::DeviceState};

/// `GET /`
pub(super) async fn dashboard(
    request: HttpRequest,
    visitor: Visitor,
    context: web::Data<Context>,
) -> HttpResponse {
    let view = context.view.borrow().clone();
    let outcome = Outcome::from_query(request.query_string());
    let page = frame::frame(
        "Devices",
        &visitor,
        &html! {
            p #connection role="status" hidden {}
            @if let Some(outcome) = outcome {
                p.outcome.good[outcome.is_good()].bad[!outcome.is_good()] role="status" {
                    (outcome.sentence())
                }
            }
            p #news .unseen aria-live="polite" {}
            (live_part(&context, &view))
        },
    );
    HttpResponse::Ok()
        .content_type("text/html; charset=utf-8")
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .body(page.into_string())
}

/// The part of the dashboard that the script keeps up to date.
pub(super) fn live_part(context: &Context, view: &Arc<View>) -> Markup {
    let now = context.now_ms();
    let (skipped, offered): (Vec<_>, Vec<_>) = view
        .devices
        .iter()
        .partition(|device| matches!(device.state, DeviceState::Skipped { .. }));
    html! {
        div #live data-events="/events" {
            div #notices {
                @for notice in (context.notices)() {
                    p.notice { (shown(&notice)) }
                }
            }
            (session::section(view))
            section #devices aria-labelledby="devices-title" {
                // The same in every picture, so that the button never changes under a finger.
                div #devices-top .top {
                    h2 #devices-title { "Serial devices" }
                    button type="submit" form="act" formaction="/attach-all"
                        title="Also those that are held back" { "Attach all" }
                }
                ul #offered .devices {
                    @for device in &offered {
                        (device::item(device, now))
                    }
                    @if offered.is_empty() {
                        li #none .empty {
                            "No serial device is plugged in. Plug a USB serial board or adapter \
                             into the Pi; it shows up here within a second."
                        }
                    }
                }
            }
            section #others aria-labelledby="others-title" {
                @if !skipped.is_empty() {
                    h2 #others-title { "Left alone" }
                    ul #skipped .devices {
                        @for device in &skipped {
                            (device::item(device, now))
                        }
                    }
                }
            }
        }
    }
}

/// A row in a list of facts.
fn fact(name: &str, value: &Markup) -> Markup {
    html! {
        div { dt { (name) } dd { (value) } }
    }
}

/// A command to be copied; the script gives the button its work.
fn command(text: &str) -> Markup {
    html! {
        div.command {
            pre { code { (text) } }
            button.copy type="button" { "Copy" }
        }
    }
}

/// An error and what caused it, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// A page as an answer that no cache keeps.
pub(super) fn reply(status: StatusCode, page: &Markup) -> HttpResponse {
    HttpResponse::build(status)
        .content_type("text/html; charset=utf-8")
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .body(page.0.clone())
}

/// A few words for programs and those who type addresses.
pub(super) fn plain(status: StatusCode, words: String) -> HttpResponse {
    HttpResponse::build(status)
        .content_type("text/plain; charset=utf-8")
        .body(words)
}

/// The answer where there is nothing.
pub(super) fn not_found(visitor: Option<&Visitor>) -> HttpResponse {
    let content = html! {
        h2 { "There is nothing at this address" }
        p { a href="/" { "Back to the devices" } }
    };
    let page = match visitor {
        Some(visitor) => frame::frame("Not found", visitor, &content),
        None => frame::bare("Not found", &content),
    };
    HttpResponse::NotFound()
        .content_type("text/html; charset=utf-8")
        .body(page.into_string())
}
