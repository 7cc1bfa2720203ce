//! `/vm/join`: pairing from the VM in one line.

use actix_web::{HttpResponse, http::StatusCode};
use maud::{Markup, html};
use protocol::join::Joined;

use super::{
    super::{
        Context,
        guard::visitor::Visitor,
        join::{LIFE, Offer, Progress},
        text::shown,
    },
    command,
    frame::{self, form_token},
    reply, session,
};
use crate::manager::{View, view::SessionView};

/// The way to that page, for others.
pub(super) fn invitation() -> Markup {
    html! {
        p { "With a shell on the VM, one line does everything there: it installs vm-helper, lets the Pi in, "
            "and tells the Pi about the VM." }
        p { a.button href="/vm/join" { "Pair in one line" } }
    }
}

/// The page. `own` is where the VM may reach this portal, `problem` what was wrong with the form.
pub(in super::super) fn page(
    context: &Context,
    visitor: &Visitor,
    own: &[String],
    problem: Option<&str>,
) -> HttpResponse {
    let view = context.view.borrow().clone();
    let offer = context.joins.offer();
    let open = offer.as_ref().is_some_and(Offer::is_open);
    let body = html! {
        @if let Some(problem) = problem {
            div.outcome.bad role="status" { p { (shown(problem)) } }
        }
        section aria-labelledby="join-title" {
            h2 #join-title { "Pair from the VM in one line" }
            (state(&view, offer.as_ref()))
        }
        section aria-labelledby="make-title" {
            h2 #make-title { @if open { "Another line" } @else { "Make the line" } }
            (form(&view, visitor, own, open))
        }
    };
    let status = if problem.is_some() {
        StatusCode::UNPROCESSABLE_ENTITY
    } else {
        StatusCode::OK
    };
    reply(status, &frame::frame("Pair in one line", visitor, &body))
}

/// How far it has come. The script asks for this part again, as long as something may happen.
fn state(view: &View, offer: Option<&Offer>) -> Markup {
    let is_up = matches!(view.session, SessionView::Up { .. });
    let changing = offer.is_some_and(|offer| {
        let joined = matches!(offer.progress, Progress::Joined { .. });
        offer.is_under_way() || joined && !is_up
    });
    html! {
        div #join-state data-refresh[changing] aria-live="polite" {
            @match offer {
                Some(Offer { progress: Progress::Joined { joined, user }, .. }) => {
                    div.outcome.good {
                        p { "Paired with " (shown(user)) "@" (shown(&joined.host)) "." }
                    }
                    (fingerprints(joined))
                    (session::section(view))
                    p { a href="/" { "To the devices" } }
                }
                Some(offer) if offer.is_under_way() => (waiting(offer)),
                Some(_) => p { "The line that was made here is older than " (LIFE.as_secs() / 60) " minutes and does nothing any more." },
                None => p { "The line is for a shell on the VM, of a user who may use sudo. It installs vm-helper, or upgrades it, "
                    "lets the Pi in, and tells the Pi about the VM. A pairing that there is already is kept." },
            }
        }
    }
}

fn waiting(offer: &Offer) -> Markup {
    html! {
        @if let Progress::Refused(refusal) = &offer.progress {
            div.outcome.bad {
                p { "A machine ran the line and was not paired: " (shown(&refusal.error)) "." }
                @if !refusal.remedy.is_empty() { p.remedy { (shown(&refusal.remedy)) } }
            }
        }
        p { "Run this on the VM, as a user who may use sudo:" }
        (command(&offer.line))
        p role="status" {
            @match offer.progress {
                Progress::Fetched => { "The VM has fetched the script and is at work…" }
                Progress::Reported => { "The VM is ready; the Pi asks for its host keys…" }
                _ => { "Waiting for the VM. This page goes on by itself; without a script, reload it." }
            }
        }
        p.quiet {
            "It works once, within " (LIFE.as_secs() / 60) " minutes. It fetches a script from this Pi and runs it only if its SHA-256 is the one in the line. "
            "The script installs the package for the VM’s processor; then "
            @match &offer.wish.user {
                Some(user) => { b { (shown(user)) } },
                None => "the user who runs it",
            }
            " lets in the Pi’s key, for attaching and detaching devices and nothing else, and the Pi keeps the VM’s SSH host keys. "
            "All of this goes over your local network unencrypted: compare the fingerprints that both ends show at the end."
        }
        p.quiet {
            "Tried with Debian 12. Where there is no dpkg, the tarball is installed; distributions other than Debian have not been tried."
        }
    }
}

fn fingerprints(joined: &Joined) -> Markup {
    html! {
        p { "The VM shows these, too; compare them:" }
        dl.facts {
            div { dt { "The Pi’s key, as the VM lets it in" } dd { code { (joined.key) } } }
            div {
                dt { "The VM’s host keys, as the Pi keeps them" }
                dd { @for (n, key) in joined.host_keys.iter().enumerate() { @if n > 0 { br; } code { (key) } } }
            }
        }
    }
}

fn form(view: &View, visitor: &Visitor, own: &[String], open: bool) -> Markup {
    html! {
        form.fields method="post" action="/vm/join" {
            (form_token(visitor))
            label {
                "User on the VM (empty: who runs the line)"
                input name="user" maxlength="32" autocomplete="off" autocapitalize="none" spellcheck="false";
            }
            label {
                "This Pi, as the VM reaches it"
                input name="pi" value=[own.first()] list="own" required maxlength="260" autocomplete="off" autocapitalize="none" spellcheck="false";
            }
            @if own.len() > 1 {
                datalist #own { @for address in own { option value=(address); } }
                p.quiet {
                    "It is also at "
                    @for (n, address) in own.iter().skip(1).enumerate() { @if n > 0 { ", " } code { (address) } }
                    "."
                }
            }
            @if let Some(pairing) = &view.pairing {
                label.choice {
                    input type="checkbox" name="replaces" value={ (pairing.user) "@" (pairing.host) };
                    span { "This is another VM: end the pairing with " b { (shown(&pairing.user)) "@" (shown(&pairing.host)) } }
                }
            }
            div.buttons {
                button type="submit" { @if open { "Make another line" } @else { "Make the line" } }
            }
        }
        @if open { p.quiet { "The one above then does nothing any more." } }
    }
}
