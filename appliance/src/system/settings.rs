//! `/etc/usbip/appliance.conf`: what a person may set on the box itself. No file means defaults.

use std::path::Path;

use protocol::line::{DEFAULT_GRACE_SECONDS, GRACE_SECONDS};
use serde::Serialize;

use super::conf_file::{self, ConfError, Problem};

/// Where the settings are.
pub const PATH: &str = "/etc/usbip/appliance.conf";

/// The settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Settings {
    /// GRACE_SECONDS: how long an attachment outlives a silent network, in seconds.
    pub grace_seconds: u16,
    /// FAST_ENUMERATION: whether the kernel skips its cautious waits on the Pi's own USB ports.
    pub fast_enumeration: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            grace_seconds: DEFAULT_GRACE_SECONDS,
            fast_enumeration: false,
        }
    }
}

impl Settings {
    /// Reads a settings file. Whoever gets an error goes on with the defaults and shows it. Unknown
    /// keys are logged, since an older version may meet a newer file.
    pub fn read(path: &Path) -> Result<Self, ConfError> {
        let mut settings = Self::default();
        let Some(text) = conf_file::read(path)? else {
            return Ok(settings);
        };
        for assignment in conf_file::parse(path, &text)? {
            let (key, value) = (assignment.key.as_str(), assignment.value.as_str());
            let known = match key {
                "GRACE_SECONDS" => grace(value).map(|seconds| settings.grace_seconds = seconds),
                "FAST_ENUMERATION" => {
                    yes_or_no(key, value).map(|on| settings.fast_enumeration = on)
                }
                _ => {
                    tracing::warn!(file = %path.display(), line = assignment.line, key, "unknown setting ignored");
                    Ok(())
                }
            };
            known.map_err(|problem| problem.at(path, assignment.line))?;
        }
        Ok(settings)
    }
}

fn grace(value: &str) -> Result<u16, Problem> {
    let seconds = value.parse().ok();
    seconds
        .filter(|seconds| GRACE_SECONDS.contains(seconds))
        .ok_or_else(|| {
            let (least, most) = (GRACE_SECONDS.start(), GRACE_SECONDS.end());
            Problem::new(
                format!("GRACE_SECONDS is {:?}", conf_file::shorten(value)),
                format!("GRACE_SECONDS={DEFAULT_GRACE_SECONDS}, or another number from {least} to {most}"),
            )
        })
}

fn yes_or_no(key: &str, value: &str) -> Result<bool, Problem> {
    match value {
        "yes" => Ok(true),
        "no" => Ok(false),
        other => Err(Problem::new(
            format!("{key} is {:?}", conf_file::shorten(other)),
            format!("{key}=yes or {key}=no"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Settings, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("appliance.conf");
        std::fs::write(&path, text).unwrap();
        Settings::read(&path).map_err(|e| {
            let folder = format!("{}/", dir.path().display());
            e.to_string().replace(&folder, "")
        })
    }

    #[test]
    fn settings_are_read_and_default() {
        assert_eq!(
            Settings::read(Path::new("/nonexistent/x")).unwrap(),
            Settings {
                grace_seconds: 30,
                fast_enumeration: false
            }
        );
        assert_eq!(
            read("GRACE_SECONDS=300\nFAST_ENUMERATION=\"yes\"\nCOLOUR=blue\n").unwrap(),
            Settings {
                grace_seconds: 300,
                fast_enumeration: true
            }
        );
    }

    #[test]
    fn wrong_values_are_named() {
        assert_eq!(
            read("\nGRACE_SECONDS=4\n").unwrap_err(),
            "appliance.conf, line 2: GRACE_SECONDS is \"4\"; expected GRACE_SECONDS=30, or another number from 5 to 300"
        );
        assert_eq!(
            read("FAST_ENUMERATION=1").unwrap_err(),
            "appliance.conf, line 1: FAST_ENUMERATION is \"1\"; expected FAST_ENUMERATION=yes or FAST_ENUMERATION=no"
        );
    }
}
