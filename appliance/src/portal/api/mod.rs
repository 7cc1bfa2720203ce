//! What programs may do, and the document that describes all of it.
//!
//! - this module: devices, names, rules and holds
//! - [`vm`]: the pairing
//!
//! Everything is done by the code that the portal's forms use. Errors are JSON with `error` and `remedy`.

pub(super) mod vm;

use std::borrow::Cow;

use actix_web::{
    HttpResponse,
    error::{InternalError, JsonPayloadError},
    http::{StatusCode, header},
    web,
};
use serde::{Deserialize, Serialize};

use super::{
    Context,
    action::{self, Outcome},
    device::{self, Forgotten, NameError},
    page::{chain, vm::status as refusal_status},
};
use crate::{
    manager::{Ruling, Scope, view::DeviceView},
    vm::{PublicKey, diagnosis::TooMany, pairing::PairError},
};

/// The OpenAPI 3.1 document. The tests compare it with what is answered.
const DOCUMENT: &str = include_str!("../../../api/openapi.json");

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
    #[error("no device is plugged in at {0}")]
    NoDevice(String),
    #[error("the appliance did not take the order")]
    Busy,
    #[error(transparent)]
    Name(#[from] NameError),
    #[error("{}", .0.sentence())]
    Undone(Outcome),
    #[error("{}", chain(.0))]
    Pairing(#[from] PairError),
    #[error(transparent)]
    Tests(#[from] TooMany),
    #[error("what was sent is not understood: {0}")]
    Body(String),
    #[error("what was sent has more than {0} bytes")]
    Large(usize),
}

impl Refusal {
    fn remedy(&self) -> Cow<'static, str> {
        match self {
            Self::Address | Self::Method(_) => "see /api/v1/openapi.json for what there is",
            Self::NoDevice(_) => "see /api/v1/status for what is plugged in",
            Self::Busy | Self::Tests(_) => "try again in a moment",
            Self::Name(_) => "choose another name",
            Self::Undone(_) => "see /api/v1/status for how it is now, and why",
            Self::Pairing(error) => return pairing_remedy(error).into(),
            Self::Body(_) | Self::Large(_) => {
                "send JSON as /api/v1/openapi.json says, with content-type: application/json"
            }
        }
        .into()
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::Address | Self::NoDevice(_) => StatusCode::NOT_FOUND,
            Self::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::Undone(_) => StatusCode::CONFLICT,
            Self::Name(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Body(_) => StatusCode::BAD_REQUEST,
            Self::Large(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Pairing(error) => refusal_status(error),
            Self::Busy | Self::Tests(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The answer.
    pub(super) fn answer(&self) -> HttpResponse {
        refuse(self.status(), &self.to_string(), &self.remedy())
    }
}

/// What helps where the pairing stays as it was.
fn pairing_remedy(error: &PairError) -> String {
    match error {
        PairError::Conf(error) => error.remedy(),
        PairError::HostKey(_) => {
            "see that the VM runs, that its SSH server does, and that its name or address is right"
                .to_owned()
        }
        PairError::Unconfirmed { shown } | PairError::Changed { shown, .. } => {
            let shown: Vec<String> = shown.iter().map(PublicKey::fingerprint).collect();
            format!(
                "compare with the VM's own host keys, and send as `confirmed` those that are right of {}",
                shown.join(" ")
            )
        }
        PairError::Replaces { .. } => {
            "send that pairing's host and user as `replaces`, if it may end".to_owned()
        }
        PairError::Busy | PairError::Task(_) => "try again in a moment".to_owned(),
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
    answer(came(action::attached_all(&context).await))
}

/// `POST /api/v1/devices/BUSID/attach`
pub(super) async fn attach_one(
    context: web::Data<Context>,
    busid: web::Path<String>,
) -> HttpResponse {
    let taken = async {
        let facts = device_at(&context, &busid)?.facts;
        came(device::attached(&context, &facts.busid, facts.devid).await)
    };
    answer(taken.await)
}

/// `POST /api/v1/devices/BUSID/detach`
pub(super) async fn detach_one(
    context: web::Data<Context>,
    busid: web::Path<String>,
) -> HttpResponse {
    let taken = async {
        let facts = device_at(&context, &busid)?.facts;
        came(device::detached(&context, &facts.busid, facts.devid).await)
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
            let refusal = match &error {
                JsonPayloadError::Overflow { limit }
                | JsonPayloadError::OverflowKnownLength { limit, .. } => Refusal::Large(*limit),
                other => Refusal::Body(other.to_string()),
            };
            InternalError::from_response(error, refusal.answer()).into()
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

/// `POST /api/v1/names/forget`
pub(super) async fn forget_name(
    context: web::Data<Context>,
    forgotten: web::Json<Forgotten>,
) -> HttpResponse {
    let scope = forgotten.into_inner().scope;
    answer(came(device::unnamed(&context, scope).await))
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

/// `POST /api/v1/holds/forget`
pub(super) async fn forget_hold(
    context: web::Data<Context>,
    forgotten: web::Json<Forgotten>,
) -> HttpResponse {
    let scope = forgotten.into_inner().scope;
    answer(came(device::released(&context, scope).await))
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

fn answer(taken: Result<Taken, Refusal>) -> HttpResponse {
    match taken {
        Ok(taken) => HttpResponse::Accepted()
            .insert_header((header::CACHE_CONTROL, "no-store"))
            .json(taken),
        Err(refusal) => refusal.answer(),
    }
}
