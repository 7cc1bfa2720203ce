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
    key::{Key, KeyError},
};

/// The form for pairing.
pub(super) fn section(visitor: &Visitor, target: &Target, paired: bool) -> Markup {
    html! {
        section #pair aria-labelledby="pair-title" {
            h2 #pair-title { @if paired { "Test or change the pairing" } @else { "Pair with a VM" } }
            form #vm-form .fields method="post" action="/vm/pair" {
                (form_token(visitor))
                (fields(target))
                div.buttons {
                    button type="submit" { "Set up pairing" }
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
            (form_token(visitor))
            input type="hidden" name="host" value=(target.host);
            input type="hidden" name="user" value=(target.user);
            input type="hidden" name="confirmed" value=(confirmed.join(" "));
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

/// Host keys to compare with those of the VM.
pub(super) fn keys(keys: &[PublicKey]) -> Markup {
    html! {
        ul.fingerprints {
            @for key in keys {
                li { code { (key.fingerprint()) } " " span.quiet { (shown(key.algorithm())) } }
            }
        }
        p { "On the VM, this shows its own:" }
        (command("for k in /etc/ssh/ssh_host_*_key.pub; do ssh-keygen -lf $k; done"))
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
                    (command(&install(key)))
                    p.quiet { "The key’s fingerprint is " code { (key.fingerprint()) } "." }
                }
                Err(error) => {
                    p.why { "The Pi has no usable key: " (shown(&error.to_string())) }
                }
            }
        }
    }
}

/// What lets the Pi's key in, for a shell on the VM. The line has double quotes and no single ones.
fn install(key: &Key) -> String {
    format!(
        "mkdir -p -m 700 ~/.ssh && echo '{}' >> ~/.ssh/authorized_keys && chmod 600 ~/.ssh/authorized_keys",
        key.authorized_keys_line()
    )
}
