//! The page about one device: all that is known of it, its name, and the rules for its like.

use maud::{Markup, html};
use protocol::BusId;

use super::{
    super::{action::Outcome, guard::visitor::Visitor, text::shown},
    device, fact,
    frame::{form_token, frame},
    kept,
};
use crate::{
    manager::{
        Scope, View,
        view::{DeviceState, DeviceView},
    },
    usb::Verdict,
};

/// A name that was typed and could not be taken.
#[derive(Debug)]
pub(in super::super) struct Typed {
    /// As it was typed.
    pub(in super::super) name: String,
    /// What is wrong with it, and what would do.
    pub(in super::super) error: String,
}

/// The page about a device that is plugged in.
pub(in super::super) fn page(
    visitor: &Visitor,
    view: &View,
    shown_device: &DeviceView,
    now_ms: u64,
    outcome: Option<Outcome>,
    typed: Option<&Typed>,
) -> Markup {
    let name = device::title(shown_device);
    let (colour, word) = device::badge(&shown_device.state);
    frame(
        &name,
        visitor,
        &html! {
            p.back { a href={ "/#device-" (shown_device.facts.busid) } { "All devices" } }
            section.card aria-labelledby="device-title" {
                div.top {
                    h2 #device-title { bdi { (name) } }
                    span.state.(colour) { (word) }
                }
                (device::outcome_line(outcome))
                (device::explanation(shown_device, now_ms))
                (device::ttys(shown_device))
                dl.facts {
                    @if shown_device.alias.is_some() {
                        (fact("Product", &html! { bdi { (device::product(&shown_device.facts)) } }))
                    }
                    (device::facts(shown_device, now_ms))
                    @if let Some(attachment) = device::attachment(shown_device) {
                        (fact("vhci port on the VM", &html! { (attachment.port) }))
                    }
                    (fact("Physical port", &html! { (shown(&shown_device.facts.port_path)) }))
                }
            }
            (naming(visitor, shown_device, typed))
            (rules(visitor, view, shown_device))
        },
    )
}

/// The page about a device that is not plugged in.
pub(in super::super) fn nothing(
    visitor: &Visitor,
    busid: &BusId,
    outcome: Option<Outcome>,
) -> Markup {
    frame(
        "Not plugged in",
        visitor,
        &html! {
            h2 { "Nothing is plugged in at " (busid) }
            (device::outcome_line(outcome))
            p { a href="/" { "All devices" } }
        },
    )
}

fn naming(visitor: &Visitor, device: &DeviceView, typed: Option<&Typed>) -> Markup {
    let busid = &device.facts.busid;
    let current = device.alias.as_ref().map(ToString::to_string);
    let value = typed
        .map(|typed| typed.name.clone())
        .or(current)
        .unwrap_or_default();
    html! {
        section.card aria-labelledby="name-title" {
            h2 #name-title { "Name" }
            p.why {
                "On the VM it becomes the link " code { "/dev/usb-pi/NAME" }
                ", which stays the same whatever number the tty gets; a second tty of the same device is "
                code { "NAME-1" } "."
            }
            p.quiet {
                @match &device.scope {
                    Scope::Serial(serial) => {
                        "Kept by its serial number " bdi { (shown(serial)) }
                        ": the name follows the board from port to port."
                    }
                    Scope::Port(_) | Scope::Product(..) => {
                        "It has no serial number of its own, so the name belongs to this port: "
                        "whatever is plugged in here has it."
                    }
                }
            }
            form.fields method="post" action={ "/devices/" (busid) "/rename" } {
                (form_token(visitor))
                input type="hidden" name="devid" value=(device.facts.devid);
                label {
                    "Name"
                    input #name name="name" value=(value) maxlength="64" autocomplete="off"
                        autocapitalize="none" spellcheck="false"
                        aria-invalid=[typed.map(|_| "true")]
                        aria-describedby=[typed.map(|_| "name-error")];
                }
                button type="submit" { "Save" }
            }
            @if let Some(typed) = typed {
                p #name-error .outcome.bad role="alert" { (shown(&typed.error)) }
            }
            p.quiet { "Letters, digits, “-”, “_” and “.”. Leave it empty to take the name away." }
        }
    }
}

fn rules(visitor: &Visitor, view: &View, device: &DeviceView) -> Markup {
    let facts = &device.facts;
    let serial = Scope::serial(facts);
    let attached = matches!(device.state, DeviceState::Attached { .. });
    html! {
        section.card aria-labelledby="rule-title" {
            h2 #rule-title { "Rule" }
            @if let Verdict::Refuse(why) = &facts.verdict {
                p.why { "It is never exported: " (shown(why)) ". No rule changes that." }
            } @else {
                @if let Some(rule) = &device.rule {
                    p.why { "In force: " (kept::ruling(rule.ruling)) ", for " (kept::scope(view, &rule.scope)) "." }
                } @else {
                    p.why { "Without a rule every serial device is exported, and everything else is left alone." }
                }
                form method="post" action={ "/devices/" (facts.busid) "/rule" } {
                    (form_token(visitor))
                    input type="hidden" name="devid" value=(facts.devid);
                    fieldset {
                        legend { "What is to be done" }
                        (radio("ruling", "ignore", "Leave it alone", facts.verdict.exports()))
                        (radio("ruling", "export", "Always export it", !facts.verdict.exports()))
                    }
                    fieldset {
                        legend { "For which devices" }
                        @if serial.is_some() {
                            (radio("about", "serial", "This one, by its serial number", true))
                        }
                        (radio("about", "port", "Whatever is in this port", serial.is_none()))
                        (radio("about", "product", &format!("All {:04x}:{:04x}", facts.vendor, facts.product), false))
                    }
                    @if attached {
                        p.quiet { "It is attached: a rule to leave it alone detaches it at once, and an upload fails." }
                    }
                    button type="submit" { "Make the rule" }
                }
                @if let Some(rule) = &device.rule {
                    (kept::forget_button("/rules/forget", &rule.scope, "Forget the rule in force"))
                }
            }
        }
    }
}

fn radio(name: &str, value: &str, label: &str, chosen: bool) -> Markup {
    html! {
        label.choice {
            input type="radio" name=(name) value=(value) checked[chosen] required;
            (label)
        }
    }
}
