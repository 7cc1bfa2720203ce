//! The HTML.
//!
//! - [`frame`]: what surrounds every page
//! - [`entry`]: claiming and signing in
//! - [`account`]: password, browsers, tokens for programs
//! - [`session`]: the pairing and the session with the VM
//! - [`device`]: one plugged-in device, as it is listed
//! - [`details`]: the page about one device
//! - [`kept`]: the names, rules and holds that people made
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
pub(super) mod details;
mod device;
pub(super) mod downloads;
pub(super) mod entry;
pub(super) mod frame;
pub(super) mod history;
pub(super) mod join;
mod kept;
pub(super) mod log;
mod session;
pub(super) mod vm;

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
};

use actix_web::{
    HttpRequest, HttpResponse,
    http::{StatusCode, header},
    web,
};
use maud::{Markup, html};

use super::{Context, action::Said, guard::visitor::Visitor, text::shown};
use crate::manager::{
    View,
    view::{DeviceState, DeviceView},
};

/// `GET /`
pub(super) async fn dashboard(
    request: HttpRequest,
    visitor: Visitor,
    context: web::Data<Context>,
) -> HttpResponse {
    let view = context.view.borrow().clone();
    let said = Said::from_query(request.query_string());
    // Said at its device, or at the top where that is not there any more.
    let at_top = said.as_ref().filter(|said| {
        !view
            .devices
            .iter()
            .any(|device| Some(&device.facts.busid) == said.busid.as_ref())
    });
    let page = frame::frame(
        "Devices",
        &visitor,
        &html! {
            p #connection role="status" hidden {}
            (device::outcome_line(at_top.map(|said| said.outcome)))
            p #news .unseen aria-live="polite" {}
            (live_part(&context, &view, said.as_ref()))
        },
    );
    reply(StatusCode::OK, &page)
}

/// The part of the dashboard that the script keeps up to date. It is the same for all readers, but
/// for what came of a click.
pub(super) fn live_part(context: &Context, view: &Arc<View>, said: Option<&Said>) -> Markup {
    let now = context.now_ms();
    let outcome = |device: &DeviceView| {
        said.filter(|said| said.busid.as_ref() == Some(&device.facts.busid))
            .map(|said| said.outcome)
    };
    let (skipped, offered): (Vec<_>, Vec<_>) = view
        .devices
        .iter()
        .partition(|device| matches!(device.state, DeviceState::Skipped { .. }));
    let groups = by_hub(&offered);
    html! {
        div #live data-events={ "/events?" (SEEN) "=" (seen(context, view)) } data-now=(now) {
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
                    button #attach-all type="submit" form="act" formaction="/attach-all"
                        title="Also those that are held back" { "Attach all" }
                }
                div #offered {
                    @for (hub, devices) in &groups {
                        div #{ "hub-" (hub) } {
                            h3 #{ "hub-title-" (hub) } .hub hidden[groups.len() < 2] {
                                bdi { (hub_name(view, hub)) }
                            }
                            ul #{ "on-" (hub) } .devices {
                                @for device in devices {
                                    (device::item(device, now, outcome(device)))
                                }
                            }
                        }
                    }
                    @if groups.is_empty() {
                        p #none .empty {
                            "No serial device is plugged in. Plug a USB serial board or adapter \
                             into the Pi; it shows up here within a second."
                        }
                    }
                }
            }
            details #others .more hidden[skipped.is_empty()] {
                summary #others-title { "Left alone (" (skipped.len()) ")" }
                ul #skipped .rows {
                    @for device in &skipped {
                        (device::row(device, outcome(device)))
                    }
                }
            }
            (kept::section(view))
        }
    }
}

/// Devices by the hub that they are plugged into, in the order of the busids; a bus is named by its
/// number.
fn by_hub<'a>(devices: &[&'a DeviceView]) -> Vec<(String, Vec<&'a DeviceView>)> {
    let mut groups: Vec<(String, Vec<&DeviceView>)> = Vec::new();
    for device in devices {
        let busid = device.facts.busid.as_str();
        let hub = busid
            .rsplit_once('.')
            .or_else(|| busid.split_once('-'))
            .map_or(busid, |(hub, _)| hub);
        match groups.iter_mut().find(|(known, _)| known == hub) {
            Some((_, group)) => group.push(device),
            None => groups.push((hub.to_owned(), vec![device])),
        }
    }
    groups
}

/// What a hub calls itself, and where it is.
fn hub_name(view: &View, hub: &str) -> String {
    match view.devices.iter().find(|d| d.facts.busid.as_str() == hub) {
        Some(device) => format!("{} at {hub}", device::title(device)),
        None if hub.contains('-') => format!("Hub {hub}"),
        None => format!("USB bus {hub}"),
    }
}

/// The parameter by which a page says what it shows already.
pub(super) const SEEN: &str = "seen";

/// Names a picture by what it shows, so that a page is not sent at once what it has just been made of.
pub(super) fn seen(context: &Context, view: &View) -> String {
    let mut hasher = DefaultHasher::new();
    (context.notices)().hash(&mut hasher);
    // A view is plain data; were it ever not, pictures would be sent twice, no more.
    serde_json::to_vec(view).ok().hash(&mut hasher);
    format!("{:016x}", hasher.finish())
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
pub(super) fn chain(error: &dyn std::error::Error) -> String {
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
