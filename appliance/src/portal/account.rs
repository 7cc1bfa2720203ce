//! What one can do about one's access, on the account page.

use actix_web::{HttpRequest, HttpResponse, http::header, web};
use serde::Deserialize;

use super::{
    Context,
    entry::{answer, peer},
    guard::visitor::{Visitor, no_cookie},
    page::account::{self as page, Note},
};
use crate::access::from_hex;

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct NewPassword {
    old: String,
    password: String,
    again: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Named {
    name: String,
}

/// A session or token by its digest in hex.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Chosen {
    key: String,
}

/// `GET /account`
pub(super) async fn show(
    request: HttpRequest,
    context: web::Data<Context>,
    visitor: Visitor,
) -> HttpResponse {
    let note = match request.query_string() {
        "outcome=password" => Note::Done(
            "The password was changed, and every other browser signed out. Programs keep their tokens.",
        ),
        "outcome=session" => Note::Done("That browser is signed out."),
        "outcome=token" => Note::Done("That token lets nobody in any more."),
        _ => Note::None,
    };
    answer(None, &page::page(&context.access, &visitor, &note))
}

/// `POST /account/password`
pub(super) async fn password(
    request: HttpRequest,
    context: web::Data<Context>,
    visitor: Visitor,
    form: web::Form<NewPassword>,
) -> HttpResponse {
    let form = form.into_inner();
    let access = &context.access;
    let changed = access
        .change_password(
            visitor.key,
            peer(&request),
            form.old,
            form.password,
            &form.again,
        )
        .await;
    match changed {
        Ok(()) => back("password"),
        Err(error) => {
            let page = page::page(access, &visitor, &Note::Password(&error));
            answer(Some(&error), &page)
        }
    }
}

/// `POST /account/sessions/end`
pub(super) async fn end_session(
    context: web::Data<Context>,
    form: web::Form<Chosen>,
) -> HttpResponse {
    if let Some(key) = from_hex(&form.key) {
        context.access.sign_out(&key).await;
    }
    // Whoever ended their own session is led on to where one signs in.
    back("session")
}

/// `POST /account/sessions/end-all`
pub(super) async fn end_all_sessions(context: web::Data<Context>) -> HttpResponse {
    context.access.sign_out_everywhere().await;
    HttpResponse::SeeOther()
        .insert_header((header::LOCATION, "/sign-in"))
        .insert_header(no_cookie())
        .finish()
}

/// `POST /account/tokens`. The answer is the only one that contains the token.
pub(super) async fn make_token(
    request: HttpRequest,
    context: web::Data<Context>,
    visitor: Visitor,
    form: web::Form<Named>,
) -> HttpResponse {
    let access = &context.access;
    match access.make_token(peer(&request), &form.name).await {
        Ok(token) => {
            let note = Note::Token(form.name.trim(), &token);
            answer(None, &page::page(access, &visitor, &note))
        }
        Err(error) => {
            let note = Note::NoToken(&form.name, &error);
            answer(Some(&error), &page::page(access, &visitor, &note))
        }
    }
}

/// `POST /account/tokens/remove`
pub(super) async fn remove_token(
    request: HttpRequest,
    context: web::Data<Context>,
    form: web::Form<Chosen>,
) -> HttpResponse {
    if let Some(key) = from_hex(&form.key) {
        context.access.remove_token(peer(&request), &key).await;
    }
    back("token")
}

fn back(outcome: &str) -> HttpResponse {
    HttpResponse::SeeOther()
        .insert_header((header::LOCATION, format!("/account?outcome={outcome}")))
        .finish()
}
