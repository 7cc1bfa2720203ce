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

pub(super) use super::pairing_live::events;
use super::{
    Context,
    guard::visitor::Visitor,
    page::vm::{self as page, Note, Target},
};
use crate::{
    history::{Event, Kind},
    manager::{
        Command,
        view::{DeviceState, SessionView},
    },
    vm::{Pairing, askpass::Password, conf, pairing::SetUp},
};

/// How long a command may wait for the manager.
const BUSY: Duration = Duration::from_secs(2);
/// How long the devices may take to be let go of, before the page says that it goes on.
const PARTED: Duration = Duration::from_secs(5);

/// What stands in an address or a form.
#[derive(Default, Deserialize)]
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
    #[serde(default)]
    password: String,
    /// How the request before came out.
    #[serde(default)]
    outcome: String,
}

impl Entry {
    /// What an address says; one that cannot be read counts as one without a query.
    fn of(request: &HttpRequest) -> Self {
        web::Query::from_query(request.query_string())
            .map(web::Query::into_inner)
            .unwrap_or_default()
    }

    fn target(&self) -> Target {
        Target {
            host: self.host.trim().to_owned(),
            user: self.user.trim().to_owned(),
        }
    }

    fn confirmed(&self) -> Vec<String> {
        self.confirmed
            .split_ascii_whitespace()
            .map(ToOwned::to_owned)
            .collect()
    }
}

/// Whom a page is about: whom its address names, else the paired VM.
pub(super) fn target(request: &HttpRequest, context: &Context) -> Target {
    let first = Target::first(&context.view.borrow());
    let chosen = Entry::of(request).target();
    Target {
        host: Some(chosen.host)
            .filter(|host| !host.is_empty())
            .unwrap_or(first.host),
        user: Some(chosen.user)
            .filter(|user| !user.is_empty())
            .unwrap_or(first.user),
    }
}

/// `GET /vm`
pub(super) async fn show(
    request: HttpRequest,
    visitor: Visitor,
    context: web::Data<Context>,
) -> HttpResponse {
    let entry = Entry::of(&request);
    let target = target(&request, &context);
    let note = match entry.outcome.as_str() {
        "paired" => Some(Note {
            good: true,
            text: html! { p { "Paired. The Pi connects and attaches every serial device; how that goes is shown below." } },
        }),
        "brought" => Some(Note {
            good: true,
            text: html! { p { "The VM lets the Pi’s key in now. The password was not kept." } },
        }),
        "parted" | "parting" | "none" => Some(parted(&context, &entry.outcome).await),
        _ => None,
    };
    page::page(&context, &visitor, StatusCode::OK, &target, note).await
}

/// `POST /vm/test`: begins a test, or joins the one that runs.
pub(super) async fn test(
    context: web::Data<Context>,
    visitor: Visitor,
    entry: web::Form<Entry>,
) -> HttpResponse {
    let target = entry.target();
    if let Err(error) = conf::check(&target.pairing()) {
        let (status, text) = page::refusal(&visitor, &target, &[], &error.into());
        return page::page(
            &context,
            &visitor,
            status,
            &target,
            Some(Note { good: false, text }),
        )
        .await;
    }
    match context.pairer.diagnoses.start(target.pairing()) {
        Ok(()) => see(format!("{}#report", target.address())),
        Err(error) => {
            let text = html! { p { (error.to_string()) } };
            let status = StatusCode::SERVICE_UNAVAILABLE;
            page::page(
                &context,
                &visitor,
                status,
                &target,
                Some(Note { good: false, text }),
            )
            .await
        }
    }
}

/// `POST /vm/key`: brings the Pi's key to the VM with a password, then tests again.
pub(super) async fn bring_key(
    context: web::Data<Context>,
    visitor: Visitor,
    entry: web::Form<Entry>,
) -> HttpResponse {
    let entry = entry.into_inner();
    let (target, confirmed) = (entry.target(), entry.confirmed());
    let Some(password) = Password::new(entry.password) else {
        let text = html! { p { "Type the password of " (target.user) " on the VM." } };
        let note = Note { good: false, text };
        return page::page(
            &context,
            &visitor,
            StatusCode::UNPROCESSABLE_ENTITY,
            &target,
            Some(note),
        )
        .await;
    };
    let brought = context
        .pairer
        .bring_key(target.pairing(), confirmed.clone(), password)
        .await;
    match brought {
        Ok(_) => {
            // Too many tests at once: this one can be begun by hand.
            let _ = context.pairer.diagnoses.start(target.pairing());
            see(format!("{}&outcome=brought", target.address()))
        }
        Err(error) => {
            let (status, text) = page::not_brought(&visitor, &target, &confirmed, &error);
            page::page(
                &context,
                &visitor,
                status,
                &target,
                Some(Note { good: false, text }),
            )
            .await
        }
    }
}

/// `POST /vm/pair`
pub(super) async fn pair(
    request: HttpRequest,
    context: web::Data<Context>,
    visitor: Visitor,
    entry: web::Form<Entry>,
) -> HttpResponse {
    let target = entry.target();
    let order = SetUp {
        pairing: target.pairing(),
        confirmed: entry.confirmed(),
        replaces: entry.replaces.split_once('@').map(|(user, host)| Pairing {
            host: host.to_owned(),
            user: user.to_owned(),
        }),
    };
    let confirmed = order.confirmed.clone();
    match context.pairer.set_up(order).await {
        Ok(()) => {
            record(
                &context,
                &request,
                &format!("paired with {}@{}", target.user, target.host),
            );
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
pub(super) async fn part(
    request: HttpRequest,
    context: web::Data<Context>,
    visitor: Visitor,
) -> HttpResponse {
    match context.pairer.end().await {
        Ok(None) => back("none"),
        Ok(Some(Pairing { host, user })) => {
            record(
                &context,
                &request,
                &format!("pairing with {user}@{host} ended"),
            );
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

fn record(context: &Context, request: &HttpRequest, what: &str) {
    let event = Event::new(Kind::Pairing).saying(what);
    context.history.append(match request.peer_addr() {
        Some(peer) => event.by(peer.ip()),
        None => event,
    });
}

/// Back to the page, which shows the outcome.
fn back(outcome: &str) -> HttpResponse {
    see(format!("/vm?outcome={outcome}"))
}

fn see(address: String) -> HttpResponse {
    HttpResponse::SeeOther()
        .insert_header((header::LOCATION, address))
        .finish()
}
