//! Addresses of names in `.local`: the box's own resolver knows no multicast DNS.

use std::{net::IpAddr, time::Duration};

use mdns_sd::{HostnameResolutionEvent, ServiceDaemon};
use tokio::time::timeout;

use super::Discovery;

/// How long to wait for an answer; RFC 6762 has machines answer within half a second, and the
/// question is repeated after one second.
const PATIENCE: Duration = Duration::from_secs(2);

/// Whether a name is one that multicast DNS is asked for (RFC 6762, section 3).
#[must_use]
pub fn is_local(name: &str) -> bool {
    let name = name.trim_end_matches('.');
    name.rsplit_once('.')
        .is_some_and(|(_, last)| last.eq_ignore_ascii_case("local"))
}

impl Discovery {
    /// The addresses of a name in `.local`, IPv4 first. None for other names, and where nobody
    /// answers within two seconds.
    pub async fn resolve(&self, name: &str) -> Vec<IpAddr> {
        if !is_local(name) {
            return Vec::new();
        }
        // One question at a time: a second one for the same name would end the first.
        let daemon = self.shared.daemon.lock().await;
        let Some(daemon) = &*daemon else {
            return Vec::new();
        };
        let name = format!("{}.", name.trim_end_matches('.').to_ascii_lowercase());
        let found = timeout(PATIENCE, ask(daemon, &name)).await;
        // One that has ended by itself is what is wanted.
        let _ = daemon.stop_resolve_hostname(&name);
        let mut found = found.unwrap_or_default();
        found.sort_by_key(IpAddr::is_ipv6);
        found
    }
}

async fn ask(daemon: &ServiceDaemon, name: &str) -> Vec<IpAddr> {
    let Ok(events) = daemon.resolve_hostname(name, None) else {
        return Vec::new();
    };
    while let Ok(event) = events.recv_async().await {
        let HostnameResolutionEvent::AddressesFound(_, addresses) = event else {
            continue;
        };
        let addresses = addresses.iter().map(mdns_sd::ScopedIp::to_ip_addr);
        let found: Vec<IpAddr> = addresses.filter(is_usable).collect();
        if !found.is_empty() {
            return found;
        }
    }
    Vec::new()
}

/// Link-local ones need an interface besides; a machine that has no others is reached by its address.
fn is_usable(ip: &IpAddr) -> bool {
    let link_local = matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local());
    !(ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() || link_local)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_local_network() {
        for name in ["vm.local", "Build-VM.LOCAL.", "a.b.local"] {
            assert!(is_local(name), "{name}");
        }
        for name in ["local", "vm", "vm.lan", "vm.local.example", "10.9.0.2"] {
            assert!(!is_local(name), "{name}");
        }
    }
}
