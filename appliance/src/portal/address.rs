//! Where this portal is, for other machines.

use std::net::{IpAddr, UdpSocket};

use actix_web::HttpRequest;

use super::guard::host::host;

/// An address of documentation (RFC 5737): nothing is sent there, the route to it is looked up.
const ANYWHERE: &str = "192.0.2.1:9";

/// Whether `NAME`, `NAME:PORT` or `[IPv6]:PORT` has a port.
pub(super) fn has_port(host: &str) -> bool {
    host.rsplit_once(':')
        .is_some_and(|(_, port)| !port.contains(']'))
}

/// Where a machine reaches this portal: under the name that the browser used, unless that leads
/// nowhere but here.
pub(super) fn own_address(request: &HttpRequest) -> String {
    let called = host(request.headers()).unwrap_or_default();
    let name = called.rsplit_once(':').filter(|_| has_port(called));
    let name = name.map_or(called, |(name, _)| name);
    let name = name.trim_start_matches('[').trim_end_matches(']');
    let local = name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    if !called.is_empty() && !local {
        // Without a port, the browser went to HTTP's own.
        return if has_port(called) {
            called.to_owned()
        } else {
            format!("{called}:80")
        };
    }
    let port = request.app_config().local_addr().port();
    let route = UdpSocket::bind("0.0.0.0:0").and_then(|socket| {
        socket.connect(ANYWHERE)?;
        socket.local_addr()
    });
    match route {
        Ok(address) if !address.ip().is_unspecified() => format!("{}:{port}", address.ip()),
        _ => format!("usbip-pi.local:{port}"),
    }
}
