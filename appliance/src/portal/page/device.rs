//! One plugged-in device, as it is listed.

use maud::{Markup, html};
use protocol::{BusId, line::Attachment};

use super::{super::action::Outcome, super::text::shown, fact};
use crate::{
    manager::view::{DeviceState, DeviceView},
    usb::{UsbDevice, Verdict},
};

/// A device in its list, with what came of the click on one of its buttons. The script announces
/// `data-news` when it changes.
pub(super) fn item(device: &DeviceView, now_ms: u64, outcome: Option<Outcome>) -> Markup {
    let (colour, word) = badge(&device.state);
    let name = title(device);
    html! {
        li #{ "device-" (device.facts.busid) } .card data-news={ (name) ": " (word) } {
            div.top {
                h4 {
                    bdi { (name) }
                    @if device.alias.is_some() {
                        " " span.product { bdi { (product(&device.facts)) } }
                    }
                }
                span.state.(colour) { (word) }
            }
            (outcome_line(outcome))
            div.now {
                (explanation(device, now_ms))
                (ttys(device))
            }
            dl.facts { (facts(device, now_ms)) }
            (buttons(device))
        }
    }
}

/// A device that is left alone: one line, and why.
pub(super) fn row(device: &DeviceView, outcome: Option<Outcome>) -> Markup {
    let name = title(device);
    let busid = &device.facts.busid;
    let why = match &device.state {
        DeviceState::Skipped { why } => shown(why),
        _ => String::new(),
    };
    html! {
        li #{ "device-" (busid) } data-news={ (name) ": Left alone" } {
            span.what {
                a href={ "/devices/" (busid) } { bdi { (name) } }
                " " span.quiet { (ids(&device.facts)) ", port " (busid) }
            }
            span.why { (why) }
            span.state.grey { "Left alone" }
            (outcome_line(outcome))
        }
    }
}

/// What came of a click, where it was clicked.
pub(super) fn outcome_line(outcome: Option<Outcome>) -> Markup {
    html! {
        @if let Some(outcome) = outcome {
            p.outcome.good[outcome.is_good()].bad[!outcome.is_good()] role="status" {
                (outcome.sentence())
            }
        }
    }
}

/// Colour and word; either alone says how the device stands.
pub(super) fn badge(state: &DeviceState) -> (&'static str, &'static str) {
    match state {
        DeviceState::Skipped { .. } => ("grey", "Left alone"),
        DeviceState::Bound { held: true } => ("yellow", "Held back"),
        DeviceState::Bound { held: false } => ("yellow", "Waiting for the VM"),
        DeviceState::Attaching => ("yellow", "Attaching"),
        DeviceState::Cycling => ("yellow", "Switched off and on"),
        DeviceState::Missing => ("red", "Did not come back"),
        DeviceState::Attached { silent: true, .. } => ("yellow", "VM not answering"),
        DeviceState::Attached { silent: false, .. } => ("green", "Attached"),
        DeviceState::Failed { .. } => ("red", "Failed"),
    }
}

/// What to make of it, where that is not plain.
pub(super) fn explanation(device: &DeviceView, now_ms: u64) -> Markup {
    html! {
        @match &device.state {
            DeviceState::Skipped { why } => { p.why { (shown(why)) } }
            DeviceState::Bound { held: true } => {
                p.why { "Somebody detached it. It stays on the Pi until it is attached again." }
            }
            DeviceState::Bound { held: false } => {
                p.why { "Ready on the Pi; attached as soon as the VM is connected." }
            }
            DeviceState::Attached { silent: true, .. } => {
                p.why { "Attached, but the VM does not answer now. It is kept for a while, so that a short interruption breaks nothing." }
            }
            DeviceState::Cycling => {
                p.why { "Its port is switched off and on; it comes back in a moment." }
            }
            DeviceState::Missing => {
                p.why { "Its port was switched off and on, and it did not come back." }
                p.remedy { "Pull its plug and plug it in again." }
            }
            DeviceState::Failed { message, remedy, next_try_ms } => {
                p.why { (shown(message)) }
                @if let Some(remedy) = remedy {
                    p.remedy { (shown(remedy)) }
                }
                (next_try(*next_try_ms, now_ms))
            }
            DeviceState::Attaching => { p.why { "On its way to the VM." } }
            DeviceState::Attached { silent: false, .. } => {}
        }
        @if let Some(why) = &device.power_failure {
            p.why { "Its port was not switched off and on: " (shown(why)) "." }
        }
    }
}

/// Counted down by the script, in the same words.
fn next_try(at_ms: u64, now_ms: u64) -> Markup {
    let seconds = at_ms.saturating_sub(now_ms).div_ceil(1000);
    html! {
        p.quiet data-due=(at_ms) {
            @if seconds == 0 { "Tried again now." } @else { "Tried again in " (seconds) " s." }
        }
    }
}

/// What people came for: the names on the VM. The one that stays the same comes first.
pub(super) fn ttys(device: &DeviceView) -> Markup {
    let Some(attachment) = attachment(device) else {
        return Markup::default();
    };
    html! {
        @for (number, tty) in attachment.ttys.iter().enumerate() {
            p.tty {
                @if let Some(link) = device.links.get(number) {
                    code { (shown(link)) }
                }
                code.second[device.links.len() > number] { (shown(&tty.node)) }
                @if let Some(by_id) = &tty.by_id {
                    code.by-id { (shown(by_id)) }
                }
            }
        }
        @if attachment.ttys.is_empty() {
            p.why { "No tty on the VM yet." }
        }
    }
}

pub(super) fn attachment(device: &DeviceView) -> Option<&Attachment> {
    match &device.state {
        DeviceState::Attached { attachment, .. } => attachment.as_ref(),
        _ => None,
    }
}

pub(super) fn facts(device: &DeviceView, now_ms: u64) -> Markup {
    let usb = &device.facts;
    let driver = attachment(device).and_then(drivers);
    html! {
        @if let Some(maker) = &usb.manufacturer {
            (fact("Manufacturer", &html! { bdi { (shown(maker)) } }))
        }
        @if let Some(serial) = &usb.serial {
            (fact("Serial number", &html! { bdi { (shown(serial)) } }))
        }
        (fact("USB id", &html! { (ids(usb)) }))
        (fact("Busid", &html! { (usb.busid) }))
        (fact("Port on the Pi", &html! { (socket(&usb.busid)) }))
        @match (driver, &usb.verdict) {
            (Some(driver), _) => (fact("Driver on the VM", &html! { (shown(&driver)) })),
            (None, Verdict::Export(kind)) => (fact("Kind", &html! { (shown(kind)) })),
            (None, Verdict::Skip(_) | Verdict::Refuse(_)) => {},
        }
        // Always there, so that nothing moves when the device comes and goes.
        (fact("On the VM", &html! {
            @if attachment(device).is_some() {
                (since(device.attached_at_ms, now_ms))
            } @else {
                "no"
            }
        }))
        (fact("Plug to tty", &html! {
            @match device.plug_to_tty_ms {
                Some(ms) => { (ms) " ms" }
                None => { "not measured" }
            }
        }))
    }
}

/// How long ago; a Pi may not know the time of day. The script keeps it up to date, in the same words.
fn since(at_ms: Option<u64>, now_ms: u64) -> Markup {
    html! {
        @match at_ms {
            Some(at) => span data-at=(at) { (ago(now_ms.saturating_sub(at) / 1000)) },
            None => "since before the start",
        }
    }
}

fn ago(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match () {
        () if minutes == 0 => "just now".to_owned(),
        () if hours == 0 => format!("for {minutes} min"),
        () if days == 0 => format!("for {hours} h {} min", minutes % 60),
        () => format!("for {days} d {} h", hours % 24),
    }
}

/// The socket, so that a person finds it.
fn socket(busid: &BusId) -> String {
    let name = busid.as_str();
    match (name.rsplit_once('.'), name.split_once('-')) {
        (Some((hub, port)), _) => format!("port {port} of hub {hub}"),
        (None, Some((bus, port))) => format!("port {port} of bus {bus}"),
        // Every busid has a "-".
        (None, None) => String::new(),
    }
}

/// The drivers of an attached device's ttys, each once.
fn drivers(attachment: &Attachment) -> Option<String> {
    let mut drivers: Vec<&str> = attachment
        .ttys
        .iter()
        .filter_map(|tty| tty.driver.as_deref())
        .collect();
    drivers.dedup();
    (!drivers.is_empty()).then(|| drivers.join(", "))
}

/// What can be done with it here. What would break an upload asks first.
fn buttons(device: &DeviceView) -> Markup {
    let busid = &device.facts.busid;
    let attached = matches!(device.state, DeviceState::Attached { .. });
    let absent = matches!(device.state, DeviceState::Cycling | DeviceState::Missing);
    html! {
        div.actions {
            @if attached {
                (asks_first(device, "detach", "Detach", "Detach now"))
                (asks_first(device, "power-cycle", "Power-cycle", "Switch off and on now"))
            } @else if !absent {
                @if matches!(device.state, DeviceState::Bound { held: true } | DeviceState::Failed { .. }) {
                    (button(device, "attach", "Attach"))
                }
                @if !matches!(device.state, DeviceState::Bound { held: true }) {
                    (button(device, "detach", "Hold back"))
                }
                (button(device, "power-cycle", "Power-cycle"))
            }
            a #{ "more-" (busid) } href={ "/devices/" (busid) }
                aria-label={ "More about " (title(device)) ": name and rules" } { "More" }
        }
    }
}

/// A button that belongs to the page's form; the script shows its outcome here.
fn button(device: &DeviceView, act: &str, label: &str) -> Markup {
    let (busid, devid) = (&device.facts.busid, device.facts.devid);
    html! {
        button #{ (act) "-" (busid) } .plain type="submit" form="act" name="devid" value=(devid)
            formaction={ "/devices/" (busid) "/" (act) }
            aria-label={ (label) " " (title(device)) } { (label) }
    }
}

/// A button behind a question.
fn asks_first(device: &DeviceView, act: &str, label: &str, now: &str) -> Markup {
    let busid = &device.facts.busid;
    html! {
        details.ask #{ "ask-" (act) "-" (busid) } {
            summary #{ "summary-" (act) "-" (busid) } { (label) }
            p { "Whatever uses it on the VM is cut off, an upload fails." }
            (button(device, act, now))
        }
    }
}

/// The name that a person gave it, or what it calls itself.
pub(super) fn title(device: &DeviceView) -> String {
    match &device.alias {
        Some(alias) => alias.to_string(),
        None => product(&device.facts),
    }
}

/// What it calls itself; its ids where it has no name.
pub(super) fn product(usb: &UsbDevice) -> String {
    usb.product_name
        .as_deref()
        .map(shown)
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| format!("USB device {}", ids(usb)))
}

fn ids(usb: &UsbDevice) -> String {
    format!("{:04x}:{:04x}", usb.vendor, usb.product)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_told_as_people_would() {
        for (seconds, text) in [
            (0, "just now"),
            (59, "just now"),
            (60, "for 1 min"),
            (3599, "for 59 min"),
            (3600, "for 1 h 0 min"),
            (90_061, "for 1 d 1 h"),
        ] {
            assert_eq!(ago(seconds), text);
        }
    }

    #[test]
    fn sockets_are_told_by_their_hub() {
        let told = |busid: &str| socket(&busid.parse().unwrap());
        assert_eq!(told("1-1.4"), "port 4 of hub 1-1");
        assert_eq!(told("2-3"), "port 3 of bus 2");
    }
}
