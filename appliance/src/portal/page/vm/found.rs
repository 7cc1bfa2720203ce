//! VMs on the network, each a link that fills the form.

use maud::{Markup, html};

use super::{super::super::text::shown, Target};
use crate::vm::{Discovery, discovery::Found};

/// Machines that are listed; a larger network has its VM named by hand.
const MOST: usize = 24;

/// The section about the network.
pub(super) fn section(discovery: &Discovery, target: &Target) -> Markup {
    let found = discovery.found();
    html! {
        section #found aria-labelledby="found-title" {
            h2 #found-title { "On this network" }
            ul #found-list .choices {
                @for (n, machine) in found.iter().take(MOST).enumerate() {
                    (item(n, machine, target))
                }
                @if found.is_empty() {
                    li #found-none .quiet {
                        "No VM has answered yet. One that does not show up here can be named below all the same. "
                        noscript { a href="/vm" { "Look again" } }
                    }
                }
            }
            @if let Some(name) = discovery.name() {
                p #own-name .quiet { "This Pi is called " code { (shown(&name)) } " here." }
            }
        }
    }
}

fn item(n: usize, machine: &Found, target: &Target) -> Markup {
    let choice = Target {
        host: machine.host.clone(),
        user: machine.user.clone(),
    };
    html! {
        li #{ "found-" (n) } {
            a href=(choice.address()) aria-current=[(choice == *target).then_some("true")] {
                bdi { (shown(&machine.name)) }
            }
            " " span.quiet {
                (machine.host)
                @if let Some(version) = &machine.helper { ", has vm-helper " (shown(version)) }
            }
        }
    }
}
