//! Claiming, signing in and out.

use std::net::{IpAddr, Ipv4Addr};

use actix_web::{
    HttpRequest, HttpResponse,
    http::{
        StatusCode,
        header::{self, HeaderValue},
    },
    web,
};
use maud::Markup;
use serde::Deserialize;

use super::{
    Context,
    guard::visitor::{Visitor, cookie, no_cookie, own_path},
    page::{entry as page, reply},
};
use crate::access::{AccessError, Door, Secret};

/// A form's fields; what is missing is empty, and then refused with a sentence.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Claim {
    password: String,
    again: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct SignIn {
    password: String,
    r#return: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Return {
    r#return: String,
    again: String,
}

/// `GET /claim`
pub(super) async fn claim_page(context: web::Data<Context>) -> HttpResponse {
    claim_answer(&context, None)
}

/// `POST /claim`
pub(super) async fn claim(
    request: HttpRequest,
    context: web::Data<Context>,
    form: web::Form<Claim>,
) -> HttpResponse {
    let Claim { password, again } = form.into_inner();
    match context.access.claim(peer(&request), password, &again).await {
        Ok(token) => signed_in("/", &token),
        Err(error) => claim_answer(&context, Some(&error)),
    }
}

fn claim_answer(context: &Context, wrong: Option<&AccessError>) -> HttpResponse {
    match context.access.door() {
        Door::Claim(left) => answer(wrong, &page::claim(left, wrong)),
        Door::Over => answer(wrong, &page::over(context.access.notice().as_deref())),
        Door::SignIn | Door::Broken(_) => see("/sign-in"),
    }
}

/// `GET /sign-in`
pub(super) async fn sign_in_page(
    request: HttpRequest,
    context: web::Data<Context>,
    query: web::Query<Return>,
    visitor: Option<Visitor>,
) -> HttpResponse {
    let site = request.headers().get("sec-fetch-site");
    match visitor {
        Some(_) => see(own_path(&query.r#return)),
        // A link on a foreign page brings no cookie along; the portal's own page does.
        None if site.is_some_and(|site| site == "cross-site") && query.again.is_empty() => {
            let mut fields = form_urlencoded::Serializer::new(String::new());
            fields.append_pair("return", own_path(&query.r#return));
            let next = fields.append_pair("again", "1").finish();
            let page = page::once_more(&format!("/sign-in?{next}"));
            answer(None, &page)
        }
        None => sign_in_answer(&context, &query.r#return, None),
    }
}

/// `POST /sign-in`
pub(super) async fn sign_in(
    request: HttpRequest,
    context: web::Data<Context>,
    form: web::Form<SignIn>,
) -> HttpResponse {
    let form = form.into_inner();
    match context.access.sign_in(peer(&request), form.password).await {
        Ok(token) => signed_in(own_path(&form.r#return), &token),
        Err(error) => sign_in_answer(&context, &form.r#return, Some(&error)),
    }
}

fn sign_in_answer(context: &Context, back: &str, wrong: Option<&AccessError>) -> HttpResponse {
    match context.access.door() {
        Door::Claim(_) | Door::Over => see("/claim"),
        Door::Broken(why) => answer(wrong, &page::broken(&why)),
        Door::SignIn => {
            let notice = context.access.notice();
            answer(
                wrong,
                &page::sign_in(own_path(back), notice.as_deref(), wrong),
            )
        }
    }
}

/// `POST /sign-out`
pub(super) async fn sign_out(context: web::Data<Context>, visitor: Visitor) -> HttpResponse {
    context.access.sign_out(&visitor.key).await;
    HttpResponse::SeeOther()
        .insert_header((header::LOCATION, "/sign-in"))
        .insert_header(no_cookie())
        .finish()
}

/// A page that says why somebody was not let in, or a page where nothing went wrong.
pub(super) fn answer(wrong: Option<&AccessError>, page: &Markup) -> HttpResponse {
    let mut response = reply(wrong.map_or(StatusCode::OK, status), page);
    let wait = match wrong {
        Some(AccessError::TooMany(wait)) => wait.as_secs(),
        Some(AccessError::Busy) => 2,
        _ => return response,
    };
    let headers = response.headers_mut();
    headers.insert(header::RETRY_AFTER, HeaderValue::from(wait));
    response
}

fn status(error: &AccessError) -> StatusCode {
    match error {
        AccessError::TooShort(_)
        | AccessError::TooLong
        | AccessError::Differ
        | AccessError::Name(_) => StatusCode::UNPROCESSABLE_ENTITY,
        AccessError::Claimed
        | AccessError::NotClaimed
        | AccessError::Over
        | AccessError::SameName
        | AccessError::TooManyTokens(_) => StatusCode::CONFLICT,
        AccessError::Wrong => StatusCode::FORBIDDEN,
        AccessError::TooMany(_) => StatusCode::TOO_MANY_REQUESTS,
        AccessError::Busy => StatusCode::SERVICE_UNAVAILABLE,
        AccessError::Broken(_)
        | AccessError::Write { .. }
        | AccessError::Random(_)
        | AccessError::Hash(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The address that a request came from.
pub(super) fn peer(request: &HttpRequest) -> IpAddr {
    // Every request over TCP has one.
    request
        .peer_addr()
        .map_or(Ipv4Addr::UNSPECIFIED.into(), |peer| peer.ip())
}

fn signed_in(back: &str, token: &Secret) -> HttpResponse {
    HttpResponse::SeeOther()
        .insert_header((header::LOCATION, back))
        .insert_header(cookie(token))
        .finish()
}

fn see(location: &str) -> HttpResponse {
    HttpResponse::SeeOther()
        .insert_header((header::LOCATION, location))
        .finish()
}
