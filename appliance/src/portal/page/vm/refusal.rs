//! Why a pairing was not made, and the way on.

use actix_web::http::StatusCode;
use maud::{Markup, html};

use super::{
    super::{
        super::{guard::visitor::Visitor, text::shown},
        chain,
    },
    Target, form,
};
use crate::vm::{Pairing, PublicKey, bring::BringError, pairing::PairError};

/// The status of the answer, and what to say.
pub(in super::super::super) fn refusal(
    visitor: &Visitor,
    target: &Target,
    confirmed: &[String],
    error: &PairError,
) -> (StatusCode, Markup) {
    let text = match error {
        PairError::Conf(error) => {
            html! { p { (shown(&chain(error))) } p { (shown(&error.remedy())) } }
        }
        PairError::HostKey(error) => html! {
            p { (shown(&chain(error))) }
            p { "Check that the VM runs, that its SSH server does, and that host name or address are right." }
        },
        PairError::Unconfirmed { shown } => html! {
            p { b { "Is this the VM?" } " " (target.host) " shows these host keys. Compare one of them with the VM’s own." }
            (form::keys(shown))
            (form::again(visitor, target, &fingerprints(shown), None, "It is: set up pairing"))
        },
        PairError::Changed { confirmed, shown } => html! {
            p { b { "The host key changed in between." } " You confirmed "
                code { (confirmed.join(" ")) } "; now " (target.host) " shows another one. \
                Somebody else may be answering at this address. Nothing was changed." }
            (form::keys(shown))
            (form::again(visitor, target, &fingerprints(shown), None, "This one is right: set up pairing"))
        },
        PairError::Replaces { old, pinned } => html! {
            p { b { "This replaces the pairing that there is." } }
            dl.facts {
                div { dt { "Until now" } dd { (name(old)) @for pin in pinned { br; code { (shown(pin)) } } } }
                div { dt { "From now on" } dd { (shown(&target.user)) "@" (shown(&target.host)) @for pin in confirmed { br; code { (shown(pin)) } } } }
            }
            @if old.host == target.host {
                p { "If the VM was not reinstalled, find out who answers at its address before you go on." }
            } @else {
                p { "Devices that are attached there are detached and attached to the new VM." }
            }
            (form::again(visitor, target, confirmed, Some(&name(old)), "Replace it"))
        },
        PairError::Busy => html! { p { (error.to_string()) ". Try again in a moment." } },
        PairError::Task(_) => html! { p { (shown(&chain(error))) } },
    };
    (status(error), text)
}

/// The same as a status.
pub(in super::super::super) fn status(error: &PairError) -> StatusCode {
    match error {
        PairError::Conf(_) => StatusCode::UNPROCESSABLE_ENTITY,
        PairError::HostKey(_) => StatusCode::BAD_GATEWAY,
        PairError::Unconfirmed { .. } | PairError::Changed { .. } | PairError::Replaces { .. } => {
            StatusCode::CONFLICT
        }
        PairError::Busy => StatusCode::SERVICE_UNAVAILABLE,
        PairError::Task(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The same for a key that was not brought to the VM.
pub(in super::super::super) fn not_brought(
    visitor: &Visitor,
    target: &Target,
    confirmed: &[String],
    error: &BringError,
) -> (StatusCode, Markup) {
    match error {
        BringError::Pair(PairError::Unconfirmed { shown } | PairError::Changed { shown, .. }) => (
            StatusCode::CONFLICT,
            html! {
                p { b { "The password was not sent." } " The VM does not show a host key that somebody confirmed. \
                    Test the connection, compare the key, and then type the password." }
                (form::keys(shown))
            },
        ),
        BringError::Pair(error) => refusal(visitor, target, confirmed, error),
        BringError::Login(failure) => (
            StatusCode::BAD_GATEWAY,
            html! {
                p { (shown(&failure.message)) "." }
                @if let Some(remedy) = &failure.remedy { p { (shown(remedy)) } }
            },
        ),
        BringError::Key(_) | BringError::Pass(_) | BringError::Write(_) => (
            StatusCode::BAD_GATEWAY,
            html! { p { (shown(&chain(error))) } },
        ),
    }
}

fn fingerprints(keys: &[PublicKey]) -> Vec<String> {
    keys.iter().map(PublicKey::fingerprint).collect()
}

fn name(pairing: &Pairing) -> String {
    format!("{}@{}", pairing.user, pairing.host)
}
