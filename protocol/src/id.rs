//! The names of a USB device: busid, devid, speed.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Length of the busid field on the wire and of the kernel's buffer, with its final NUL
/// (`USBIP_BUSID_SIZE`, `BUSID_SIZE` in drivers/usb/usbip/stub.h).
pub const BUSID_SIZE: usize = 32;

/// A USB device's name in sysfs: bus number, then the ports on the way to it, as `1-1.4`.
///
/// Always of the form `N-N(.N)*` and shorter than [`BUSID_SIZE`], so it is safe as a file name and
/// as a word in a command. The order is by number, `1-2` before `1-10`.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BusId(String);

/// Why a text is no busid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a busid: expected bus and ports such as 1-1.4")]
pub struct BusIdError {
    /// The text as it came, cut to 40 characters.
    pub text: String,
}

impl BusId {
    /// The busid as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn numbers(&self) -> impl Iterator<Item = u32> + '_ {
        // Every part was checked to be a number that fits when the busid was made.
        self.0
            .split(['-', '.'])
            .map(|n| n.parse().unwrap_or(u32::MAX))
    }
}

fn is_port_number(text: &str) -> bool {
    (1..=3).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_digit())
        && !text.starts_with('0')
}

impl FromStr for BusId {
    type Err = BusIdError;

    fn from_str(text: &str) -> Result<Self, BusIdError> {
        let well_formed = text.len() < BUSID_SIZE
            && text.split_once('-').is_some_and(|(bus, ports)| {
                is_port_number(bus) && ports.split('.').all(is_port_number)
            });
        if well_formed {
            Ok(Self(text.to_owned()))
        } else {
            Err(BusIdError {
                text: text.chars().take(40).collect(),
            })
        }
    }
}

impl TryFrom<String> for BusId {
    type Error = BusIdError;

    fn try_from(text: String) -> Result<Self, BusIdError> {
        text.parse()
    }
}

impl From<BusId> for String {
    fn from(busid: BusId) -> Self {
        busid.0
    }
}

impl fmt::Display for BusId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for BusId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl PartialOrd for BusId {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for BusId {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.numbers().cmp(other.numbers())
    }
}

/// Bus number and device number on the Pi in one: `busnum << 16 | devnum`.
///
/// It changes on every replug and repeats after a reboot. Written as eight hex digits, as in vhci's
/// `status` file.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DevId(pub u32);

/// Why a text is no devid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a devid: expected eight hex digits such as 00010004")]
pub struct DevIdError {
    /// The text as it came, cut to 40 characters.
    pub text: String,
}

impl DevId {
    /// From the sysfs files `busnum` and `devnum`.
    #[must_use]
    pub fn new(busnum: u16, devnum: u16) -> Self {
        Self(u32::from(busnum) << 16 | u32::from(devnum))
    }

    /// The bus number.
    #[must_use]
    pub fn busnum(self) -> u32 {
        self.0 >> 16
    }

    /// The device number on that bus.
    #[must_use]
    pub fn devnum(self) -> u32 {
        self.0 & 0xffff
    }
}

impl FromStr for DevId {
    type Err = DevIdError;

    fn from_str(text: &str) -> Result<Self, DevIdError> {
        let well_formed = text.len() == 8 && text.bytes().all(|b| b.is_ascii_hexdigit());
        match u32::from_str_radix(text, 16) {
            Ok(devid) if well_formed => Ok(Self(devid)),
            _ => Err(DevIdError {
                text: text.chars().take(40).collect(),
            }),
        }
    }
}

impl TryFrom<String> for DevId {
    type Error = DevIdError;

    fn try_from(text: String) -> Result<Self, DevIdError> {
        text.parse()
    }
}

impl From<DevId> for String {
    fn from(devid: DevId) -> Self {
        devid.to_string()
    }
}

impl fmt::Display for DevId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl fmt::Debug for DevId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// Speed of a device, with the numbers of `enum usb_device_speed` (include/uapi/linux/usb/ch9.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Speed {
    /// 1.5 Mbit/s
    Low = 1,
    /// 12 Mbit/s
    Full = 2,
    /// 480 Mbit/s
    High = 3,
    /// 5 Gbit/s
    Super = 5,
    /// 10 Gbit/s and more
    SuperPlus = 6,
}

impl Speed {
    /// From the sysfs file `speed`, in Mbit/s.
    #[must_use]
    pub fn from_sysfs(text: &str) -> Option<Self> {
        match text.trim() {
            "1.5" => Some(Self::Low),
            "12" => Some(Self::Full),
            "480" => Some(Self::High),
            "5000" => Some(Self::Super),
            "10000" | "20000" => Some(Self::SuperPlus),
            _ => None,
        }
    }

    /// From the number on the wire and in vhci's `status`.
    #[must_use]
    pub fn from_code(code: u32) -> Option<Self> {
        [
            Self::Low,
            Self::Full,
            Self::High,
            Self::Super,
            Self::SuperPlus,
        ]
        .into_iter()
        .find(|speed| speed.code() == code)
    }

    /// The number on the wire and in vhci's `attach`.
    #[must_use]
    pub fn code(self) -> u32 {
        self as u32
    }

    /// Whether vhci wants such a device on one of its `ss` ports.
    #[must_use]
    pub fn is_super(self) -> bool {
        matches!(self, Self::Super | Self::SuperPlus)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busids_are_of_one_form() {
        for good in ["1-1", "1-1.4", "12-1.2.3.4.15"] {
            assert_eq!(good.parse::<BusId>().unwrap().as_str(), good);
        }
        for bad in [
            "",
            "1",
            "usb1",
            "1-",
            "-1",
            "1-0",
            "1-1.",
            "1-1:1.0",
            "../x",
            "1-1\n",
            "1-1 ",
            "01-1",
            "1-1.1.1.1.1.1.1.1.1.1.1.1.1.1.1.1",
        ] {
            assert!(bad.parse::<BusId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn busids_sort_by_number() {
        let mut ids: Vec<BusId> = ["1-10", "1-2", "1-1.10", "1-1.2", "1-1"]
            .iter()
            .map(|s| s.parse().unwrap())
            .collect();
        ids.sort();
        assert_eq!(format!("{ids:?}"), "[1-1, 1-1.2, 1-1.10, 1-2, 1-10]");
    }

    #[test]
    fn devid_is_bus_and_number() {
        let devid = DevId::new(1, 4);
        assert_eq!(devid.to_string(), "00010004");
        assert_eq!("00010004".parse(), Ok(devid));
        assert_eq!((devid.busnum(), devid.devnum()), (1, 4));
        for bad in ["10004", "+0010004", "0001000g", ""] {
            assert!(bad.parse::<DevId>().is_err(), "{bad:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn devid_round_trips(n: u32) {
            proptest::prop_assert_eq!(DevId(n).to_string().parse(), Ok(DevId(n)));
        }

        #[test]
        fn any_text_is_refused_or_kept(text in ".{0,40}") {
            if let Ok(busid) = text.parse::<BusId>() {
                proptest::prop_assert_eq!(busid.as_str(), text);
            }
        }
    }
}
