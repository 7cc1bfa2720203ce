//! What a person does about the pairing, on the page about the VM.

use std::time::Duration;

use actix_web::{
    HttpRequest, HttpResponse,
    http::{StatusCode, header},
    web,
};
use maud::{Markup, html};
use serde::Deserialize;
use tokio::time::timeout;

use super::{
    Context,
    guard::visitor::Visitor,
    page::vm::{self as page, Note, Target},
};
use crate::{
    manager::{
        Command,
        view::{DeviceState, SessionView},
    },
    vm::{Pairing, pairing::SetUp},
};

/// How long a command may wait for the manager.
const BUSY: Duration = Duration::from_secs(2);
/// How long the devices may take to be let go of, before the page says that it goes on.
const PARTED: Duration = Duration::from_secs(5);

/// What stands in an address or a form.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Entry {
    #[serde(default)]
    host: String,
    #[serde(default)]
    user: String,
    /// Fingerprints, with spaces between them.
    #[serde(default)]
    confirmed: String,
    /// `USER@HOST` of the pairing that is to end.
    #[serde(default)]
    replaces: String,
    /// How the request before came out.
    #[serde(default)]
    outcome: String,
}

impl Entry {
    fn target(&self) -> Target {
        Target {
            host: self.host.trim().to_owned(),
            user: self.user.trim().to_owned(),
        }
    }
}

/// `GET /vm`
pub(super) async fn show(
    request: HttpRequest,
    visitor: Visitor,
    context: web::Data<Context>,
) -> HttpResponse {
    // An address that cannot be read counts as one without a query.
    let entry = web::Query::<Entry>::from_query(request.query_string())
        .map(web::Query::into_inner)
        .unwrap_or_default();
    let mut target = Target::first(&context.view.borrow());
    let chosen = entry.target();
    if !chosen.host.is_empty() {
        target.host = chosen.host;
    }
    if !chosen.user.is_empty() {
        target.user = chosen.user;
    }
    let note = match entry.outcome.as_str() {
        "paired" => Some(Note {
            good: true,
            text: html! { p { "Paired. The Pi connects and attaches every serial device; how that goes is shown below." } },
        }),
        "parted" | "parting" | "none" => Some(parted(&context, &entry.outcome).await),
        _ => None,
    };
    page::page(&context, &visitor, StatusCode::OK, &target, note).await
}

/// `POST /vm/pair`
pub(super) async fn pair(
    context: web::Data<Context>,
    visitor: Visitor,
    entry: web::Form<Entry>,
) -> HttpResponse {
    let target = entry.target();
    let order = SetUp {
        pairing: Pairing {
            host: target.host.clone(),
            user: target.user.clone(),
        },
        confirmed: entry
            .confirmed
            .split_ascii_whitespace()
            .map(ToOwned::to_owned)
            .collect(),
        replaces: entry.replaces.split_once('@').map(|(user, host)| Pairing {
            host: host.to_owned(),
            user: user.to_owned(),
        }),
    };
    let confirmed = order.confirmed.clone();
    match context.pairer.set_up(order).await {
        Ok(()) => {
            // The pairing stands without it, and attaches what nobody holds back.
            let _ = timeout(BUSY, context.commands.send(Command::AttachAll)).await;
            back("paired")
        }
        Err(error) => {
            let (status, text) = page::refusal(&visitor, &target, &confirmed, &error);
            let note = Note { good: false, text };
            page::page(&context, &visitor, status, &target, Some(note)).await
        }
    }
}

/// `GET /vm/disconnect`
pub(super) async fn ask_to_part(context: web::Data<Context>, visitor: Visitor) -> HttpResponse {
    page::parting(&context, &visitor).await
}

/// `POST /vm/disconnect`
pub(super) async fn part(context: web::Data<Context>, visitor: Visitor) -> HttpResponse {
    match context.pairer.end().await {
        Ok(None) => back("none"),
        Ok(Some(_)) => {
            let mut view = context.view.clone();
            let free = view.wait_for(|view| {
                view.session == SessionView::NotPaired
                    && !view
                        .devices
                        .iter()
                        .any(|device| matches!(device.state, DeviceState::Attached { .. }))
            });
            let free = matches!(timeout(PARTED, free).await, Ok(Ok(_)));
            back(if free { "parted" } else { "parting" })
        }
        Err(error) => {
            let target = Target::first(&context.view.borrow());
            let (status, text) = page::refusal(&visitor, &target, &[], &error);
            let note = Note { good: false, text };
            page::page(&context, &visitor, status, &target, Some(note)).await
        }
    }
}

async fn parted(context: &Context, outcome: &str) -> Note {
    let sentence: Markup = match outcome {
        "parted" => html! { p { "Disconnected. Every device was detached and stays on the Pi." } },
        "parting" => {
            html! { p { "Disconnected. Devices are still being detached; the list of devices shows how that goes." } }
        }
        _ => html! { p { "No VM was paired any more." } },
    };
    let key = context.pairer.key().await.ok();
    Note {
        good: true,
        text: html! { (sentence) (page::remains(key.as_ref())) },
    }
}

/// Back to the page, which shows the outcome.
fn back(outcome: &str) -> HttpResponse {
    HttpResponse::SeeOther()
        .insert_header((header::LOCATION, format!("/vm?outcome={outcome}")))
        .finish()
}
