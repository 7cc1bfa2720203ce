//! Which handler answers what.

use actix_web::{
    HttpResponse, Resource, guard,
    http::header,
    web::{self, ServiceConfig},
};

use super::{
    account, action, assets, download, entry, guard::visitor::Visitor, history, live, machine,
    page, pairing,
};

/// Largest body of a request, in bytes; the largest form has a few short fields.
const LARGEST_BODY: usize = 4096;

/// All routes.
pub(super) fn configure(config: &mut ServiceConfig) {
    config
        .app_data(web::PayloadConfig::new(LARGEST_BODY))
        .app_data(web::FormConfig::default().limit(LARGEST_BODY))
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
        .service(page_at("/vm").route(reading().to(pairing::show)))
        .service(form_at("/vm/pair").route(web::post().to(pairing::pair)))
        .service(
            page_at("/vm/disconnect")
                .route(reading().to(pairing::ask_to_part))
                .route(web::post().to(pairing::part)),
        )
        .service(page_at("/history").route(reading().to(history::show)))
        .service(page_at("/history.csv").route(reading().to(history::csv)))
        .service(page_at("/history.json").route(reading().to(history::json)))
        .service(page_at("/events").route(web::get().to(live::events)))
        .service(page_at("/assets/{name}").route(reading().to(assets::get)))
        .service(page_at("/downloads").route(reading().to(page::downloads::page)))
        .service(page_at("/packages/{name}").route(reading().to(download::get)))
        .service(page_at("/healthz").route(reading().to(machine::healthz)))
        .service(page_at("/api/v1/status").route(reading().to(machine::status)))
        .service(page_at("/api/v1/events").route(reading().to(history::events)))
        .service(page_at("/api/v1/devices").route(reading().to(history::devices)))
        .default_service(web::to(async |visitor: Visitor| {
            page::not_found(Some(&visitor))
        }));
}

fn reading() -> actix_web::Route {
    web::route().guard(guard::Any(guard::Get()).or(guard::Head()))
}

/// Something that can only be read.
fn page_at(path: &str) -> Resource {
    web::resource(path).default_service(web::to(async || wrong_method("GET, HEAD")))
}

/// Something that changes something.
fn form_at(path: &str) -> Resource {
    web::resource(path).default_service(web::to(async || wrong_method("POST")))
}

/// Something that can be read, and changes something.
fn page_and_form_at(path: &str) -> Resource {
    web::resource(path).default_service(web::to(async || wrong_method("GET, HEAD, POST")))
}

fn wrong_method(allowed: &'static str) -> HttpResponse {
    HttpResponse::MethodNotAllowed()
        .insert_header((header::ALLOW, allowed))
        .content_type("text/plain; charset=utf-8")
        .body(format!("This address takes {allowed} only.\n"))
}
