//! Where this portal is, for other machines.

use std::net::IpAddr;

use actix_web::HttpRequest;

use super::guard::host::host;
use crate::system::route::own_address;

/// So many addresses are offered; a Pi with containers may have dozens.
const MOST: usize = 8;

/// Whether `NAME`, `NAME:PORT` or `[IPv6]:PORT` has a port.
pub(super) fn has_port(host: &str) -> bool {
    host.rsplit_once(':')
        .is_some_and(|(_, port)| !port.contains(']'))
}

/// Where a machine reaches this portal, the likeliest first: under the name that the browser used,
/// unless that leads elsewhere from there, as a forwarded port does; then this Pi's own addresses.
/// There is at least one.
pub(super) fn own_addresses(request: &HttpRequest) -> Vec<String> {
    let port = request.app_config().local_addr().port();
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    let mut own: Vec<IpAddr> = interfaces
        .iter()
        .filter(|interface| !interface.is_loopback() && !interface.is_link_local())
        .map(if_addrs::Interface::ip)
        .collect();
    let route = own_address();
    own.sort_by_key(|ip| (Some(*ip) != route, ip.is_ipv6()));
    let mut addresses: Vec<String> = called(request, &own).into_iter().collect();
    for ip in own {
        let address = match ip {
            IpAddr::V4(ip) => format!("{ip}:{port}"),
            IpAddr::V6(ip) => format!("[{ip}]:{port}"),
        };
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses.truncate(MOST);
    if addresses.is_empty() {
        addresses.push(format!("usbip-pi.local:{port}"));
    }
    addresses
}

/// The name that the browser used, if it leads here from other machines, too.
fn called(request: &HttpRequest, own: &[IpAddr]) -> Option<String> {
    let called = host(request.headers()).filter(|called| !called.is_empty())?;
    let name = called.rsplit_once(':').filter(|_| has_port(called));
    let name = name.map_or(called, |(name, _)| name);
    let name = name.trim_start_matches('[').trim_end_matches(']');
    let leads_here = match name.parse::<IpAddr>() {
        Ok(ip) => own.contains(&ip),
        Err(_) => !name.eq_ignore_ascii_case("localhost"),
    };
    // Without a port, the browser went to HTTP's own.
    leads_here.then(|| {
        if has_port(called) {
            called.to_owned()
        } else {
            format!("{called}:80")
        }
    })
}
