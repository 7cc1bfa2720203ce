//! What is asked for: the page and its form by a person, the rest by the machine that joins.

use std::net::{IpAddr, SocketAddr};

use actix_web::{
    HttpRequest, HttpResponse,
    http::{StatusCode, header},
    web,
};
use protocol::join::{Invitation, Joined, Refusal, Report};
use serde::Deserialize;

use super::{
    super::{
        Context,
        action::order,
        address::{has_port, own_addresses},
        guard::{host::is_own, visitor::Visitor},
        page::join as page,
    },
    Closed, Offer, Progress, Wish, script,
};
use crate::{
    manager::Command,
    vm::{
        Pairing, PublicKey, conf,
        pairing::{PairError, SetUp},
    },
};

/// What stands in the form.
#[derive(Debug, Default, Deserialize)]
pub(in super::super) struct Form {
    #[serde(default)]
    pi: String,
    #[serde(default)]
    user: String,
    /// `USER@HOST` of the pairing that may end.
    #[serde(default)]
    replaces: String,
}

#[derive(Deserialize)]
pub(in super::super) struct Token {
    token: String,
}

/// `GET /vm/join`
pub(in super::super) async fn show(
    request: HttpRequest,
    visitor: Visitor,
    context: web::Data<Context>,
) -> HttpResponse {
    page::page(&context, &visitor, &own_addresses(&request), None)
}

/// `POST /vm/join`: makes the line.
pub(in super::super) async fn make(
    request: HttpRequest,
    visitor: Visitor,
    context: web::Data<Context>,
    form: web::Form<Form>,
) -> HttpResponse {
    let own = own_addresses(&request);
    let (pi, user) = (form.pi.trim(), form.user.trim());
    let pi = match pi {
        "" => own.first().cloned().unwrap_or_default(),
        pi if has_port(pi) => pi.to_owned(),
        pi => format!("{pi}:{}", request.app_config().local_addr().port()),
    };
    let problem = if !is_own(&pi, &context.names) {
        Some(format!(
            "{pi} is no name or address of this Pi; expected one such as {}",
            own.join(" or ")
        ))
    } else if !user.is_empty() {
        conf::check_user(user)
            .err()
            .map(|problem| problem.to_string())
    } else {
        None
    };
    if let Some(problem) = problem {
        return page::page(&context, &visitor, &own, Some(&problem));
    }
    let wish = Wish {
        pi,
        user: (!user.is_empty()).then(|| user.to_owned()),
        replaces: form.replaces.split_once('@').map(|(user, host)| Pairing {
            host: host.to_owned(),
            user: user.to_owned(),
        }),
    };
    let packages = context.packages.list().await;
    if packages.is_empty() {
        let problem = "This Pi carries no packages to install on the VM.";
        return page::page(&context, &visitor, &own, Some(problem));
    }
    if let Err(error) = context.joins.make(wish, &packages) {
        let problem = format!("failed to make a token: {error}");
        return page::page(&context, &visitor, &own, Some(&problem));
    }
    HttpResponse::SeeOther()
        .insert_header((header::LOCATION, "/vm/join"))
        .finish()
}

/// `GET /join/TOKEN`: the script. A token that opens nothing gets one that says so, with a status with
/// which curl hands it on.
pub(in super::super) async fn fetch(
    path: web::Path<Token>,
    context: web::Data<Context>,
) -> HttpResponse {
    let (status, text) = match context.joins.open(&path.token) {
        Ok(offer) => {
            if offer.progress == Progress::Waiting {
                context.joins.progress(&offer.token, Progress::Fetched);
            }
            (StatusCode::OK, offer.script)
        }
        Err(Closed::Wrong) => (StatusCode::OK, script::REFUSAL.to_owned()),
        Err(Closed::TooMany) => (StatusCode::TOO_MANY_REQUESTS, script::REFUSAL.to_owned()),
    };
    HttpResponse::build(status)
        .content_type("text/x-shellscript; charset=utf-8")
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .body(text)
}

/// `GET /join/TOKEN/invitation`
pub(in super::super) async fn invite(
    path: web::Path<Token>,
    context: web::Data<Context>,
) -> HttpResponse {
    let offer = match context.joins.open(&path.token) {
        Ok(offer) => offer,
        Err(closed) => return closed_answer(closed),
    };
    match context.pairer.key().await {
        Ok(key) => HttpResponse::Ok()
            .insert_header((header::CACHE_CONTROL, "no-store"))
            .json(Invitation {
                key: key.public_key(),
                user: offer.wish.user,
            }),
        Err(error) => {
            let refusal = refusal(
                format!("the Pi has no usable key: {error}"),
                "see the Pi's portal",
            );
            answer(StatusCode::INTERNAL_SERVER_ERROR, &refusal)
        }
    }
}

/// `POST /join/TOKEN`: a machine is ready. Uses the token up, unless the machine is not taken.
pub(in super::super) async fn report(
    request: HttpRequest,
    path: web::Path<Token>,
    context: web::Data<Context>,
    body: web::Bytes,
) -> HttpResponse {
    let offer = match context.joins.take(&path.token) {
        Ok(offer) => offer,
        Err(closed) => return closed_answer(closed),
    };
    let outcome = match (serde_json::from_slice::<Report>(&body), request.peer_addr()) {
        (Ok(report), Some(peer)) => pair(&context, &offer, &report, peer).await,
        (Err(error), _) => Err((
            StatusCode::UNPROCESSABLE_ENTITY,
            refusal(
                format!("the report cannot be read: {error}"),
                "use the vm-helper of this Pi",
            ),
        )),
        (_, None) => Err((
            StatusCode::INTERNAL_SERVER_ERROR,
            refusal("the machine's address is not known", "try again"),
        )),
    };
    match outcome {
        Ok((joined, user)) => {
            let answer = HttpResponse::Ok().json(&joined);
            context
                .joins
                .progress(&offer.token, Progress::Joined { joined, user });
            // The pairing stands without it, and attaches what nobody holds back.
            order(&context, Command::AttachAll).await;
            answer
        }
        Err((status, refusal)) => {
            tracing::warn!(peer = ?request.peer_addr(), error = refusal.error, "a machine was not paired");
            let answer = answer(status, &refusal);
            context
                .joins
                .progress(&offer.token, Progress::Refused(refusal));
            answer
        }
    }
}

type Refused = (StatusCode, Refusal);

async fn pair(
    context: &Context,
    offer: &Offer,
    report: &Report,
    peer: SocketAddr,
) -> Result<(Joined, String), Refused> {
    let reported: Vec<String> = report
        .host_keys
        .iter()
        .filter_map(|key| PublicKey::parse(key).ok())
        .map(|key| key.fingerprint())
        .collect();
    if reported.is_empty() {
        let refusal = refusal(
            "the report has no SSH host key",
            "see that an SSH server is installed",
        );
        return Err((StatusCode::UNPROCESSABLE_ENTITY, refusal));
    }
    let key = context.pairer.key().await.map_err(|error| {
        let refusal = refusal(
            format!("the Pi has no usable key: {error}"),
            "see the Pi's portal",
        );
        (StatusCode::INTERNAL_SERVER_ERROR, refusal)
    })?;
    let new = Pairing {
        host: reachable(peer),
        user: report.user.clone(),
    };
    let mut order = SetUp {
        pairing: new.clone(),
        confirmed: reported.clone(),
        replaces: offer.wish.replaces.clone(),
    };
    let mut result = context.pairer.set_up(order.clone()).await;
    // The machine that it is paired with already, perhaps under a name: that stays, if it works.
    if let Err(PairError::Replaces { old, pinned }) = &result
        && pinned.iter().any(|pin| reported.contains(pin))
    {
        order.replaces = Some(old.clone());
        order.pairing = Pairing {
            host: old.host.clone(),
            user: new.user.clone(),
        };
        result = context.pairer.set_up(order.clone()).await;
        if result.is_err() {
            order.pairing = new;
            result = context.pairer.set_up(order.clone()).await;
        }
    }
    result.map_err(|error| explain(&order.pairing, &error))?;
    let pinned = context.pairer.fingerprints().await.unwrap_or(reported);
    let joined = Joined {
        host: order.pairing.host,
        host_keys: pinned,
        key: key.fingerprint(),
    };
    Ok((joined, order.pairing.user))
}

/// The machine's address as a VM_HOST: where its report came from.
fn reachable(peer: SocketAddr) -> String {
    match (peer.ip().to_canonical(), peer) {
        (IpAddr::V6(ip), SocketAddr::V6(peer)) if ip.is_unicast_link_local() => {
            format!("{ip}%{}", peer.scope_id())
        }
        (ip, _) => ip.to_string(),
    }
}

/// For the person who ran the line on the VM.
fn explain(pairing: &Pairing, error: &PairError) -> Refused {
    let host = &pairing.host;
    match error {
        PairError::Conf(error) => (
            StatusCode::UNPROCESSABLE_ENTITY,
            refusal(error.to_string(), error.remedy()),
        ),
        PairError::HostKey(error) => (
            StatusCode::BAD_GATEWAY,
            refusal(
                format!("the Pi does not reach the SSH server here, at {host} port 22: {error}"),
                "see that no firewall or address translation is between the two, and that the SSH server runs",
            ),
        ),
        PairError::Changed { .. } | PairError::Unconfirmed { .. } => (
            StatusCode::CONFLICT,
            refusal(
                format!(
                    "at {host} port 22, the Pi finds another SSH host key than those of this machine"
                ),
                "see that no address translation is between the two",
            ),
        ),
        PairError::Replaces { old, .. } => (
            StatusCode::CONFLICT,
            refusal(
                format!("the Pi is paired with {}@{}", old.user, old.host),
                "say in the portal that the new line replaces that pairing",
            ),
        ),
        PairError::Busy | PairError::Task(_) => (
            StatusCode::SERVICE_UNAVAILABLE,
            refusal(error.to_string(), "try again"),
        ),
    }
}

fn refusal(error: impl Into<String>, remedy: impl Into<String>) -> Refusal {
    Refusal {
        error: error.into(),
        remedy: remedy.into(),
    }
}

fn closed_answer(closed: Closed) -> HttpResponse {
    let status = match closed {
        Closed::Wrong => StatusCode::GONE,
        Closed::TooMany => StatusCode::TOO_MANY_REQUESTS,
    };
    let refusal = refusal(
        "this line has been used, is older than 15 minutes, or was replaced by a newer one",
        "make a new one in the Pi's portal, under VM",
    );
    answer(status, &refusal)
}

fn answer(status: StatusCode, refusal: &Refusal) -> HttpResponse {
    HttpResponse::build(status)
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .json(refusal)
}
