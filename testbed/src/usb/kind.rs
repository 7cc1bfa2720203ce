//! The kinds of device that can be plugged in.

use std::fmt;
use std::str::FromStr;

use super::Error;
use crate::redir;

/// A kind of device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// Played by the testbed.
    Played(redir::Kind),
    /// QEMU's FTDI serial converter (0403:6001); its bytes pass over [`Machine::stream`](crate::machine::Machine::stream).
    QemuSerial,
    /// QEMU's hub, full speed, eight ports.
    QemuHub,
    /// QEMU's keyboard.
    QemuKeyboard,
    /// QEMU's disk, 1 MiB, all zeroes.
    QemuDisk,
    /// QEMU's Ethernet adapter (RNDIS and CDC).
    QemuNet,
}

const QEMU: [(&str, What); 5] = [
    ("qemu-serial", What::QemuSerial),
    ("qemu-hub", What::QemuHub),
    ("qemu-keyboard", What::QemuKeyboard),
    ("qemu-disk", What::QemuDisk),
    ("qemu-net", What::QemuNet),
];

impl FromStr for What {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        if let Some((_, what)) = QEMU.iter().find(|(known, _)| *known == name) {
            return Ok(*what);
        }
        name.parse().map(Self::Played).map_err(|_| Error::Unknown {
            name: name.to_owned(),
            known: names().join(", "),
        })
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Played(kind) => kind.fmt(f),
            other => f.write_str(
                QEMU.iter()
                    .find(|(_, what)| what == other)
                    .map_or("", |(name, _)| name),
            ),
        }
    }
}

impl From<redir::Kind> for What {
    fn from(kind: redir::Kind) -> Self {
        Self::Played(kind)
    }
}

/// Every name that [`What`] can be made from.
#[must_use]
pub fn names() -> Vec<String> {
    let played = redir::Kind::ALL.iter().map(ToString::to_string);
    played
        .chain(QEMU.iter().map(|(name, _)| (*name).to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_the_name_of_its_kind() {
        for name in names() {
            assert_eq!(name.parse::<What>().unwrap().to_string(), name);
        }
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_known_ones() {
        let err = "esp33".parse::<What>().unwrap_err().to_string();
        assert!(
            err.contains("esp32-s3") && err.contains("qemu-hub"),
            "{err}"
        );
    }
}
