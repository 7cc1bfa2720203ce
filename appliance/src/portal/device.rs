//! What a person asks for about one device.
//!
//! Each form names the generation it was shown for, so that a click on an old page does nothing to
//! what is plugged in there now. An order is followed for a moment, so that the answer says what came
//! of it; what takes longer shows itself on the dashboard.

use std::{cell::Cell, time::Duration};

use actix_web::{HttpRequest, HttpResponse, http::StatusCode, web};
use protocol::{Alias, AliasError, BusId, DevId, line::CAN_ALIAS};
use serde::Deserialize;

use super::{
    Context,
    action::{Outcome, Said, order, wait_until},
    guard::visitor::Visitor,
    page::{self, details::Typed},
};
use crate::manager::{
    Command, MOST_KEPT, Ruling, Scope, View,
    view::{DeviceState, DeviceView, SessionView},
};
use crate::usb::Verdict;

/// How long a person waits for an answer to a click.
const PATIENCE: Duration = Duration::from_secs(4);
/// A port is off for two seconds, and a board takes its time to start.
const CYCLE_PATIENCE: Duration = Duration::from_secs(12);

/// Where in the portal a device is.
#[derive(Debug, Deserialize)]
pub(super) struct Place {
    busid: BusId,
}

/// A button's form.
#[derive(Debug, Deserialize)]
pub(super) struct Clicked {
    devid: DevId,
}

/// The form that names a device; empty forgets the name.
#[derive(Debug, Deserialize)]
pub(super) struct Naming {
    devid: DevId,
    name: String,
}

/// The form that makes a rule.
#[derive(Debug, Deserialize)]
pub(super) struct Ordered {
    devid: DevId,
    about: About,
    ruling: Ruling,
}

/// What a rule is about, in the form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum About {
    Serial,
    Port,
    Product,
}

/// The form that forgets a name, rule or hold.
#[derive(Debug, Deserialize)]
pub(super) struct Forgotten {
    pub(super) scope: Scope,
}

fn find<'a>(view: &'a View, busid: &BusId) -> Option<&'a DeviceView> {
    view.devices.iter().find(|d| d.facts.busid == *busid)
}

/// The device that a form was shown for, or why it is not that any more.
fn shown_for(context: &Context, busid: &BusId, devid: DevId) -> Result<DeviceView, Outcome> {
    let view = context.view.borrow();
    match find(&view, busid) {
        None => Err(Outcome::Gone),
        Some(device) if device.facts.devid != devid => Err(Outcome::Replaced),
        Some(device) => Ok(device.clone()),
    }
}

/// `GET /devices/BUSID`
pub(super) async fn show(
    request: HttpRequest,
    place: web::Path<Place>,
    visitor: Visitor,
    context: web::Data<Context>,
) -> HttpResponse {
    let said = Said::from_query(request.query_string());
    let outcome = said.map(|said| said.outcome);
    answer(&context, &visitor, &place.busid, outcome, None)
}

fn answer(
    context: &Context,
    visitor: &Visitor,
    busid: &BusId,
    outcome: Option<Outcome>,
    typed: Option<&Typed>,
) -> HttpResponse {
    let view = context.view.borrow().clone();
    let status = match (find(&view, busid), typed) {
        (None, _) => StatusCode::NOT_FOUND,
        (Some(_), Some(_)) => StatusCode::UNPROCESSABLE_ENTITY,
        (Some(_), None) => StatusCode::OK,
    };
    let now = context.now_ms();
    let page = match find(&view, busid) {
        Some(device) => page::details::page(visitor, &view, device, now, outcome, typed),
        None => page::details::nothing(visitor, busid, outcome),
    };
    page::reply(status, &page)
}

/// `POST /devices/BUSID/attach`
pub(super) async fn attach(
    place: web::Path<Place>,
    clicked: web::Form<Clicked>,
    context: web::Data<Context>,
) -> HttpResponse {
    let outcome = attached(&context, &place.busid, clicked.devid).await;
    said(place.into_inner(), outcome).on_dashboard()
}

pub(super) async fn attached(context: &Context, busid: &BusId, devid: DevId) -> Outcome {
    let before = match shown_for(context, busid, devid) {
        Err(outcome) => return outcome,
        Ok(device) if !device.facts.verdict.exports() => return Outcome::NotExported,
        Ok(device) => device.state,
    };
    match context.view.borrow().session {
        SessionView::NotPaired => return Outcome::NotPaired,
        SessionView::Up { .. } | SessionView::Down { .. } => {}
    }
    if !order(context, Command::Attach(busid.clone(), Some(devid))).await {
        return Outcome::Busy;
    }
    let came = wait_until(context, PATIENCE, |view| {
        let device = find(view, busid)?;
        match (&device.state, &view.session) {
            (DeviceState::Attached { .. }, _) => Some(Outcome::Attached),
            // Not the failure that this click is about.
            (DeviceState::Failed { .. }, _) if device.state != before => Some(Outcome::NotAttached),
            (DeviceState::Bound { held: false }, SessionView::Down { .. }) => Some(Outcome::Later),
            _ => None,
        }
    });
    came.await.unwrap_or(Outcome::Attaching)
}

/// `POST /devices/BUSID/detach`
pub(super) async fn detach(
    place: web::Path<Place>,
    clicked: web::Form<Clicked>,
    context: web::Data<Context>,
) -> HttpResponse {
    let outcome = detached(&context, &place.busid, clicked.devid).await;
    said(place.into_inner(), outcome).on_dashboard()
}

pub(super) async fn detached(context: &Context, busid: &BusId, devid: DevId) -> Outcome {
    match shown_for(context, busid, devid) {
        Err(outcome) => return outcome,
        Ok(device) if !device.facts.verdict.exports() => return Outcome::NotExported,
        Ok(device) if !device.can_be_held => return Outcome::TooManyHeld,
        Ok(_) => {}
    }
    if !order(context, Command::Detach(busid.clone(), Some(devid))).await {
        return Outcome::Busy;
    }
    let came = wait_until(context, PATIENCE, |view| match find(view, busid) {
        None => Some(Outcome::Gone),
        Some(device) => match device.state {
            DeviceState::Bound { held: true } => Some(match view.session {
                SessionView::Down { .. } => Outcome::DetachedAlone,
                SessionView::Up { .. } | SessionView::NotPaired => Outcome::Detached,
            }),
            // The last place went to another meanwhile.
            _ => (!device.can_be_held).then_some(Outcome::TooManyHeld),
        },
    });
    came.await.unwrap_or(Outcome::Detaching)
}

/// `POST /devices/BUSID/power-cycle`
pub(super) async fn power_cycle(
    place: web::Path<Place>,
    clicked: web::Form<Clicked>,
    context: web::Data<Context>,
) -> HttpResponse {
    let outcome = cycled(&context, &place.busid, clicked.devid).await;
    said(place.into_inner(), outcome).on_dashboard()
}

pub(super) async fn cycled(context: &Context, busid: &BusId, devid: DevId) -> Outcome {
    let mut before = None;
    match shown_for(context, busid, devid) {
        Err(outcome) => return outcome,
        // A double click follows the first.
        Ok(device) if device.state == DeviceState::Cycling => {}
        Ok(device) if matches!(device.facts.verdict, Verdict::Refuse(_)) => {
            return Outcome::NeverCycled;
        }
        Ok(device) => {
            before = device.power_failure;
            if !order(context, Command::PowerCycle(busid.clone(), Some(devid))).await {
                return Outcome::Busy;
            }
        }
    }
    let begun = Cell::new(false);
    let came = wait_until(context, CYCLE_PATIENCE, |view| {
        let device = find(view, busid)?;
        match &device.state {
            DeviceState::Cycling => {
                begun.set(true);
                None
            }
            _ if device.facts.devid != devid => Some(Outcome::Cycled),
            // An earlier try's failure is told for a while.
            _ if !begun.get() && device.power_failure == before => None,
            _ => device.power_failure.as_ref().map(|_| Outcome::NotCycled),
        }
    });
    came.await.unwrap_or(Outcome::Cycling)
}

/// `POST /devices/BUSID/rename`
pub(super) async fn rename(
    place: web::Path<Place>,
    naming: web::Form<Naming>,
    visitor: Visitor,
    context: web::Data<Context>,
) -> HttpResponse {
    let busid = &place.busid;
    let device = match shown_for(&context, busid, naming.devid) {
        Ok(device) => device,
        Err(outcome) => {
            let typed = Typed {
                name: naming.name.trim().to_owned(),
                error: outcome.sentence().to_owned(),
            };
            return answer(&context, &visitor, busid, None, Some(&typed));
        }
    };
    match renamed(&context, &device, &naming.name).await {
        Ok(outcome) => said(place.into_inner(), outcome).on_its_page(),
        Err(error) => {
            let typed = Typed {
                name: naming.name.trim().to_owned(),
                error: error.to_string(),
            };
            answer(&context, &visitor, busid, None, Some(&typed))
        }
    }
}

/// Why a device does not get a name. The text says what helps.
#[derive(Debug, thiserror::Error)]
pub(super) enum NameError {
    #[error("{0}.")]
    Wrong(#[from] AliasError),
    #[error(
        "\u{201c}{0}\u{201d} is another device’s name. Choose one that is not taken, or take it away there first."
    )]
    Taken(Alias),
}

/// Give a device the name that was typed, or take it away where that is empty.
pub(super) async fn renamed(
    context: &Context,
    device: &DeviceView,
    name: &str,
) -> Result<Outcome, NameError> {
    let alias: Option<Alias> = match name.trim() {
        "" => None,
        name => Some(name.parse()?),
    };
    if let Some(taken) = alias
        .as_ref()
        .and_then(|alias| clash(context, device, alias))
    {
        return Err(NameError::Taken(taken));
    }
    Ok(named(context, device, alias).await)
}

/// Another device's name that this one clashes with.
fn clash(context: &Context, device: &DeviceView, alias: &Alias) -> Option<Alias> {
    let view = context.view.borrow();
    let mut others = view.aliases.iter().filter(|a| a.scope != device.scope);
    others
        .find(|other| other.alias.clashes_with(alias))
        .map(|other| other.alias.clone())
}

/// Whether all names or rules there may be are kept, and this scope has none.
fn no_room<'a>(mut kept: impl ExactSizeIterator<Item = &'a Scope>, scope: &Scope) -> bool {
    kept.len() >= MOST_KEPT && kept.all(|one| one != scope)
}

async fn named(context: &Context, device: &DeviceView, alias: Option<Alias>) -> Outcome {
    let scope = device.scope.clone();
    let full = no_room(
        context.view.borrow().aliases.iter().map(|one| &one.scope),
        &scope,
    );
    if full && alias.is_some() {
        return Outcome::TooManyNames;
    }
    if !order(context, Command::Name(scope.clone(), alias.clone())).await {
        return Outcome::Busy;
    }
    let done = wait_until(context, PATIENCE, |view| {
        let now = view.aliases.iter().find(|one| one.scope == scope);
        (now.map(|one| &one.alias) == alias.as_ref()).then_some(())
    });
    if done.await.is_none() {
        return Outcome::NotNamed;
    }
    if alias.is_none() {
        return Outcome::Unnamed;
    }
    // The page that follows shows the link, if there will be one.
    let busid = &device.facts.busid;
    let linked = wait_until(context, PATIENCE, |view| {
        let attached = find(view, busid).is_some_and(|device| {
            matches!(device.state, DeviceState::Attached { silent: false, .. })
        });
        match &view.session {
            SessionView::Up { hello } if attached => {
                let can = hello.capabilities.iter().any(|can| can == CAN_ALIAS);
                let done = find(view, busid).is_some_and(|device| !device.links.is_empty());
                if done {
                    Some(true)
                } else {
                    (!can).then_some(false)
                }
            }
            _ => Some(true),
        }
    });
    match linked.await {
        Some(false) => Outcome::NamedOldHelper,
        Some(true) | None => Outcome::Named,
    }
}

/// `POST /devices/BUSID/rule`
pub(super) async fn rule(
    place: web::Path<Place>,
    ordered: web::Form<Ordered>,
    visitor: Visitor,
    context: web::Data<Context>,
) -> HttpResponse {
    let device = match shown_for(&context, &place.busid, ordered.devid) {
        Ok(device) => device,
        Err(outcome) => return answer(&context, &visitor, &place.busid, Some(outcome), None),
    };
    let scope = match ordered.about {
        // The form offers it only where there is one; the port stands for it otherwise.
        About::Serial => Scope::lasting(&device.facts),
        About::Port => Scope::port(&device.facts),
        About::Product => Scope::product(&device.facts),
    };
    let outcome = ruled(&context, scope, Some(ordered.ruling)).await;
    said(place.into_inner(), outcome).on_its_page()
}

pub(super) async fn ruled(context: &Context, scope: Scope, ruling: Option<Ruling>) -> Outcome {
    let full = no_room(
        context.view.borrow().rules.iter().map(|one| &one.scope),
        &scope,
    );
    if full && ruling.is_some() {
        return Outcome::TooManyRules;
    }
    if !order(context, Command::Rule(scope.clone(), ruling)).await {
        return Outcome::Busy;
    }
    let done = wait_until(context, PATIENCE, |view| {
        let now = view.rules.iter().find(|one| one.scope == scope);
        (now.map(|one| one.ruling) == ruling).then_some(())
    });
    match (done.await, ruling) {
        (None, _) => Outcome::Busy,
        (Some(()), Some(_)) => Outcome::Ruled,
        (Some(()), None) => Outcome::Unruled,
    }
}

/// `POST /names/forget`
pub(super) async fn forget_name(
    forgotten: web::Form<Forgotten>,
    context: web::Data<Context>,
) -> HttpResponse {
    let outcome = unnamed(&context, forgotten.into_inner().scope).await;
    outcome.on_dashboard()
}

/// Forget a name, whether its device is plugged in or not.
pub(super) async fn unnamed(context: &Context, scope: Scope) -> Outcome {
    if !order(context, Command::Name(scope.clone(), None)).await {
        return Outcome::Busy;
    }
    let done = wait_until(context, PATIENCE, |view| {
        let mut names = view.aliases.iter();
        names.all(|one| one.scope != scope).then_some(())
    });
    match done.await {
        Some(()) => Outcome::Unnamed,
        None => Outcome::Busy,
    }
}

/// `POST /rules/forget`
pub(super) async fn forget_rule(
    forgotten: web::Form<Forgotten>,
    context: web::Data<Context>,
) -> HttpResponse {
    let outcome = ruled(&context, forgotten.into_inner().scope, None).await;
    outcome.on_dashboard()
}

/// `POST /holds/forget`
pub(super) async fn forget_hold(
    forgotten: web::Form<Forgotten>,
    context: web::Data<Context>,
) -> HttpResponse {
    let outcome = released(&context, forgotten.into_inner().scope).await;
    outcome.on_dashboard()
}

/// Hold a board back no longer, whether it is plugged in or not.
pub(super) async fn released(context: &Context, scope: Scope) -> Outcome {
    if !order(context, Command::Release(scope.clone())).await {
        return Outcome::Busy;
    }
    let done = wait_until(context, PATIENCE, |view| {
        let mut holds = view.holds.iter();
        holds.all(|one| one.scope != scope).then_some(())
    });
    match done.await {
        Some(()) => Outcome::Released,
        None => Outcome::Busy,
    }
}

fn said(place: Place, outcome: Outcome) -> Said {
    Said {
        outcome,
        busid: Some(place.busid),
    }
}
