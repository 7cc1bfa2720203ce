//! The page about the VM: who is paired, and how to pair.
//!
//! - [`form`]: host and user, and what can be done with them
//! - [`refusal`]: why a pairing was not made, and the way on
//! - [`parting`]: the step before a pairing ends, and what remains
//!
//! Everything has an id down to the level at which the script replaces it; the form never changes,
//! so that what is being typed stays.

mod form;
mod parting;
mod refusal;

use actix_web::{HttpResponse, http::StatusCode};
use maud::{Markup, html};

use super::{
    super::{Context, guard::visitor::Visitor},
    frame, join, reply, session,
};
use crate::{manager::View, vm::Pairing};

pub(in super::super) use parting::{parting, remains};
pub(in super::super) use refusal::refusal;

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
                user: crate::vm::conf::DEFAULT_USER.to_owned(),
            },
        }
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
    let view = context.view.borrow().clone();
    let key = context.pairer.key().await;
    let body = html! {
        p #connection role="status" hidden {}
        @if let Some(note) = note {
            div.outcome.good[note.good].bad[!note.good] role="status" { (note.text) }
        }
        div #live {
            (session::section(&view))
        }
        section #one-line aria-labelledby="one-line-title" {
            h2 #one-line-title { "From the VM, in one line" }
            (join::invitation())
        }
        (form::section(visitor, target, view.pairing.is_some()))
        (form::key(&target.user, &key))
        @if view.pairing.is_some() {
            section #part aria-labelledby="part-title" {
                h2 #part-title { "Disconnect" }
                p { "Ends the pairing. You are told first what becomes of the attached devices." }
                p { a.button href="/vm/disconnect" { "Disconnect…" } }
            }
        }
    };
    reply(status, &frame::frame("VM", visitor, &body))
}
