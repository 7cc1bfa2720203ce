//! Host and user, and what can be done with them.

use maud::{Markup, html};

use super::{
    super::{
        super::{guard::visitor::Visitor, text::shown},
        command,
        frame::form_token,
    },
    Target,
};
use crate::vm::{
    PublicKey,
    diagnosis::SHOW_FINGERPRINTS,
    key::{Key, KeyError},
};

/// The form for pairing.
pub(super) fn section(visitor: &Visitor, target: &Target) -> Markup {
    html! {
        section #pair aria-labelledby="pair-title" {
            h2 #pair-title { "Pairing by name or address" }
            form #vm-form .fields method="post" action="/vm/test" {
                (form_token(visitor))
                (fields(target))
                div.buttons {
                    button type="submit" { "Test connection" }
                    button type="submit" formaction="/vm/pair" { "Set up pairing" }
                }
            }
        }
    }
}

fn fields(target: &Target) -> Markup {
    html! {
        label {
            "Host name or address"
            input name="host" value=(target.host) required maxlength="253" autocomplete="off"
                autocapitalize="none" spellcheck="false" placeholder="192.168.1.20";
        }
        label {
            "User"
            input name="user" value=(target.user) required maxlength="32" autocomplete="off"
                autocapitalize="none" spellcheck="false";
        }
    }
}

/// The same request again, with what the person is asked to let pass.
pub(super) fn again(
    visitor: &Visitor,
    target: &Target,
    confirmed: &[String],
    replaces: Option<&str>,
    label: &str,
) -> Markup {
    html! {
        form method="post" action="/vm/pair" {
            (hidden(visitor, target, confirmed))
            @if let Some(replaces) = replaces {
                input type="hidden" name="replaces" value=(replaces);
            }
            div.buttons {
                button type="submit" { (label) }
                a href="/vm" { "Leave it" }
            }
        }
    }
}

/// Whom a form is about, and the host keys that are let pass by sending it.
pub(super) fn hidden(visitor: &Visitor, target: &Target, confirmed: &[String]) -> Markup {
    html! {
        (form_token(visitor))
        input type="hidden" name="host" value=(target.host);
        input type="hidden" name="user" value=(target.user);
        input type="hidden" name="confirmed" value=(confirmed.join(" "));
    }
}

/// Host keys to compare with those of the VM.
pub(super) fn keys(keys: &[PublicKey]) -> Markup {
    html! {
        ul.fingerprints {
            @for key in keys {
                li { code { (key.fingerprint()) } " " span.quiet { (shown(key.algorithm())) } }
            }
        }
        p { "On the VM, this shows its own:" }
        (command(SHOW_FINGERPRINTS))
    }
}

/// How the Pi's key reaches the VM.
pub(super) fn key(user: &str, key: &Result<Key, KeyError>) -> Markup {
    html! {
        section #key aria-labelledby="key-title" {
            h2 #key-title { "The Pi’s key" }
            @match key {
                Ok(key) => {
                    p {
                        "The Pi logs in with a key of its own that may attach and detach devices and nothing else. \
                         To let it in, run this on the VM as " b { (shown(user)) } ":"
                    }
                    (command(&key.install_command()))
                    p.quiet { "The key’s fingerprint is " code { (key.fingerprint()) } "." }
                }
                Err(error) => {
                    p.why { "The Pi has no usable key: " (shown(&error.to_string())) }
                }
            }
        }
    }
}
