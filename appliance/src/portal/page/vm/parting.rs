//! The step before a pairing ends, and what remains after it.

use actix_web::{HttpResponse, http::StatusCode};
use maud::{Markup, html};

use super::super::{
    super::{Context, guard::visitor::Visitor, text::shown},
    command, frame, reply,
};
use crate::{
    manager::view::{DeviceState, SessionView},
    vm::key::Key,
};

/// Asks whether to end the pairing, and says what that means.
pub(in super::super::super) async fn parting(context: &Context, visitor: &Visitor) -> HttpResponse {
    let view = context.view.borrow().clone();
    let attached: Vec<&str> = view
        .devices
        .iter()
        .filter_map(|device| match &device.state {
            DeviceState::Attached { attachment, .. } => {
                let node = attachment.as_ref().and_then(|a| a.ttys.first());
                Some(node.map_or(device.facts.busid.as_str(), |tty| tty.node.as_str()))
            }
            _ => None,
        })
        .collect();
    let body = html! {
        section.card aria-labelledby="part-title" {
            @if let Some(pairing) = &view.pairing {
                h2 #part-title { "Disconnect from " (shown(&pairing.user)) "@" (shown(&pairing.host)) "?" }
                @if attached.is_empty() {
                    p.why { "No device is attached there now." }
                } @else {
                    p.why {
                        "These are detached from the VM at once, as if they were unplugged there; a program that \
                         uses one loses it: "
                        @for (n, node) in attached.iter().enumerate() {
                            @if n > 0 { ", " }
                            code { (shown(node)) }
                        }
                        "."
                    }
                }
                @if !matches!(view.session, SessionView::Up { .. }) {
                    p.why { "The VM does not answer now. It is told nothing, and notices by itself that its devices are gone." }
                }
                p.why { "The Pi forgets the VM and its host key. Names, rules and holds of devices stay." }
                form method="post" action="/vm/disconnect" {
                    (frame::form_token(visitor))
                    div.buttons {
                        button.danger type="submit" { "Disconnect" }
                        a href="/vm" { "Stay paired" }
                    }
                }
            } @else {
                h2 #part-title { "No VM is paired" }
                p.why { "There is nothing to disconnect. " a href="/vm" { "Back" } }
            }
        }
    };
    reply(StatusCode::OK, &frame::frame("Disconnect", visitor, &body))
}

/// What remains on the VM after that, and how it goes.
pub(in super::super::super) fn remains(key: Option<&Key>) -> Markup {
    html! {
        @if let Some(blob) = key.and_then(|key| key.public_key().split(' ').nth(1).map(str::to_owned)) {
            p { "On the VM the Pi’s key is still let in. This takes it out, run as the user that the Pi logged in as:" }
            (command(&format!("sed -i '\\|{blob}|d' ~/.ssh/authorized_keys")))
            p { "And where no Pi is to be paired again, this removes vm-helper:" }
            (command("sudo apt purge usbip-vm-helper"))
        }
    }
}
