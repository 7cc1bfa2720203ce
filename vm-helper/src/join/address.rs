//! `http://PI:8080/join/TOKEN`

use std::{fmt, net::Ipv6Addr, str::FromStr};

use crate::config::is_host;

/// Where HTTP is when the address names no port.
const PORT: u16 = 80;

/// Where a portal offers to pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Name or address of the Pi.
    pub host: String,
    /// The portal's TCP port.
    pub port: u16,
    /// The path, `/join/TOKEN`.
    pub path: String,
}

/// A text is no such address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected the address that the portal shows, such as http://192.168.1.7:8080/join/TOKEN")]
pub struct AddressError;

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let rest = text.strip_prefix("http://").ok_or(AddressError)?;
        let (authority, path) = rest.split_once('/').ok_or(AddressError)?;
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or(AddressError)?;
                host.parse::<Ipv6Addr>().map_err(|_| AddressError)?;
                (host, port.strip_prefix(':'))
            }
            None => match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        let port = match port {
            Some(port) => port.parse().map_err(|_| AddressError)?,
            None => PORT,
        };
        let token = path.strip_prefix("join/").ok_or(AddressError)?;
        let plain = !token.is_empty()
            && token
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
        if !plain || !is_host(host) {
            return Err(AddressError);
        }
        Ok(Self {
            host: host.to_owned(),
            port,
            path: format!("/{path}"),
        })
    }
}

impl Address {
    /// Host and port as they stand in a `Host` header.
    #[must_use]
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority(), self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_portal_shows_is_understood() {
        for (text, host, port) in [
            ("http://192.168.1.7:8080/join/a-b_3", "192.168.1.7", 8080),
            ("http://usbip-pi.local/join/abc", "usbip-pi.local", 80),
            ("http://[fd00::7]:80/join/abc", "fd00::7", 80),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!((address.host.as_str(), address.port), (host, port));
        }
        let address: Address = "http://[fd00::7]:80/join/abc".parse().unwrap();
        assert_eq!(address.to_string(), "http://[fd00::7]:80/join/abc");
    }

    #[test]
    fn nothing_else_is() {
        for text in [
            "",
            "192.168.1.7",
            "https://192.168.1.7/join/abc",
            "http://192.168.1.7/join/",
            "http://192.168.1.7/other/abc",
            "http://192.168.1.7/join/a/b",
            "http://192.168.1.7/join/a b",
            "http://192.168.1.7:x/join/abc",
            "http://-x/join/abc",
            "http://user@pi/join/abc",
            "http:///join/abc",
        ] {
            assert_eq!(text.parse::<Address>(), Err(AddressError), "{text}");
        }
    }
}
