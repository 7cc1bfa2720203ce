//! Claiming and signing in.

use std::time::Duration;

use actix_web::{
    HttpResponse,
    http::{StatusCode, header},
};
use maud::{Markup, html};

use super::{super::api::refuse, frame, reply};
use crate::access::{AccessError, Door};

/// The first visit: choosing a password.
pub(in super::super) fn claim(left: Duration, wrong: Option<&AccessError>) -> Markup {
    frame::bare(
        "Choose a password",
        &html! {
            section.card.entry {
                h2 { "This Pi is new: choose a password" }
                (complaint(wrong))
                p.why {
                    "Whoever has it can decide where the devices on this Pi go. It needs at least "
                    "10 characters; four unrelated words are easy to remember."
                }
                form method="post" action="/claim" {
                    (password("password", "Password", "new-password", true))
                    (password("again", "The same again", "new-password", false))
                    button type="submit" { "Claim this Pi" }
                }
                p.quiet { "Possible for " (minutes(left)) " more. After that a restart of the Pi opens this form again." }
            }
        },
    )
}

/// The time for claiming is over.
pub(in super::super) fn over(notice: Option<&str>) -> Markup {
    frame::bare(
        "Restart the Pi",
        &html! {
            (frame_notice(notice))
            section.card.entry {
                h2 { "This Pi waits to be claimed" }
                p.why { "It can be claimed only within 30 minutes of its start, and that time is over." }
                p.remedy { "Restart the Pi (pull its plug and put it back), then reload this page." }
                p.quiet { "Devices of a VM that is already paired work meanwhile." }
            }
        },
    )
}

/// Signing in; returns to that page then.
pub(in super::super) fn sign_in(
    back: &str,
    notice: Option<&str>,
    wrong: Option<&AccessError>,
) -> Markup {
    frame::bare(
        "Sign in",
        &html! {
            (frame_notice(notice))
            section.card.entry {
                h2 { "Sign in" }
                (complaint(wrong))
                form method="post" action="/sign-in" {
                    input type="hidden" name="return" value=(back);
                    (password("password", "Password", "current-password", true))
                    button type="submit" { "Sign in" }
                }
                details {
                    summary { "Forgotten the password?" }
                    p {
                        "Switch the Pi off, put its SD card into a computer, and make an empty file named "
                        code { "reset-password" } " on the card’s boot partition. With the card back in the Pi, "
                        "switch it on and choose a new password within 30 minutes. The pairing and the history stay."
                    }
                }
            }
        },
    )
}

/// Leads to that address by itself.
pub(in super::super) fn once_more(address: &str) -> Markup {
    frame::bare(
        "Sign in",
        &html! {
            meta http-equiv="refresh" content={ "0; url=" (address) };
            p { a href=(address) { "Go on" } }
        },
    )
}

/// Nobody can sign in.
pub(in super::super) fn broken(why: &str) -> Markup {
    frame::bare(
        "Nobody can sign in",
        &html! {
            section.card.entry {
                h2 { "Nobody can sign in" }
                p.why { (why) }
                p.quiet { "Devices of the paired VM work meanwhile." }
            }
        },
    )
}

/// The answer to a request without a session that a page cannot be shown for.
pub(in super::super) fn signed_out() -> HttpResponse {
    let page = frame::bare(
        "Signed out",
        &html! {
            section.card.entry {
                h2 { "You are not signed in" }
                p.why { "Nothing was changed. Your session may have ended meanwhile." }
                p { a href="/sign-in" { "Sign in" } ", then try it again." }
            }
        },
    );
    reply(StatusCode::UNAUTHORIZED, &page)
}

/// The answer to a form without the session's token.
pub(in super::super) fn stale() -> HttpResponse {
    let page = frame::bare(
        "Page out of date",
        &html! {
            section.card.entry {
                h2 { "This page is out of date" }
                p.why { "Nothing was changed: the page that you came from belongs to an earlier session." }
                p { a href="/" { "Open the portal anew" } " and try it there." }
            }
        },
    );
    reply(StatusCode::FORBIDDEN, &page)
}

/// The answer to a program without a token.
pub(in super::super) fn no_token(door: &Door) -> HttpResponse {
    let remedy = match door {
        Door::Claim(_) | Door::Over => "claim this Pi in its portal first",
        Door::SignIn | Door::Broken(_) => {
            "send a token that was made on the portal's account page: \"Authorization: Bearer TOKEN\""
        }
    };
    let mut response = refuse(StatusCode::UNAUTHORIZED, "no valid token", remedy);
    let bearer = header::HeaderValue::from_static("Bearer");
    response
        .headers_mut()
        .insert(header::WWW_AUTHENTICATE, bearer);
    response
}

/// A labelled field for a password.
pub(in super::super) fn password(name: &str, label: &str, completion: &str, first: bool) -> Markup {
    html! {
        label for=(name) { (label) }
        input type="password" id=(name) name=(name) autocomplete=(completion) required autofocus[first];
    }
}

/// What went wrong with the form above which it stands.
pub(in super::super) fn complaint(wrong: Option<&AccessError>) -> Markup {
    html! {
        @if let Some(error) = wrong {
            p.outcome.bad role="alert" { (error) }
        }
    }
}

fn frame_notice(notice: Option<&str>) -> Markup {
    html! { @if let Some(notice) = notice { p.notice { (notice) } } }
}

fn minutes(left: Duration) -> String {
    match left.as_secs().div_ceil(60) {
        1 => "one minute".to_owned(),
        minutes => format!("{minutes} minutes"),
    }
}
