//! `/etc/usbip/pi.conf`: which Pi this VM belongs to.

use std::{net::IpAddr, time::Duration};

use protocol::line::{DEFAULT_GRACE_SECONDS, GRACE_SECONDS};

use crate::root::Root;

/// Where the file is.
pub const PI_CONF: &str = "/etc/usbip/pi.conf";

/// What pi.conf says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PiConf {
    /// Address or name of the Pi (`DEFAULT_PI_HOST`).
    pub host: String,
    /// Whether vhci's ports may enumerate fast (`FAST_ENUMERATION`, yes by default).
    pub fast_enumeration: bool,
    /// How long a silent attachment is held (`GRACE_SECONDS`), where no session says otherwise.
    pub grace: Duration,
}

/// What is wrong with pi.conf.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Cannot be read.
    #[error("failed to read {PI_CONF}")]
    Read(#[source] std::io::Error),
    /// A line is no assignment.
    #[error("line {line} of {PI_CONF} is no KEY=VALUE: {text:?}")]
    Syntax {
        /// Counted from 1.
        line: usize,
        /// The line, cut to 40 characters.
        text: String,
    },
    /// A value is none that the key may have.
    #[error("line {line} of {PI_CONF}: {key}={value:?} is not {expected}")]
    Value {
        /// Counted from 1.
        line: usize,
        /// The key.
        key: &'static str,
        /// The value, cut to 40 characters.
        value: String,
        /// What it should be.
        expected: &'static str,
    },
    /// No host: not paired.
    #[error("{PI_CONF} does not say which Pi this machine belongs to")]
    NoHost,
}

impl ConfigError {
    /// What mends it.
    #[must_use]
    pub fn remedy(&self) -> String {
        match self {
            Self::Read(_) | Self::NoHost => {
                format!("write the line DEFAULT_PI_HOST=address-of-the-Pi into {PI_CONF}")
            }
            Self::Syntax { line, .. } => {
                format!("correct line {line} of {PI_CONF}, or start it with # to switch it off")
            }
            Self::Value { line, expected, .. } => {
                format!("make the value in line {line} of {PI_CONF} {expected}")
            }
        }
    }
}

impl PiConf {
    /// Read the file.
    pub fn load(root: &Root) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(root.path(PI_CONF)).map_err(ConfigError::Read)?;
        Self::parse(&text)
    }

    /// Parse the file's text. Unknown keys are left to those who know them.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let mut host = None;
        let mut fast_enumeration = true;
        let mut grace = DEFAULT_GRACE_SECONDS;
        for (number, line) in text.lines().enumerate().map(|(n, line)| (n + 1, line)) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let Some((key, value)) = line.split_once('=') else {
                return Err(ConfigError::Syntax {
                    line: number,
                    text: cut(line),
                });
            };
            let value = unquote(value.trim());
            let wrong = |key, expected| ConfigError::Value {
                line: number,
                key,
                value: cut(value),
                expected,
            };
            match key.trim() {
                "DEFAULT_PI_HOST" if value.is_empty() => host = None,
                "DEFAULT_PI_HOST" if is_host(value) => host = Some(value.to_owned()),
                "DEFAULT_PI_HOST" => {
                    return Err(wrong("DEFAULT_PI_HOST", "an address or a host name"));
                }
                "FAST_ENUMERATION" => {
                    fast_enumeration = match value {
                        "yes" => true,
                        "no" => false,
                        _ => return Err(wrong("FAST_ENUMERATION", "yes or no")),
                    };
                }
                "GRACE_SECONDS" => {
                    grace = value
                        .parse()
                        .ok()
                        .filter(|seconds| GRACE_SECONDS.contains(seconds))
                        .ok_or_else(|| wrong("GRACE_SECONDS", "a number from 5 to 300"))?;
                }
                _ => {}
            }
        }
        Ok(Self {
            host: host.ok_or(ConfigError::NoHost)?,
            fast_enumeration,
            grace: Duration::from_secs(grace.into()),
        })
    }
}

fn cut(text: &str) -> String {
    text.chars().take(40).collect()
}

fn unquote(value: &str) -> &str {
    ['"', '\'']
        .iter()
        .find_map(|quote| value.strip_prefix(*quote)?.strip_suffix(*quote))
        .unwrap_or(value)
}

/// The file's text with another host in it; everything else stays.
pub(crate) fn with_host(text: &str, host: &str) -> String {
    let line = format!("DEFAULT_PI_HOST={host}\n");
    let mut changed = String::new();
    let mut placed = false;
    for kept in text.lines() {
        let key = kept.split('=').next().unwrap_or_default().trim();
        if key != "DEFAULT_PI_HOST" {
            changed.push_str(kept);
            changed.push('\n');
        } else if !std::mem::replace(&mut placed, true) {
            changed.push_str(&line);
        }
    }
    if !placed {
        changed.push_str(&line);
    }
    changed
}

/// An IP literal or a host name. A name is also a word on getent's command line, so it must not
/// look like an option.
pub(crate) fn is_host(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok()
        || text.len() <= 253
            && text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_file_is_enough() {
        let conf = PiConf::parse("# the Pi\nDEFAULT_PI_HOST=192.168.1.50\n").unwrap();
        assert_eq!(conf.host, "192.168.1.50");
        assert!(conf.fast_enumeration);
        assert_eq!(conf.grace, Duration::from_secs(30));
    }

    #[test]
    fn another_host_leaves_the_rest_as_it_is() {
        assert_eq!(with_host("", "pi"), "DEFAULT_PI_HOST=pi\n");
        assert_eq!(
            with_host(
                "# DEFAULT_PI_HOST=x\nDEFAULT_PI_HOST=\nGRACE_SECONDS=5\nDEFAULT_PI_HOST=b",
                "pi"
            ),
            "# DEFAULT_PI_HOST=x\nDEFAULT_PI_HOST=pi\nGRACE_SECONDS=5\n"
        );
    }

    #[test]
    fn every_setting_is_read() {
        let conf = PiConf::parse(
            " DEFAULT_PI_HOST = \"pi.local\"\nFAST_ENUMERATION=no\nGRACE_SECONDS='5'\nCOLOUR=blue",
        )
        .unwrap();
        assert_eq!(
            conf,
            PiConf {
                host: "pi.local".into(),
                fast_enumeration: false,
                grace: Duration::from_secs(5)
            }
        );
    }

    #[test]
    fn errors_name_line_and_remedy() {
        let error = |text: &str| {
            let e = PiConf::parse(text).unwrap_err();
            (e.to_string(), e.remedy())
        };
        assert_eq!(
            error("DEFAULT_PI_HOST=pi\nGRACE_SECONDS=3"),
            (
                "line 2 of /etc/usbip/pi.conf: GRACE_SECONDS=\"3\" is not a number from 5 to 300"
                    .into(),
                "make the value in line 2 of /etc/usbip/pi.conf a number from 5 to 300".into()
            )
        );
        assert_eq!(
            error("#\n192.168.1.50").0,
            "line 2 of /etc/usbip/pi.conf is no KEY=VALUE: \"192.168.1.50\""
        );
        assert_eq!(
            error("DEFAULT_PI_HOST=").1,
            "write the line DEFAULT_PI_HOST=address-of-the-Pi into /etc/usbip/pi.conf"
        );
        for bad in ["-s", "a b", "$(reboot)", "a;b", "../x"] {
            assert!(
                PiConf::parse(&format!("DEFAULT_PI_HOST={bad}")).is_err(),
                "{bad}"
            );
        }
    }
}
