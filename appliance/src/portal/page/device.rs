//! One plugged-in device.

use maud::{Markup, html};
use protocol::line::Attachment;

use super::{super::text::shown, fact};
use crate::{
    manager::view::{DeviceState, DeviceView},
    usb::{UsbDevice, Verdict},
};

/// A device in its list. The script announces `data-news` when it changes.
pub(super) fn item(device: &DeviceView, now_ms: u64) -> Markup {
    let (colour, word) = badge(&device.state);
    let name = name(&device.facts);
    let attachment = match &device.state {
        DeviceState::Attached { attachment, .. } => attachment.as_ref(),
        _ => None,
    };
    html! {
        li #{ "device-" (device.facts.busid) } .card data-news={ (name) ": " (word) } {
            div.top {
                h3 { bdi { (name) } }
                span.state.(colour) { (word) }
            }
            (explanation(&device.state, now_ms))
            @if let Some(attachment) = attachment {
                (ttys(attachment))
            }
            dl.facts { (facts(device, attachment)) }
        }
    }
}

/// Colour and word; either alone says how the device stands.
fn badge(state: &DeviceState) -> (&'static str, &'static str) {
    match state {
        DeviceState::Skipped { .. } => ("grey", "Left alone"),
        DeviceState::Bound { held: true } => ("yellow", "Held back"),
        DeviceState::Bound { held: false } => ("yellow", "Waiting for the VM"),
        DeviceState::Attaching => ("yellow", "Attaching"),
        DeviceState::Attached { silent: true, .. } => ("yellow", "VM not answering"),
        DeviceState::Attached { silent: false, .. } => ("green", "Attached"),
        DeviceState::Failed { .. } => ("red", "Failed"),
    }
}

/// What to make of it, where that is not plain.
fn explanation(state: &DeviceState, now_ms: u64) -> Markup {
    html! {
        @match state {
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
            DeviceState::Failed { message, remedy, next_try_ms } => {
                p.why { (shown(message)) }
                @if let Some(remedy) = remedy {
                    p.remedy { (shown(remedy)) }
                }
                (next_try(next_try_ms.saturating_sub(now_ms)))
            }
            DeviceState::Attaching | DeviceState::Attached { silent: false, .. } => {}
        }
    }
}

/// Counted down by the script.
fn next_try(in_ms: u64) -> Markup {
    let seconds = in_ms.div_ceil(1000);
    html! {
        p.quiet data-in=(seconds) {
            @if seconds == 0 { "Tried again now." } @else { "Tried again in " (seconds) " s." }
        }
    }
}

/// What people came for: the names on the VM.
fn ttys(attachment: &Attachment) -> Markup {
    html! {
        @for tty in &attachment.ttys {
            p.tty {
                code { (shown(&tty.node)) }
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

fn facts(device: &DeviceView, attachment: Option<&Attachment>) -> Markup {
    let usb = &device.facts;
    let driver = attachment.and_then(drivers);
    html! {
        @if let Some(maker) = &usb.manufacturer {
            (fact("Manufacturer", &html! { bdi { (shown(maker)) } }))
        }
        @if let Some(serial) = &usb.serial {
            (fact("Serial number", &html! { bdi { (shown(serial)) } }))
        }
        (fact("USB id", &html! { (format!("{:04x}:{:04x}", usb.vendor, usb.product)) }))
        (fact("Port on the Pi", &html! { (usb.busid) }))
        @match (driver, &usb.verdict) {
            (Some(driver), _) => (fact("Driver on the VM", &html! { (shown(&driver)) })),
            (None, Verdict::Export(kind)) => (fact("Kind", &html! { (shown(kind)) })),
            (None, Verdict::Skip(_)) => {},
        }
        @if let Some(ms) = device.plug_to_tty_ms {
            (fact("Plug to tty", &html! { (ms) " ms" }))
        }
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

/// What it calls itself; its ids where it has no name.
fn name(usb: &UsbDevice) -> String {
    usb.product_name
        .as_deref()
        .map(shown)
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| format!("USB device {:04x}:{:04x}", usb.vendor, usb.product))
}
