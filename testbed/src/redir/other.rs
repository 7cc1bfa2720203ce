//! Functions that are not serial: what the appliance must leave alone, or meets beside a serial
//! function. Each answers enough for its Linux driver to bind and stay quiet.

use super::chip::{Answer, Chip};
use super::lines::Lines;
use super::wire::Setup;

/// Report descriptor of a boot keyboard (HID 1.11, appendix B.1), without its LEDs.
pub(super) const KEYBOARD_REPORT: [u8; 45] = [
    0x05, 0x01, 0x09, 0x06, 0xa1, 0x01, 0x05, 0x07, 0x19, 0xe0, 0x29, 0xe7, 0x15, 0x00, 0x25, 0x01,
    0x75, 0x01, 0x95, 0x08, 0x81, 0x02, 0x95, 0x01, 0x75, 0x08, 0x81, 0x01, 0x95, 0x06, 0x75, 0x08,
    0x15, 0x00, 0x25, 0x65, 0x05, 0x07, 0x19, 0x00, 0x29, 0x65, 0x81, 0x00, 0xc0,
];

/// HID descriptor that announces [`KEYBOARD_REPORT`].
pub(super) const KEYBOARD_HID: [u8; 9] = [9, 0x21, 0x11, 0x01, 0, 1, 0x22, 45, 0];

/// A keyboard on which nobody types.
pub(super) struct Keyboard;

impl Chip for Keyboard {
    fn request(&mut self, setup: Setup, _data: &[u8], _lines: &mut Lines) -> Answer {
        match (setup.request_type, setup.request, setup.value >> 8) {
            // GET_DESCRIPTOR: report, then HID
            (0x81, 0x06, 0x22) => Answer::Data(KEYBOARD_REPORT.to_vec()),
            (0x81, 0x06, 0x21) => Answer::Data(KEYBOARD_HID.to_vec()),
            // GET_REPORT: no key is down.
            (0xa1, 0x01, _) => Answer::Data(vec![0; 8]),
            // SET_REPORT, SET_IDLE, SET_PROTOCOL
            (0x21, 0x09..=0x0b, _) => Answer::Done,
            _ => Answer::Stall,
        }
    }
}

/// An Ethernet adapter whose cable is out: frames from the guest vanish.
pub(super) struct Ethernet {
    vendor_protocol: bool,
}

/// MAC address of the adapters: locally administered.
const MAC: [u8; 6] = [0x02, 0x00, 0x5e, 0x00, 0x53, 0x01];
/// The same as the text an ECM adapter keeps in a string descriptor.
pub(super) const MAC_TEXT: &str = "02005E005301";

impl Ethernet {
    /// A class-compliant (CDC ECM) adapter.
    pub(super) fn ecm() -> Self {
        Self {
            vendor_protocol: false,
        }
    }

    /// An adapter of ASIX, with requests of its own.
    pub(super) fn asix() -> Self {
        Self {
            vendor_protocol: true,
        }
    }
}

impl Chip for Ethernet {
    fn request(&mut self, setup: Setup, _data: &[u8], _lines: &mut Lines) -> Answer {
        if !self.vendor_protocol {
            // SET_ETHERNET_PACKET_FILTER and its neighbours are taken, nothing can be read.
            return if setup.is_input() {
                Answer::Stall
            } else {
                Answer::Done
            };
        }
        match (setup.is_input(), setup.request) {
            (false, _) => Answer::Done,
            // A register of the PHY: no link, the internal PHY's id, 10 and 100 Mbit/s offered.
            (_, 0x07) => Answer::Data(match setup.index {
                1 => vec![0x09, 0x78],
                2 => vec![0x3b, 0x00],
                3 => vec![0x81, 0x18],
                4 => vec![0xe1, 0x01],
                _ => vec![0, 0],
            }),
            // A word of the EEPROM: the address starts at word 4.
            (_, 0x0b) => {
                let at = usize::from(setup.value).wrapping_sub(4).saturating_mul(2);
                Answer::Data(
                    MAC.get(at..at.saturating_add(2))
                        .unwrap_or(&[0, 0])
                        .to_vec(),
                )
            }
            // Software access to the PHY granted.
            (_, 0x09) => Answer::Data(vec![0x01]),
            // Node id
            (_, 0x13) => Answer::Data(MAC.to_vec()),
            // PHY addresses: none external, the internal one at 0x10.
            (_, 0x19) => Answer::Data(vec![0xe0, 0x10]),
            // Other registers read as zero: no link.
            _ => Answer::Data(vec![0; usize::from(setup.length)]),
        }
    }

    fn output(&mut self, _line: usize, _data: &[u8], _lines: &mut Lines) {}
}

/// A printer that keeps what it is sent.
pub(super) struct Printer;

impl Chip for Printer {
    fn request(&mut self, setup: Setup, _data: &[u8], _lines: &mut Lines) -> Answer {
        match (setup.request_type, setup.request) {
            // GET_DEVICE_ID: a length of two bytes, then text (IEEE 1284).
            (0xa1, 0) => Answer::Data(b"\x00\x1aMFG:Test;MDL:Printer;CL".to_vec()),
            // GET_PORT_STATUS: selected, no error.
            (0xa1, 1) => Answer::Data(vec![0x18]),
            // SOFT_RESET
            (0x21 | 0x23, 2) => Answer::Done,
            _ => Answer::Stall,
        }
    }
}
