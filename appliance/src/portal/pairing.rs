//! What a person does about the pairing, on the page about the VM.

use std::time::Duration;

use actix_web::{
    HttpRequest, HttpResponse,
    http::{StatusCode, header},
    web,
};
use maud::html;
use serde::Deserialize;
use tokio::time::timeout;

pub(super) use super::pairing_live::events;
use super::{
    Context,
    action::order,
    guard::visitor::Visitor,
    page::vm::{self as page, Note, Target},
};
use crate::{
    history::{Event, Kind},
    manager::{
        Command,
        view::{DeviceState, SessionView},
    },
    vm::{
        Pairing,
        askpass::Password,
        conf,
        pairing::{PairError, SetUp},
    },
};

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
        word => match Parted::ALL.into_iter().find(|parted| parted.word() == word) {
            Some(outcome) => Some(parted(&context, outcome).await),
            None => None,
        },
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
    match set_up(&context, &request, order).await {
        Ok(()) => back("paired"),
        Err(error) => {
            let (status, text) = page::refusal(&visitor, &target, &confirmed, &error);
            let note = Note { good: false, text };
            page::page(&context, &visitor, status, &target, Some(note)).await
        }
    }
}

/// Pair, and have everything attached.
pub(super) async fn set_up(
    context: &Context,
    request: &HttpRequest,
    wanted: SetUp,
) -> Result<(), PairError> {
    let Pairing { host, user } = wanted.pairing.clone();
    context.pairer.set_up(wanted).await?;
    record(context, request, &format!("paired with {user}@{host}"));
    // The pairing stands without it, and attaches what nobody holds back.
    order(context, Command::AttachAll).await;
    Ok(())
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
    match end(&context, &request).await {
        Ok(parted) => back(parted.word()),
        Err(error) => {
            let target = Target::first(&context.view.borrow());
            let (status, text) = page::refusal(&visitor, &target, &[], &error);
            let note = Note { good: false, text };
            page::page(&context, &visitor, status, &target, Some(note)).await
        }
    }
}

/// How the end of a pairing came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Parted {
    Free,
    NotYet,
    Nobody,
}

impl Parted {
    const ALL: [Self; 3] = [Self::Free, Self::NotYet, Self::Nobody];

    /// The word in the address.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Free => "parted",
            Self::NotYet => "parting",
            Self::Nobody => "none",
        }
    }

    /// For people.
    pub(super) fn sentence(self) -> &'static str {
        match self {
            Self::Free => "Disconnected. Every device was detached and stays on the Pi.",
            Self::NotYet => {
                "Disconnected. Devices are still being detached; the list of devices shows how that goes."
            }
            Self::Nobody => "No VM was paired any more.",
        }
    }
}

/// End the pairing, and wait for a moment until every device is free.
pub(super) async fn end(context: &Context, request: &HttpRequest) -> Result<Parted, PairError> {
    let Some(Pairing { host, user }) = context.pairer.end().await? else {
        return Ok(Parted::Nobody);
    };
    record(
        context,
        request,
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
    match timeout(PARTED, free).await {
        Ok(Ok(_)) => Ok(Parted::Free),
        Ok(Err(_)) | Err(_) => Ok(Parted::NotYet),
    }
}

async fn parted(context: &Context, parted: Parted) -> Note {
    let sentence = html! { p { (parted.sentence()) } };
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
