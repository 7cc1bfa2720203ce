//! The page about the VM: who is paired, and how to pair.
//!
//! - [`found`]: VMs on the network
//! - [`form`]: host and user, and what can be done with them
//! - [`report`]: what a test found
//! - [`refusal`]: why a pairing was not made, and the way on
//! - [`parting`]: the step before a pairing ends, and what remains
//!
//! Everything has an id down to the level at which the script replaces it; the form never changes,
//! so that what is being typed stays.

mod form;
mod found;
mod parting;
mod refusal;
mod report;

use actix_web::{HttpResponse, http::StatusCode};
use maud::{Markup, html};

use super::{
    super::{Context, guard::visitor::Visitor},
    frame, join, reply, session,
};
use crate::{
    manager::View,
    vm::{Pairing, conf},
};

pub(in super::super) use parting::{parting, remains};
pub(in super::super) use refusal::{not_brought, refusal, status};

/// What a request left behind: shown on top, once.
pub(in super::super) struct Note {
    /// Whether it came out as wished.
    pub good: bool,
    /// What to say.
    pub text: Markup,
}

/// What stands in the form: what was typed or chosen, else the pairing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Target {
    /// Name or address.
    pub host: String,
    /// The user there.
    pub user: String,
}

impl Target {
    /// What a new visitor finds in the form.
    pub(in super::super) fn first(view: &View) -> Self {
        match &view.pairing {
            Some(Pairing { host, user }) => Self {
                host: host.clone(),
                user: user.clone(),
            },
            None => Self {
                host: String::new(),
                user: conf::DEFAULT_USER.to_owned(),
            },
        }
    }

    /// As the rest of the appliance knows it.
    pub(in super::super) fn pairing(&self) -> Pairing {
        Pairing {
            host: self.host.clone(),
            user: self.user.clone(),
        }
    }

    /// The page with this in its form.
    pub(in super::super) fn address(&self) -> String {
        format!("/vm{}", self.query())
    }

    /// Empty for what can be no VM anyway.
    fn query(&self) -> String {
        if conf::check(&self.pairing()).is_err() {
            return String::new();
        }
        // The one character of an address that means something else here: it sets off a zone.
        let host = self.host.replace('%', "%25");
        format!("?host={host}&user={}", self.user)
    }
}

/// The page.
pub(in super::super) async fn page(
    context: &Context,
    visitor: &Visitor,
    status: StatusCode,
    target: &Target,
    note: Option<Note>,
) -> HttpResponse {
    context.pairer.discovery.look();
    let key = context.pairer.key().await;
    let body = html! {
        p #connection role="status" hidden {}
        @if let Some(note) = note {
            div.outcome.good[note.good].bad[!note.good] role="status" { (note.text) }
        }
        p #news .unseen aria-live="polite" {}
        (live_part(context, visitor, target))
        (form::key(&target.user, &key))
    };
    reply(status, &frame::frame("VM", visitor, &body))
}

/// The part that the script keeps up to date.
pub(in super::super) fn live_part(context: &Context, visitor: &Visitor, target: &Target) -> Markup {
    let view = context.view.borrow().clone();
    let pairing = target.pairing();
    let report = context.pairer.diagnoses.latest(&pairing);
    let paired = view.pairing.as_ref() == Some(&pairing);
    html! {
        div #live data-events={ "/vm/events" (target.query()) } {
            (session::section(&view))
            section #one-line aria-labelledby="one-line-title" {
                h2 #one-line-title { "From the VM, in one line" }
                (join::invitation())
            }
            (found::section(&context.pairer.discovery, target))
            (form::section(visitor, target))
            @if let Some(report) = report {
                (report::section(visitor, target, &report, paired))
            }
            @if view.pairing.is_some() {
                section #part aria-labelledby="part-title" {
                    h2 #part-title { "Disconnect" }
                    p { "Ends the pairing. You are told first what becomes of the attached devices." }
                    p { a.button href="/vm/disconnect" { "Disconnect…" } }
                }
            }
        }
    }
}
