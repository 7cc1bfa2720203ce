//! Who asks, and whether they may.
//!
//! Everything needs a session but what [`Need::of`] names; a handler cannot forget to ask for one.
//! What changes something must come with the form token of that session, too.

use std::future::ready;

use actix_web::{
    Error, FromRequest, HttpMessage as _, HttpRequest, HttpResponse,
    body::BoxBody,
    dev::{Payload, ServiceRequest, ServiceResponse},
    error::InternalError,
    http::header::{self, HeaderMap},
    middleware::Next,
    web::{self, Bytes},
};

use super::{
    super::{Context, live::STREAMS, page},
    body, reads,
};
use crate::access::{Access, Digest, Door, LONGEST, Secret, derived, digest};

/// The cookie's name; the port does not tell cookies apart, so the name is the product's.
const COOKIE: &str = "usbip-pi";

/// The field that each form of a signed-in page has.
pub(in super::super) const FORM_TOKEN: &str = "form_token";

/// Longest address that is returned to after signing in, in bytes.
const LONGEST_RETURN: usize = 500;

/// What a request needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    /// Nothing; what it changes is guarded by a token or password of its own.
    Nothing,
    /// A session.
    Session,
    /// A token for programs; a session will do for reading.
    Token,
}

impl Need {
    fn of(path: &str) -> Self {
        const OPEN: [&str; 3] = ["/healthz", "/claim", "/sign-in"];
        const OPEN_BELOW: [&str; 3] = ["/assets/", "/join/", "/packages/"];
        if OPEN.contains(&path) || OPEN_BELOW.iter().any(|below| path.starts_with(below)) {
            Self::Nothing
        } else if path.starts_with("/api/") || path == "/metrics" {
            Self::Token
        } else {
            Self::Session
        }
    }
}

/// Whoever is signed in. As an argument of a handler it is always there where a session is needed.
#[derive(Debug, Clone)]
pub(in super::super) struct Visitor {
    /// The session.
    pub(in super::super) key: Digest,
    /// What each form must contain as `form_token`.
    pub(in super::super) form_token: String,
    /// The page that was asked for.
    pub(in super::super) path: String,
}

impl Visitor {
    /// Whether this page, or one below it, was asked for.
    pub(in super::super) fn is_at(&self, page: &str) -> bool {
        let below = self.path.strip_prefix(page);
        below.is_some_and(|rest| rest.is_empty() || page != "/" && rest.starts_with('/'))
    }

    fn of(request: &ServiceRequest, access: &Access) -> Option<Self> {
        cookies(request.headers()).find_map(|token| {
            Some(Self {
                key: access.session(token)?,
                form_token: derived("form", token),
                path: request.path().to_owned(),
            })
        })
    }
}

impl FromRequest for Visitor {
    type Error = Error;
    type Future = std::future::Ready<Result<Self, Error>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let visitor = request.extensions().get::<Self>().cloned();
        ready(visitor.ok_or_else(|| {
            let response = page::entry::signed_out();
            InternalError::from_response("no session", response).into()
        }))
    }
}

/// Let through only whoever may see or change what they ask for.
pub(in super::super) async fn check(
    mut request: ServiceRequest,
    next: Next<BoxBody>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let Some(context) = request.app_data::<web::Data<Context>>().cloned() else {
        return Ok(request.into_response(HttpResponse::InternalServerError()));
    };
    if !reads(request.method()) {
        body::limit(&mut request);
    }
    let visitor = Visitor::of(&request, &context.access);
    let refusal = match (Need::of(request.path()), &visitor) {
        (Need::Nothing, _) => None,
        (Need::Token | Need::Session, Some(_)) if reads(request.method()) => None,
        (Need::Token, _) if is_accepted(request.headers(), &context.access) => None,
        (Need::Token, _) => Some(page::entry::no_token(&context.access.door())),
        (Need::Session, None) => Some(stranger(&request, &context.access.door())),
        (Need::Session, Some(visitor)) => check_form(&mut request, visitor).await.err(),
    };
    if let Some(response) = refusal {
        return Ok(request.into_response(response));
    }
    if let Some(visitor) = visitor {
        request.extensions_mut().insert(visitor);
    }
    next.call(request).await
}

/// A stranger's page leads to where one signs in.
fn stranger(request: &ServiceRequest, door: &Door) -> HttpResponse {
    if !reads(request.method()) || STREAMS.contains(&request.path()) {
        return page::entry::signed_out();
    }
    match door {
        Door::Claim(_) | Door::Over => see("/claim"),
        Door::SignIn | Door::Broken(_) => {
            let path = request
                .uri()
                .path_and_query()
                .map_or("/", |path| path.as_str());
            let location = match path {
                "/" => "/sign-in".to_owned(),
                path => {
                    let mut query = form_urlencoded::Serializer::new(String::new());
                    format!("/sign-in?{}", query.append_pair("return", path).finish())
                }
            };
            see(&location)
        }
    }
}

fn see(location: &str) -> HttpResponse {
    HttpResponse::SeeOther()
        .insert_header((header::LOCATION, location))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .finish()
}

/// Where to return to after signing in: an own page, and nothing that a browser could take for
/// another host.
pub(in super::super) fn own_path(path: &str) -> &str {
    let own = path.starts_with('/')
        && !path.starts_with("//")
        && path.len() <= LONGEST_RETURN
        && path.bytes().all(|b| b.is_ascii_graphic() && b != b'\\');
    if own { path } else { "/" }
}

/// A form's token is in its body, which is read and put back. Other bodies may be large; a form that
/// sends one has the token in its address.
async fn check_form(request: &mut ServiceRequest, visitor: &Visitor) -> Result<(), HttpResponse> {
    let is_right = |pairs: &[u8]| {
        form_urlencoded::parse(pairs).any(|(name, value)| {
            // Of digests, so that the time it takes tells nothing.
            name == FORM_TOKEN && digest(&value) == digest(&visitor.form_token)
        })
    };
    let is_form = request
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| {
            kind.as_bytes()
                .starts_with(b"application/x-www-form-urlencoded")
        });
    if !is_form && request.headers().contains_key(header::CONTENT_TYPE) {
        return if is_right(request.query_string().as_bytes()) {
            Ok(())
        } else {
            Err(page::entry::stale())
        };
    }
    let body = request.extract::<Bytes>().await;
    let body = body.map_err(|error| error.error_response())?;
    let right = is_right(&body);
    request.set_payload(body.into());
    if right {
        Ok(())
    } else {
        Err(page::entry::stale())
    }
}

/// Whether there is a token that lets a program in.
fn is_accepted(headers: &HeaderMap, access: &Access) -> bool {
    let Some(header) = headers.get(header::AUTHORIZATION) else {
        return false;
    };
    let token = header.to_str().ok().and_then(|header| {
        let (scheme, token) = header.split_once(' ')?;
        scheme
            .eq_ignore_ascii_case("bearer")
            .then_some(token.trim())
    });
    token.is_some_and(|token| access.accepts(token))
}

/// Whether a request comes from a program and not from a page: those addresses take no cookie for
/// changes, so that no page can misuse one, and programs name no origin.
pub(super) fn is_from_program(request: &ServiceRequest) -> bool {
    let path = request.path();
    let for_programs = Need::of(path) == Need::Token || path.starts_with("/join/");
    for_programs && !request.headers().contains_key(header::ORIGIN)
}

/// The values of all cookies with the portal's name.
fn cookies(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers
        .get_all(header::COOKIE)
        .filter_map(|header| header.to_str().ok())
        .flat_map(|header| header.split(';'))
        .filter_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='))
}

/// The header that gives a browser its session.
pub(in super::super) fn cookie(token: &Secret) -> (header::HeaderName, String) {
    let (token, seconds) = (token.expose(), LONGEST.as_secs());
    let cookie = format!("{COOKIE}={token}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict");
    (header::SET_COOKIE, cookie)
}

/// The header that takes it away.
pub(in super::super) fn no_cookie() -> (header::HeaderName, String) {
    let cookie = format!("{COOKIE}=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict");
    (header::SET_COOKIE, cookie)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_needs_a_session_but_what_is_named() {
        for open in [
            "/healthz",
            "/claim",
            "/sign-in",
            "/assets/style.css",
            "/join/x",
            "/packages/x",
        ] {
            assert_eq!(Need::of(open), Need::Nothing, "{open}");
        }
        for token in ["/api/v1/status", "/api/v1/openapi.json", "/metrics"] {
            assert_eq!(Need::of(token), Need::Token, "{token}");
        }
        for session in [
            "/",
            "",
            "/claim/",
            "/sign-in2",
            "/join",
            "/Healthz",
            "/account",
            "//assets/x",
            "/nothing",
        ] {
            assert_eq!(Need::of(session), Need::Session, "{session}");
        }
    }

    #[test]
    fn only_own_pages_are_returned_to() {
        for own in ["/", "/history?kind=attach&page=2", "/devices/1-1.4"] {
            assert_eq!(own_path(own), own);
        }
        for foreign in [
            "",
            "https://evil.example",
            "//evil.example",
            "/\\evil.example",
            "\\/x",
            "/a b",
            "/a\r\nx: y",
            "/é",
        ] {
            assert_eq!(own_path(foreign), "/", "{foreign}");
        }
        assert_eq!(own_path(&format!("/{}", "x".repeat(600))), "/");
    }
}
