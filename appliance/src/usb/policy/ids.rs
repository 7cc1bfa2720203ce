//! The kernel drivers' id tables, as `ids.txt` has them; `generate` makes that file.

use crate::usb::descriptors::Interface;

const TABLE: &str = include_str!("ids.txt");

/// The kinds of drivers in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Network drivers.
    Network,
    /// Serial drivers whose devices are exported.
    Serial,
    /// Other USB serial drivers.
    Other,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::Serial => "serial",
            Self::Other => "other",
        }
    }
}

/// The driver of this kind that takes the device of this vendor and product, or one of its
/// `interfaces`. The table is scanned as text: a device comes now and then.
pub(super) fn find(kind: Kind, id: (u16, u16), interfaces: &[Interface]) -> Option<&'static str> {
    // Most patterns are of other vendors, which is seen without reading them.
    let vendor = format!("{:04x}:", id.0);
    TABLE.lines().find_map(|line| {
        let (driver, patterns) = line
            .strip_prefix(kind.word())?
            .strip_prefix(' ')?
            .split_once(' ')?;
        patterns
            .split(' ')
            .filter(|pattern| pattern.starts_with(&vendor) || pattern.starts_with('*'))
            .any(|pattern| matches(pattern, id, interfaces))
            .then_some(driver)
    })
}

/// Whether a pattern `VENDOR:PRODUCT[:CLASS.SUBCLASS.PROTOCOL][@NUMBER]` fits.
fn matches(pattern: &str, id: (u16, u16), interfaces: &[Interface]) -> bool {
    let (pattern, number) = match pattern.split_once('@') {
        Some((pattern, number)) => (pattern, Some(number)),
        None => (pattern, None),
    };
    let mut parts = pattern.split(':');
    if !fits(parts.next(), id.0) || !fits(parts.next(), id.1) {
        return false;
    }
    let class = parts.next();
    if class.is_none() && number.is_none() {
        return true;
    }
    interfaces.iter().any(|interface| {
        class.is_none_or(|class| {
            let mut parts = class.split('.');
            (interface.class.iter()).all(|value| fits(parts.next(), u16::from(*value)))
        }) && (number.is_none() || fits(number, u16::from(interface.number)))
    })
}

fn fits(pattern: Option<&str>, value: u16) -> bool {
    pattern.is_some_and(|text| text == "*" || u16::from_str_radix(text, 16) == Ok(value))
}
