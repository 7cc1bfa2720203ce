//! The names, rules and holds that people made, also of devices that are not plugged in.

use maud::{Markup, html};
use protocol::BusId;

use super::super::text::shown;
use crate::manager::{
    Ruling, Scope, View,
    view::{AliasView, HoldView, RuleView},
};

/// The list, where there is something in it.
pub(super) fn section(view: &View) -> Markup {
    let count = view.aliases.len() + view.rules.len() + view.holds.len();
    html! {
        details #kept .more hidden[count == 0] {
            summary #kept-title { "Names, rules and holds (" (count) ")" }
            ul #kept-list .rows {
                @for one in &view.aliases { (alias(view, one)) }
                @for one in &view.rules { (rule(view, one)) }
                @for one in &view.holds { (hold(view, one)) }
            }
        }
    }
}

fn alias(view: &View, one: &AliasView) -> Markup {
    html! {
        li #{ "name-" (one.alias) } {
            span.what { (linked(one.busid.as_ref(), one.alias.as_str())) }
            span.why {
                "Name of " (scope(view, &one.scope))
                @if one.busid.is_none() { ", not plugged in" }
            }
            (forget_button("/names/forget", &one.scope, &format!("Forget {}", one.alias)))
        }
    }
}

fn rule(view: &View, one: &RuleView) -> Markup {
    html! {
        li #{ "rule-" (in_an_id(&one.scope)) } {
            span.what { (ruling(one.ruling)) }
            span.why { "Rule for " (scope(view, &one.scope)) }
            (forget_button("/rules/forget", &one.scope, "Forget"))
        }
    }
}

fn hold(view: &View, one: &HoldView) -> Markup {
    html! {
        li #{ "hold-" (in_an_id(&one.scope)) } {
            span.what { (linked(one.busid.as_ref(), "held back")) }
            span.why {
                "Detached by somebody: " (scope(view, &one.scope))
                @if one.busid.is_none() { ", not plugged in" }
            }
            (forget_button("/holds/forget", &one.scope, "Let go"))
        }
    }
}

/// The words, leading to the device's page where it is plugged in.
fn linked(busid: Option<&BusId>, words: &str) -> Markup {
    html! {
        @if let Some(busid) = busid {
            a href={ "/devices/" (busid) } { (words) }
        } @else {
            (words)
        }
    }
}

fn in_an_id(scope: &Scope) -> String {
    scope.to_string().replace(char::is_whitespace, "-")
}

pub(super) fn ruling(ruling: Ruling) -> &'static str {
    match ruling {
        Ruling::Ignore => "leave alone",
        Ruling::Export => "always export",
    }
}

/// Which devices, for people: a port is named by its busid where something is in it.
pub(super) fn scope(view: &View, scope: &Scope) -> String {
    match scope {
        Scope::Serial(serial) => format!("serial number {}", shown(serial)),
        Scope::Product(vendor, product) => format!("all {vendor:04x}:{product:04x}"),
        Scope::Port(path) => {
            let here = view.devices.iter().find(|d| d.facts.port_path == *path);
            match here {
                Some(device) => format!("whatever is in port {}", device.facts.busid),
                None => format!("whatever is in the port {}", shown(path)),
            }
        }
    }
}

pub(super) fn forget_button(address: &str, scope: &Scope, label: &str) -> Markup {
    html! {
        button.plain type="submit" form="act" formaction=(address) name="scope" value=(scope) { (label) }
    }
}
