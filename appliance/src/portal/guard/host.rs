//! The name under which the portal was called.
//!
//! A foreign page can make its own name resolve to the Pi's address (DNS rebinding), and its script
//! then counts as the portal's own. It cannot change the name that the browser sends in `Host`.

use std::net::{Ipv4Addr, Ipv6Addr};

use actix_web::{
    Error, HttpResponse,
    body::BoxBody,
    dev::{ServiceRequest, ServiceResponse},
    http::header::{self, HeaderMap},
    middleware::Next,
    web,
};

use super::super::{Context, text::shown};

/// Let through only what was addressed to one of the portal's own names.
pub(in super::super) async fn check(
    request: ServiceRequest,
    next: Next<BoxBody>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let names = request
        .app_data::<web::Data<Context>>()
        .map(|context| context.names.as_slice())
        .unwrap_or_default();
    match host(request.headers()) {
        Some(host) if is_own(host, names) => next.call(request).await,
        Some(host) => {
            let sentence = format!(
                "This portal is not called {}. Open it by the Pi's address or as usbip-pi.local, \
                 or add this name to its settings.\n",
                shown(host)
            );
            Ok(request.into_response(refusal(HttpResponse::Forbidden(), sentence)))
        }
        None => {
            let sentence = "The request names no host, or more than one.\n".to_owned();
            Ok(request.into_response(refusal(HttpResponse::BadRequest(), sentence)))
        }
    }
}

fn refusal(mut response: actix_web::HttpResponseBuilder, sentence: String) -> HttpResponse {
    response
        .content_type("text/plain; charset=utf-8")
        .body(sentence)
}

/// The one `Host` header.
pub(in super::super) fn host(headers: &HeaderMap) -> Option<&str> {
    let mut all = headers.get_all(header::HOST);
    let host = all.next()?.to_str().ok()?;
    all.next().is_none().then_some(host)
}

/// Whether `NAME`, `NAME:PORT` or `[IPv6]:PORT` is one of the portal's own; the port does not matter.
pub(in super::super) fn is_own(host: &str, names: &[String]) -> bool {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split_once(']').is_some_and(|(address, port)| {
            address.parse::<Ipv6Addr>().is_ok() && (port.is_empty() || is_port(port))
        });
    }
    let name = match host.find(':') {
        Some(at) if !is_port(&host[at..]) => return false,
        Some(at) => &host[..at],
        None => host,
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    let label = |text: &str| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    name.parse::<Ipv4Addr>().is_ok()
        || name.split('.').all(label)
            && (name.eq_ignore_ascii_case("localhost")
                || name.eq_ignore_ascii_case("usbip-pi")
                || name
                    .rsplit_once('.')
                    .is_some_and(|(_, last)| last.eq_ignore_ascii_case("local"))
                || names.iter().any(|own| own.eq_ignore_ascii_case(name)))
}

fn is_port(text: &str) -> bool {
    text.strip_prefix(':')
        .is_some_and(|port| port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_and_foreign_names() {
        let names = ["pi.lab.example".to_owned()];
        for own in [
            "192.168.1.7",
            "192.168.1.7:8080",
            "[fe80::1]",
            "[::1]:8080",
            "localhost:8080",
            "usbip-pi",
            "USBIP-PI:80",
            "usbip-pi.local",
            "usbip-pi-2.local.:8080",
            "pi.lab.example",
            "Pi.Lab.Example:8080",
        ] {
            assert!(is_own(own, &names), "{own}");
        }
        for foreign in [
            "",
            ":8080",
            "evil.example",
            "evil.example:8080",
            "local",
            ".local",
            "a..local",
            "usbip-pi.evil.example",
            "usbip-pi.local.evil.example",
            "192.168.1.7.evil.example",
            "192.168.1.7:8080@evil.example",
            "usbip-pi:",
            "localhost:80a",
            "localhost:8080:1",
            "[::1",
            "[::1]x",
            "[evil]",
            "::1",
            "a@b.local",
            "a/b.local",
            "a b.local",
            "lab.example",
            "xpi.lab.example",
        ] {
            // An empty port is allowed by RFC 3986, and harmless.
            assert_eq!(is_own(foreign, &names), foreign == "usbip-pi:", "{foreign}");
        }
    }
}
