//! What programs may do, and the document that describes all of it.
//!
//! Errors are JSON with `error` and `remedy`.

use std::time::Duration;

use actix_web::{
    HttpResponse,
    error::InternalError,
    http::{StatusCode, header},
    web,
};
use protocol::BusId;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::{
    Context,
    action::Outcome,
    device::{self, Forgotten, NameError},
};
use crate::manager::{
    Command, Ruling, Scope,
    view::{DeviceState, DeviceView, SessionView},
};

/// The OpenAPI 3.1 document. The tests compare it with what is answered.
const DOCUMENT: &str = include_str!("../../api/openapi.json");

/// How long a command may wait for the manager.
const BUSY: Duration = Duration::from_secs(2);

/// An action that was taken.
#[derive(Debug, Serialize)]
struct Taken {
    outcome: &'static str,
    message: &'static str,
}

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("there is nothing at this address")]
    Address,
    #[error("this address takes {0} only")]
    Method(&'static str),
    #[error("no VM is paired")]
    NotPaired,
    #[error("no device is plugged in at {0}")]
    NoDevice(String),
    #[error("the device at {busid} is left alone: {why}")]
    Skipped { busid: BusId, why: String },
    #[error("the appliance did not take the order")]
    Busy,
    #[error(transparent)]
    Name(#[from] NameError),
    #[error("{}", .0.sentence())]
    Undone(Outcome),
    #[error("what was sent is not understood: {0}")]
    Body(String),
}

impl Refusal {
    fn remedy(&self) -> &'static str {
        match self {
            Self::Address | Self::Method(_) => "see /api/v1/openapi.json for what there is",
            Self::NotPaired => "pair one in the portal",
            Self::NoDevice(_) => "see /api/v1/status for what is plugged in",
            Self::Skipped { .. } => "make a rule for it in the portal, if it is to be exported",
            Self::Busy => "try again in a moment",
            Self::Name(_) => "choose another name",
            Self::Undone(_) => "see /api/v1/status for how it is now, and why",
            Self::Body(_) => {
                "send JSON as /api/v1/openapi.json says, with content-type: application/json"
            }
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::Address | Self::NoDevice(_) => StatusCode::NOT_FOUND,
            Self::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::NotPaired | Self::Skipped { .. } | Self::Undone(_) => StatusCode::CONFLICT,
            Self::Name(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Body(_) => StatusCode::BAD_REQUEST,
            Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The answer.
    pub(super) fn answer(&self) -> HttpResponse {
        refuse(self.status(), &self.to_string(), self.remedy())
    }
}

/// An answer that says why something was not done.
pub(super) fn refuse(status: StatusCode, error: &str, remedy: &str) -> HttpResponse {
    #[derive(Serialize)]
    struct Body<'a> {
        error: &'a str,
        remedy: &'a str,
    }
    HttpResponse::build(status)
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .json(Body { error, remedy })
}

/// `GET /api/v1/openapi.json`
pub(super) async fn document() -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .content_type("application/json")
        .body(DOCUMENT)
}

/// `POST /api/v1/attach-all`
pub(super) async fn attach_all(context: web::Data<Context>) -> HttpResponse {
    let taken = attach(&context, Command::AttachAll).await;
    answer(taken)
}

/// `POST /api/v1/devices/BUSID/attach`
pub(super) async fn attach_one(
    context: web::Data<Context>,
    busid: web::Path<String>,
) -> HttpResponse {
    let taken = async {
        let busid = plugged_in(&context, &busid)?;
        attach(&context, Command::Attach(busid, None)).await
    };
    answer(taken.await)
}

/// `POST /api/v1/devices/BUSID/detach`
pub(super) async fn detach_one(
    context: web::Data<Context>,
    busid: web::Path<String>,
) -> HttpResponse {
    let taken = async {
        let busid = plugged_in(&context, &busid)?;
        order(&context, Command::Detach(busid, None)).await?;
        Ok(Taken {
            outcome: "detaching",
            message: "it is being detached, and stays on the Pi until somebody attaches it",
        })
    };
    answer(taken.await)
}

/// A device's new name; empty takes it away.
#[derive(Debug, Deserialize)]
pub(super) struct Naming {
    name: String,
}

/// A rule to be made.
#[derive(Debug, Deserialize)]
pub(super) struct Ordered {
    scope: Scope,
    ruling: Ruling,
}

/// How bodies are read; what is wrong with one is said as everything else is.
pub(super) fn bodies(largest: usize) -> web::JsonConfig {
    web::JsonConfig::default()
        .limit(largest)
        .error_handler(|error, _| {
            let response = Refusal::Body(error.to_string()).answer();
            InternalError::from_response(error, response).into()
        })
}

/// `POST /api/v1/devices/BUSID/power-cycle`
pub(super) async fn power_cycle(
    context: web::Data<Context>,
    busid: web::Path<String>,
) -> HttpResponse {
    let taken = async {
        let facts = device_at(&context, &busid)?.facts;
        came(device::cycled(&context, &facts.busid, facts.devid).await)
    };
    answer(taken.await)
}

/// `POST /api/v1/devices/BUSID/rename`
pub(super) async fn rename(
    context: web::Data<Context>,
    busid: web::Path<String>,
    naming: web::Json<Naming>,
) -> HttpResponse {
    let taken = async {
        let device = device_at(&context, &busid)?;
        came(device::renamed(&context, &device, &naming.name).await?)
    };
    answer(taken.await)
}

/// `POST /api/v1/rules`
pub(super) async fn rule(context: web::Data<Context>, ordered: web::Json<Ordered>) -> HttpResponse {
    let Ordered { scope, ruling } = ordered.into_inner();
    answer(came(device::ruled(&context, scope, Some(ruling)).await))
}

/// `POST /api/v1/rules/forget`
pub(super) async fn forget_rule(
    context: web::Data<Context>,
    forgotten: web::Json<Forgotten>,
) -> HttpResponse {
    let scope = forgotten.into_inner().scope;
    answer(came(device::ruled(&context, scope, None).await))
}

/// What came of an order, for a program.
fn came(outcome: Outcome) -> Result<Taken, Refusal> {
    match outcome {
        Outcome::Busy => Err(Refusal::Busy),
        good if good.is_good() => Ok(Taken {
            outcome: good.word(),
            message: good.sentence(),
        }),
        bad => Err(Refusal::Undone(bad)),
    }
}

/// The device at that busid.
fn device_at(context: &Context, busid: &str) -> Result<DeviceView, Refusal> {
    let view = context.view.borrow();
    let mut devices = view.devices.iter();
    let device = devices.find(|device| device.facts.busid.as_str() == busid);
    let none = || Refusal::NoDevice(busid.chars().take(40).collect());
    device.cloned().ok_or_else(none)
}

/// The same, unless it is one that is left alone.
fn plugged_in(context: &Context, busid: &str) -> Result<BusId, Refusal> {
    let device = device_at(context, busid)?;
    let busid = device.facts.busid;
    match device.state {
        DeviceState::Skipped { why } => Err(Refusal::Skipped { busid, why }),
        _ => Ok(busid),
    }
}

async fn attach(context: &Context, command: Command) -> Result<Taken, Refusal> {
    if context.view.borrow().session == SessionView::NotPaired {
        return Err(Refusal::NotPaired);
    }
    order(context, command).await?;
    Ok(match context.view.borrow().session {
        SessionView::Up { .. } => Taken {
            outcome: "attaching",
            message: "attaching begins",
        },
        SessionView::Down { .. } | SessionView::NotPaired => Taken {
            outcome: "later",
            message: "the VM does not answer now; attaching begins when it does",
        },
    })
}

async fn order(context: &Context, command: Command) -> Result<(), Refusal> {
    match timeout(BUSY, context.commands.send(command)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(Refusal::Busy),
    }
}

fn answer(taken: Result<Taken, Refusal>) -> HttpResponse {
    match taken {
        Ok(taken) => HttpResponse::Accepted()
            .insert_header((header::CACHE_CONTROL, "no-store"))
            .json(taken),
        Err(refusal) => refusal.answer(),
    }
}
