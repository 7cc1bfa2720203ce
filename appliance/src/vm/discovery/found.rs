//! What a machine says of itself, made fit for the form. All of it is hostile.

use std::net::IpAddr;

use mdns_sd::{ResolvedService, ScopedIp};

use crate::vm::conf;

/// The longest label of a name in the DNS, in bytes (RFC 1035, 2.3.4).
const MAX_NAME: usize = 63;
/// Longer versions are no versions.
const MAX_VERSION: usize = 32;

/// A machine on the network that could be a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What it calls itself; any text.
    pub name: String,
    /// Its address: the Pi has no resolver for `.local`, and not every VM keeps its name.
    pub host: String,
    /// The user that the Pi is to log in as.
    pub user: String,
    /// The version of its vm-helper, where it has one.
    pub helper: Option<String>,
}

impl Found {
    /// None where there is no address to reach it by.
    pub(super) fn read(service: &ResolvedService, is_helper: bool) -> Option<Self> {
        let host = address(service.addresses.iter())?;
        let text = |key: &str| service.get_property_val_str(key).unwrap_or_default();
        let said = text("user");
        let user = if conf::check_user(said).is_ok() {
            said
        } else {
            conf::DEFAULT_USER
        };
        let version = text("version");
        let name = service
            .fullname
            .strip_suffix(service.ty_domain.as_str())
            .unwrap_or(&service.fullname)
            .trim_end_matches('.');
        Some(Self {
            name: cut(name, MAX_NAME),
            host,
            user: user.to_owned(),
            helper: is_helper.then(|| cut(version, MAX_VERSION)),
        })
    }
}

/// The best way to reach it: IPv4, then IPv6, link-local ones with their interface.
fn address<'a>(all: impl Iterator<Item = &'a ScopedIp>) -> Option<String> {
    let usable = all.filter_map(|address| {
        let ip = address.to_ip_addr();
        if ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() {
            return None;
        }
        let local = matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local());
        let text = match address {
            ScopedIp::V6(v6) if local => format!("{ip}%{}", v6.scope_id().name),
            _ => ip.to_string(),
        };
        conf::check_host(&text).ok()?;
        Some((local, ip.is_ipv6(), text))
    });
    usable.min().map(|(_, _, text)| text)
}

fn cut(text: &str, most: usize) -> String {
    text.chars().take(most).collect()
}
