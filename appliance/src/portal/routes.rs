//! Which handler answers what.

use actix_web::{
    HttpRequest, HttpResponse, Resource, guard,
    http::header,
    web::{self, ServiceConfig},
};

use protocol::join::MAX_MESSAGE;

use super::join::handlers as join;
use super::{
    account, action, api, assets, device, download, entry, guard::visitor::Visitor, history, live,
    log, machine, metrics, page, pairing,
};

/// Largest body of a request, in bytes; the largest form has a few short fields.
const LARGEST_BODY: usize = 4096;

/// All routes.
pub(super) fn configure(config: &mut ServiceConfig) {
    config
        .app_data(web::PayloadConfig::new(LARGEST_BODY))
        .app_data(web::FormConfig::default().limit(LARGEST_BODY))
        .app_data(api::bodies(LARGEST_BODY))
        .service(
            page_and_form_at("/claim")
                .route(reading().to(entry::claim_page))
                .route(web::post().to(entry::claim)),
        )
        .service(
            page_and_form_at("/sign-in")
                .route(reading().to(entry::sign_in_page))
                .route(web::post().to(entry::sign_in)),
        )
        .service(form_at("/sign-out").route(web::post().to(entry::sign_out)))
        .service(page_at("/account").route(reading().to(account::show)))
        .service(form_at("/account/password").route(web::post().to(account::password)))
        .service(form_at("/account/sessions/end").route(web::post().to(account::end_session)))
        .service(
            form_at("/account/sessions/end-all").route(web::post().to(account::end_all_sessions)),
        )
        .service(form_at("/account/tokens").route(web::post().to(account::make_token)))
        .service(form_at("/account/tokens/remove").route(web::post().to(account::remove_token)))
        .service(page_at("/").route(reading().to(page::dashboard)))
        .service(form_at("/attach-all").route(web::post().to(action::attach_all)))
        .service(page_at("/devices/{busid}").route(reading().to(device::show)))
        .service(form_at("/devices/{busid}/attach").route(web::post().to(device::attach)))
        .service(form_at("/devices/{busid}/detach").route(web::post().to(device::detach)))
        .service(form_at("/devices/{busid}/power-cycle").route(web::post().to(device::power_cycle)))
        .service(form_at("/devices/{busid}/rename").route(web::post().to(device::rename)))
        .service(form_at("/devices/{busid}/rule").route(web::post().to(device::rule)))
        .service(form_at("/names/forget").route(web::post().to(device::forget_name)))
        .service(form_at("/rules/forget").route(web::post().to(device::forget_rule)))
        .service(form_at("/holds/forget").route(web::post().to(device::forget_hold)))
        .service(page_at("/vm").route(reading().to(pairing::show)))
        .service(page_at("/vm/events").route(web::get().to(pairing::events)))
        .service(form_at("/vm/test").route(web::post().to(pairing::test)))
        .service(form_at("/vm/key").route(web::post().to(pairing::bring_key)))
        .service(form_at("/vm/pair").route(web::post().to(pairing::pair)))
        .service(
            page_at("/vm/disconnect")
                .route(reading().to(pairing::ask_to_part))
                .route(web::post().to(pairing::part)),
        )
        .service(page_at("/history").route(reading().to(history::show)))
        .service(page_at("/history.csv").route(reading().to(history::csv)))
        .service(page_at("/history.json").route(reading().to(history::json)))
        .service(
            page_and_form_at("/vm/join")
                .route(reading().to(join::show))
                .route(web::post().to(join::make)),
        )
        .service(
            page_and_form_at("/join/{token}")
                .app_data(web::PayloadConfig::new(MAX_MESSAGE))
                .route(reading().to(join::fetch))
                .route(web::post().to(join::report)),
        )
        .service(page_at("/join/{token}/invitation").route(reading().to(join::invite)))
        .service(page_at("/events").route(web::get().to(live::events)))
        .service(page_at("/assets/{name}").route(reading().to(assets::get)))
        .service(page_at("/downloads").route(reading().to(page::downloads::page)))
        .service(page_at("/packages/{name}").route(reading().to(download::get)))
        .service(page_at("/log").route(reading().to(log::show)))
        .service(page_at("/log/events").route(web::get().to(log::events)))
        .service(page_at("/healthz").route(reading().to(machine::healthz)))
        .service(page_at("/metrics").route(reading().to(metrics::metrics)))
        .service(page_at("/api/v1/status").route(reading().to(machine::status)))
        .service(page_at("/api/v1/events").route(reading().to(history::events)))
        .service(page_at("/api/v1/devices").route(reading().to(history::devices)))
        .service(page_at("/api/v1/openapi.json").route(reading().to(api::document)))
        .service(form_at("/api/v1/attach-all").route(web::post().to(api::attach_all)))
        .service(form_at("/api/v1/devices/{busid}/attach").route(web::post().to(api::attach_one)))
        .service(form_at("/api/v1/devices/{busid}/detach").route(web::post().to(api::detach_one)))
        .service(
            form_at("/api/v1/devices/{busid}/power-cycle").route(web::post().to(api::power_cycle)),
        )
        .service(form_at("/api/v1/devices/{busid}/rename").route(web::post().to(api::rename)))
        .service(form_at("/api/v1/names/forget").route(web::post().to(api::forget_name)))
        .service(form_at("/api/v1/vm/test").route(web::post().to(api::vm::test)))
        .service(form_at("/api/v1/vm/pair").route(web::post().to(api::vm::pair)))
        .service(form_at("/api/v1/vm/disconnect").route(web::post().to(api::vm::part)))
        .service(form_at("/api/v1/rules").route(web::post().to(api::rule)))
        .service(form_at("/api/v1/rules/forget").route(web::post().to(api::forget_rule)))
        .service(form_at("/api/v1/holds/forget").route(web::post().to(api::forget_hold)))
        .default_service(web::to(nothing));
}

fn reading() -> actix_web::Route {
    web::route().guard(guard::Any(guard::Get()).or(guard::Head()))
}

/// Something that can only be read.
fn page_at(path: &str) -> Resource {
    web::resource(path).default_service(web::to(async |request: HttpRequest| {
        wrong_method(&request, "GET, HEAD")
    }))
}

/// Something that changes something.
fn form_at(path: &str) -> Resource {
    web::resource(path).default_service(web::to(async |request: HttpRequest| {
        wrong_method(&request, "POST")
    }))
}

/// Something that can be read, and changes something.
fn page_and_form_at(path: &str) -> Resource {
    web::resource(path).default_service(web::to(async |request: HttpRequest| {
        wrong_method(&request, "GET, HEAD, POST")
    }))
}

/// The answer where there is nothing.
async fn nothing(request: HttpRequest, visitor: Option<Visitor>) -> HttpResponse {
    if is_for_programs(&request) {
        api::Refusal::Address.answer()
    } else {
        page::not_found(visitor.as_ref())
    }
}

fn wrong_method(request: &HttpRequest, allowed: &'static str) -> HttpResponse {
    let mut response = if is_for_programs(request) {
        api::Refusal::Method(allowed).answer()
    } else {
        HttpResponse::MethodNotAllowed()
            .content_type("text/plain; charset=utf-8")
            .body(format!("This address takes {allowed} only.\n"))
    };
    let allow = header::HeaderValue::from_static(allowed);
    response.headers_mut().insert(header::ALLOW, allow);
    response
}

fn is_for_programs(request: &HttpRequest) -> bool {
    request.path().starts_with("/api/")
}
