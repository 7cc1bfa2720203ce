//! One's access: password, browsers, tokens for programs.

use std::time::Duration;

use maud::{Markup, html};

use super::{
    super::{guard::visitor::Visitor, text::shown},
    command,
    entry::{complaint, password},
    frame::{form_token, frame},
};
use crate::access::{Access, AccessError, Secret, Session, Token, hex};

/// How the last action came out.
pub(in super::super) enum Note<'a> {
    /// There was none.
    None,
    /// As wished; a sentence.
    Done(&'static str),
    /// The password was not changed.
    Password(&'a AccessError),
    /// A token of this name was made; the only time that it is shown.
    Token(&'a str, &'a Secret),
    /// A token of this name was not made.
    NoToken(&'a str, &'a AccessError),
}

/// The page.
pub(in super::super) fn page(access: &Access, visitor: &Visitor, note: &Note) -> Markup {
    let now = access.now_ms();
    frame(
        "Account",
        visitor,
        &html! {
            @if let Note::Done(sentence) = note { p.outcome.good role="status" { (sentence) } }
            (tokens(&access.tokens(), visitor, note, now))
            (sessions(&access.sessions(), visitor, now))
            (new_password(visitor, note))
        },
    )
}

fn tokens(tokens: &[Token], visitor: &Visitor, note: &Note, now: Option<i64>) -> Markup {
    let (name, wrong) = match note {
        Note::NoToken(name, error) => (*name, Some(*error)),
        _ => ("", None),
    };
    html! {
        section #tokens aria-labelledby="tokens-title" {
            h2 #tokens-title { "Programs" }
            p {
                "A token lets a program read " code { "/api/v1" } " and " code { "/metrics" } " and act as you can here. "
                a href="/api/v1/openapi.json" { "What it can ask for" } "."
            }
            @if let Note::Token(name, secret) = note {
                div.outcome.good role="status" {
                    p { "This is the token for “" (shown(name)) "”. Copy it now: it is not shown again." }
                    div #token { (command(secret.expose())) }
                }
            }
            @if !tokens.is_empty() {
                ul.rows {
                    @for token in tokens {
                        li {
                            span.what {
                                b { (shown(&token.name)) } " "
                                span.quiet {
                                    "made " (when(token.created_ms, now)) ", "
                                    @match token.used_ms {
                                        None => "never used",
                                        Some(used) => { "last used " (when(Some(used), now)) }
                                    }
                                }
                            }
                            form method="post" action="/account/tokens/remove" {
                                (form_token(visitor))
                                input type="hidden" name="key" value=(hex(&token.key));
                                button.plain type="submit" aria-label={ "Remove the token " (shown(&token.name)) } { "Remove" }
                            }
                        }
                    }
                }
            }
            form.entry.card method="post" action="/account/tokens" {
                (form_token(visitor))
                (complaint(wrong))
                label for="name" { "Name of the program" }
                input id="name" name="name" value=(shown(name)) maxlength="60" required autocomplete="off"
                    placeholder="Prometheus";
                button type="submit" { "Make a token" }
            }
        }
    }
}

fn sessions(sessions: &[Session], visitor: &Visitor, now: Option<i64>) -> Markup {
    html! {
        section #sessions aria-labelledby="sessions-title" {
            h2 #sessions-title { "Signed-in browsers" }
            ul.rows {
                @for session in sessions {
                    li {
                        span.what {
                            b { (session.address) } " "
                            span.quiet {
                                "signed in " (when(session.created_ms, now)) ", "
                                @if session.key == visitor.key { "this one" }
                                @else { "not used for " (for_how_long(session.idle)) }
                            }
                        }
                        form method="post" action="/account/sessions/end" {
                            (form_token(visitor))
                            input type="hidden" name="key" value=(hex(&session.key));
                            button.plain type="submit" aria-label={ "Sign out the browser at " (session.address) } { "Sign out" }
                        }
                    }
                }
            }
            button.plain type="submit" form="act" formaction="/account/sessions/end-all" { "Sign out everywhere" }
        }
    }
}

fn new_password(visitor: &Visitor, note: &Note) -> Markup {
    let wrong = match note {
        Note::Password(error) => Some(*error),
        _ => None,
    };
    html! {
        section #password-section aria-labelledby="password-title" {
            h2 #password-title { "Change the password" }
            form.entry.card method="post" action="/account/password" {
                (form_token(visitor))
                (complaint(wrong))
                (password("old", "Present password", "current-password", false))
                (password("password", "New password, at least 10 characters", "new-password", false))
                (password("again", "The new one again", "new-password", false))
                button type="submit" { "Change the password" }
                p.quiet { "Signs out every other browser." }
            }
        }
    }
}

/// How long ago a time was, both in milliseconds since 1970.
fn when(then: Option<i64>, now: Option<i64>) -> String {
    match (then, now) {
        (Some(then), Some(now)) => {
            let passed = u64::try_from(now - then).unwrap_or_default();
            match passed / 1000 {
                0..60 => "just now".to_owned(),
                seconds => format!("{} ago", for_how_long(Duration::from_secs(seconds))),
            }
        }
        (None, _) => "before the clock was set".to_owned(),
        (Some(_), None) => "some time ago".to_owned(),
    }
}

/// To the largest unit.
fn for_how_long(time: Duration) -> String {
    let (count, unit) = match time.as_secs() {
        seconds @ 0..3600 => (seconds.div_ceil(60).max(1), "minute"),
        seconds @ 3600..172_800 => (seconds / 3600, "hour"),
        seconds => (seconds / 86400, "day"),
    };
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {unit}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_from_now() {
        let minute = 60_000;
        for (then, now, text) in [
            (None, Some(5), "before the clock was set"),
            (Some(5), None, "some time ago"),
            (Some(5), Some(6), "just now"),
            (Some(6), Some(5), "just now"),
            (Some(0), Some(minute), "1 minute ago"),
            (Some(0), Some(60 * minute), "1 hour ago"),
            (Some(0), Some(47 * 60 * minute), "47 hours ago"),
            (Some(0), Some(48 * 60 * minute), "2 days ago"),
        ] {
            assert_eq!(when(then, now), text);
        }
    }
}
