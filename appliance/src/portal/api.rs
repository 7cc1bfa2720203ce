//! What programs may do, and the document that describes all of it.
//!
//! Errors are JSON with `error` and `remedy`.

use std::time::Duration;

use actix_web::{
    HttpResponse,
    http::{StatusCode, header},
    web,
};
use protocol::BusId;
use serde::Serialize;
use tokio::time::timeout;

use super::Context;
use crate::manager::{
    Command,
    view::{DeviceState, SessionView},
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
}

impl Refusal {
    fn remedy(&self) -> &'static str {
        match self {
            Self::Address | Self::Method(_) => "see /api/v1/openapi.json for what there is",
            Self::NotPaired => "pair one in the portal",
            Self::NoDevice(_) => "see /api/v1/status for what is plugged in",
            Self::Skipped { .. } => "make a rule for it in the portal, if it is to be exported",
            Self::Busy => "try again in a moment",
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::Address | Self::NoDevice(_) => StatusCode::NOT_FOUND,
            Self::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::NotPaired | Self::Skipped { .. } => StatusCode::CONFLICT,
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

/// The device at that busid, unless it is one that is left alone.
fn plugged_in(context: &Context, busid: &str) -> Result<BusId, Refusal> {
    let view = context.view.borrow();
    let mut devices = view.devices.iter();
    let device = devices.find(|device| device.facts.busid.as_str() == busid);
    match device {
        None => Err(Refusal::NoDevice(busid.chars().take(40).collect())),
        Some(device) => match &device.state {
            DeviceState::Skipped { why } => Err(Refusal::Skipped {
                busid: device.facts.busid.clone(),
                why: why.clone(),
            }),
            _ => Ok(device.facts.busid.clone()),
        },
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
