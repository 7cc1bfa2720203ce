//! What programs ask for.

use actix_web::{HttpResponse, http::header, web};

use super::Context;

/// `GET /healthz`
pub(super) async fn healthz(context: web::Data<Context>) -> HttpResponse {
    let (mut response, word) = if (context.alive)() {
        (HttpResponse::Ok(), "ok\n")
    } else {
        let response = HttpResponse::ServiceUnavailable();
        (response, "the manager does not answer\n")
    };
    response
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .content_type("text/plain; charset=utf-8")
        .body(word)
}

/// `GET /api/v1/status`: [`crate::manager::View`] as JSON, names in snake case, enums as their
/// name or tagged by it. Texts from devices are as the device sent them.
pub(super) async fn status(context: web::Data<Context>) -> HttpResponse {
    let view = context.view.borrow().clone();
    HttpResponse::Ok()
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .json(&*view)
}
