//! Where a request that changes something comes from.
//!
//! Browsers let any page send a form to any address; they also say where it came from.

use actix_web::{
    Error, HttpResponse,
    body::BoxBody,
    dev::{ServiceRequest, ServiceResponse},
    http::header::{self, HeaderMap},
    middleware::Next,
};

use super::{host::host, reads, visitor::is_from_program};

/// Let changes through only where they come from the portal's own pages.
pub(in super::super) async fn check(
    request: ServiceRequest,
    next: Next<BoxBody>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    if reads(request.method()) || is_own(request.headers()) || is_from_program(&request) {
        return next.call(request).await;
    }
    let response = HttpResponse::Forbidden()
        .content_type("text/plain; charset=utf-8")
        .body("This request does not come from a page of this portal. Open the portal and try there.\n");
    Ok(request.into_response(response))
}

/// Whether `Origin` names the host that the request went to; browsers too old to send it, or
/// told not to, at least say `Sec-Fetch-Site`.
fn is_own(headers: &HeaderMap) -> bool {
    let mut origins = headers.get_all(header::ORIGIN);
    match (origins.next(), origins.next()) {
        (Some(origin), None) => {
            let origin = origin.to_str().unwrap_or_default();
            let authority = origin
                .strip_prefix("http://")
                .or_else(|| origin.strip_prefix("https://"));
            authority.is_some_and(|authority| {
                host(headers).is_some_and(|host| host.eq_ignore_ascii_case(authority))
            })
        }
        (Some(_), Some(_)) => false,
        (None, _) => headers
            .get("sec-fetch-site")
            .is_some_and(|site| site == "same-origin"),
    }
}
