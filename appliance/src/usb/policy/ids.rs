//! The kernel drivers' id tables, as `ids.txt` has them; `generate` makes that file.

use std::{collections::HashMap, sync::LazyLock};

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

/// What of a line of the table is of one vendor.
struct Line {
    number: usize,
    kind: Kind,
    driver: &'static str,
    patterns: Vec<&'static str>,
}

/// The patterns by vendor; none: those of any. A plugged-in device waits for its verdict, and most of
/// the table is of other vendors.
static BY_VENDOR: LazyLock<HashMap<Option<u16>, Vec<Line>>> = LazyLock::new(|| {
    let mut index: HashMap<_, Vec<Line>> = HashMap::new();
    for (number, text) in TABLE.lines().enumerate() {
        let mut words = text.split(' ');
        let kind = match words.next() {
            Some("network") => Kind::Network,
            Some("serial") => Kind::Serial,
            Some("other") => Kind::Other,
            // The heading.
            _ => continue,
        };
        let Some(driver) = words.next() else { continue };
        for pattern in words {
            let vendor = pattern.split(':').next();
            let vendor = vendor.and_then(|vendor| u16::from_str_radix(vendor, 16).ok());
            let of_vendor = index.entry(vendor).or_default();
            match of_vendor.last_mut() {
                Some(last) if last.number == number => last.patterns.push(pattern),
                _ => of_vendor.push(Line {
                    number,
                    kind,
                    driver,
                    patterns: vec![pattern],
                }),
            }
        }
    }
    index
});

/// The driver of this kind that takes the device of this vendor and product, or one of its
/// `interfaces`; the first in the table.
pub(super) fn find(kind: Kind, id: (u16, u16), interfaces: &[Interface]) -> Option<&'static str> {
    let candidates = [Some(id.0), None].map(|vendor| BY_VENDOR.get(&vendor));
    let found = candidates.into_iter().flatten().flatten().filter(|line| {
        line.kind == kind && (line.patterns.iter()).any(|pattern| matches(pattern, id, interfaces))
    });
    found.min_by_key(|line| line.number).map(|line| line.driver)
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
