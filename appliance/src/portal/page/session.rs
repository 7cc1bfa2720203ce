//! The pairing and the session with the VM.

use maud::{Markup, html};

use super::{
    super::{packages::is_older, text::shown},
    fact,
};
use crate::{
    manager::{View, view::SessionView},
    vm::{self, FailureKind},
};

/// The appliance's version, which is that of the packages built with it.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The section about the VM.
pub(super) fn section(view: &View) -> Markup {
    let (colour, word) = match &view.session {
        SessionView::NotPaired => ("grey", "Not paired"),
        SessionView::Down { failure: None } => ("yellow", "Connecting"),
        SessionView::Down {
            failure: Some(failure),
        } => ("red", heading(failure.kind)),
        SessionView::Up { .. } => ("green", "Connected"),
    };
    html! {
        section #session .card aria-labelledby="vm-title" {
            div.top {
                h2 #vm-title {
                    "VM"
                    @if let Some(pairing) = &view.pairing {
                        span.vm { " " (shown(&pairing.user)) "@" (shown(&pairing.host)) }
                    }
                }
                span.state.(colour) { (word) }
            }
            @match &view.session {
                SessionView::NotPaired => (not_paired()),
                SessionView::Down { failure: Some(failure) } => (down(failure)),
                SessionView::Down { failure: None } | SessionView::Up { .. } => {},
            }
            @if let SessionView::Up { hello } = &view.session
                && is_older(&hello.version, VERSION)
            {
                (upgrade(&hello.version))
            }
            dl.facts {
                @if let SessionView::Up { hello } = &view.session {
                    (fact("Host name", &html! { (shown(&hello.host_name)) }))
                    (fact("vm-helper", &html! { (shown(&hello.version)) }))
                }
                @if let Some((free, total)) = view.vhci_ports {
                    (fact("vhci ports", &html! { (total.saturating_sub(free)) " used, " (free) " free" }))
                }
            }
            @if let Some((0, _)) = view.vhci_ports {
                p.why { "Every vhci port on the VM is taken: detach a device before another one can be attached." }
            }
        }
    }
}

/// What to do about a helper of an earlier firmware. Both understand each other meanwhile.
fn upgrade(version: &str) -> Markup {
    html! {
        p.notice {
            "vm-helper on the VM is version " (shown(version)) ", this Pi has " (VERSION)
            ". They work together; " a href="/vm/join" { "upgrade the VM’s in one line" } "; the pairing stays."
        }
    }
}

fn not_paired() -> Markup {
    html! {
        p.why { "No VM is paired, so devices have nowhere to go." }
        p.remedy { a href="/vm" { "Pair one" } ", and every serial device is attached to it by itself." }
    }
}

fn down(failure: &vm::Failure) -> Markup {
    html! {
        p.why { (shown(&failure.message)) }
        @if let Some(remedy) = &failure.remedy {
            p.remedy { (shown(remedy)) }
        }
        p.quiet { "Tried again by itself, as often as needed." }
    }
}

/// What it is about, in a few words.
fn heading(kind: FailureKind) -> &'static str {
    match kind {
        FailureKind::Config => "Pairing file is wrong",
        FailureKind::Key => "Pi’s key is missing",
        FailureKind::Name => "Name not found",
        FailureKind::Unreachable => "VM unreachable",
        FailureKind::HostKeyUnknown => "VM not confirmed",
        FailureKind::HostKeyChanged => "Not the same VM",
        FailureKind::Login => "Login refused",
        FailureKind::Helper => "vm-helper missing",
        FailureKind::Sudo => "sudo refused",
        FailureKind::Lost => "Connection lost",
    }
}
