//! What programs may do about the pairing: the same as the forms on the page about the VM.

use actix_web::{HttpRequest, HttpResponse, http::header, web};
use serde::{Deserialize, Serialize};

use super::{
    super::{Context, pairing},
    Refusal, Taken, answer,
};
use crate::vm::{
    Pairing, PublicKey, conf,
    diagnosis::Report,
    pairing::{PairError, SetUp},
};

/// A pairing to be made.
#[derive(Debug, Deserialize)]
pub(in super::super) struct Wanted {
    #[serde(flatten)]
    pairing: Pairing,
    /// Fingerprints of host keys that are right.
    #[serde(default)]
    confirmed: Vec<String>,
    /// The pairing that may end.
    #[serde(default)]
    replaces: Option<Pairing>,
}

/// `POST /api/v1/vm/test`: begins a test, or joins the one that runs, and answers when it is over.
pub(in super::super) async fn test(
    context: web::Data<Context>,
    target: web::Json<Pairing>,
) -> HttpResponse {
    match tested(&context, target.into_inner()).await {
        Ok(response) => response,
        Err(refusal) => refusal.answer(),
    }
}

async fn tested(context: &Context, target: Pairing) -> Result<HttpResponse, Refusal> {
    #[derive(Serialize)]
    struct Tested<'a> {
        #[serde(flatten)]
        report: &'a Report,
        fingerprints: Vec<String>,
    }
    conf::check(&target).map_err(PairError::from)?;
    let diagnoses = &context.pairer.diagnoses;
    let mut news = diagnoses.news();
    diagnoses.start(target.clone())?;
    loop {
        news.borrow_and_update();
        // One that is gone was pushed out by others.
        let report = diagnoses.latest(&target).ok_or(Refusal::Busy)?;
        if report.done {
            let fingerprints = report.shown.iter().map(PublicKey::fingerprint).collect();
            return Ok(HttpResponse::Ok()
                .insert_header((header::CACHE_CONTROL, "no-store"))
                .json(Tested {
                    report: &report,
                    fingerprints,
                }));
        }
        news.changed().await.map_err(|_| Refusal::Busy)?;
    }
}

/// `POST /api/v1/vm/pair`
pub(in super::super) async fn pair(
    request: HttpRequest,
    context: web::Data<Context>,
    wanted: web::Json<Wanted>,
) -> HttpResponse {
    let Wanted {
        pairing,
        confirmed,
        replaces,
    } = wanted.into_inner();
    let order = SetUp {
        pairing,
        confirmed,
        replaces,
    };
    let paired = pairing::set_up(&context, &request, order).await;
    answer(paired.map_err(Refusal::from).map(|()| Taken {
        outcome: "paired",
        message: "Paired. The Pi connects and attaches every serial device.",
    }))
}

/// `POST /api/v1/vm/disconnect`
pub(in super::super) async fn part(
    request: HttpRequest,
    context: web::Data<Context>,
) -> HttpResponse {
    let parted = pairing::end(&context, &request).await;
    answer(parted.map_err(Refusal::from).map(|parted| Taken {
        outcome: parted.word(),
        message: parted.sentence(),
    }))
}
