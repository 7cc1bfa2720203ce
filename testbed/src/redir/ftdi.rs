//! FTDI chips with one channel (FT231X) or several (FT2232H), as `ftdi_sio` uses them.

use std::collections::VecDeque;

use super::chip::{Answer, Chip};
use super::lines::{Lines, nearest_standard_baud};
use super::wire::Setup;

/// Status bytes in front of each packet: the modem inputs (none active; bit 0 is always set)
/// and the line status (transmitter empty).
const STATUS: [u8; 2] = [0x01, 0x60];

/// An FTDI chip.
pub(super) struct Ftdi {
    packet: usize,
    latency: u8,
}

impl Ftdi {
    /// `packet`: the endpoints' packet size in bytes, which frames the status bytes.
    pub(super) fn new(packet: usize) -> Self {
        Self {
            packet,
            latency: 16,
        }
    }
}

/// The line an index names, and what is in its high byte: both chips count channels from 1 in
/// the low byte.
fn line(index: u16) -> (usize, u16) {
    let [low, high] = index.to_le_bytes();
    (usize::from(low).saturating_sub(1), u16::from(high))
}

/// Rate from a divisor: whole part in 14 bits, eighths coded in the three above, and on the fast
/// chips one more bit for the 120 MHz clock (FTDI application note AN232B-05 and AN120).
fn baud(value: u16, high: u16) -> u32 {
    const EIGHTHS: [u32; 8] = [0, 3, 2, 4, 1, 5, 6, 7];
    let code = usize::from(value >> 14) | usize::from(high & 1) << 2;
    // `EIGHTHS` maps eighths to code as in the driver; its inverse is wanted here.
    let eighths = EIGHTHS
        .iter()
        .position(|&c| c as usize == code)
        .unwrap_or(0);
    let whole = u32::from(value & 0x3fff);
    // Eight times the rate at divisor 1: 3 MBd, or 12 MBd on the fast clock.
    let clock = if high & 2 == 0 {
        24_000_000
    } else {
        96_000_000
    };
    match (whole, code) {
        (0, 0) => clock / 8,
        (1, 0) => clock / 12,
        _ => clock / (whole * 8 + u32::try_from(eighths).unwrap_or(0)).max(1),
    }
}

impl Chip for Ftdi {
    fn request(&mut self, setup: Setup, _data: &[u8], lines: &mut Lines) -> Answer {
        let (line, high) = line(setup.index);
        let value = setup.value;
        match setup.request {
            // Reset, flow control, event and error characters.
            0 | 2 | 6 | 7 => {}
            // Modem control: the high byte says which of the two lines to touch.
            1 => {
                let touched = |bit: u16| (value & (bit << 8) != 0).then_some(value & bit != 0);
                lines.set_control(line, touched(1), touched(2));
            }
            3 => lines.set_baud(line, nearest_standard_baud(baud(value, high))),
            // Data format, with the break in bit 14.
            4 => lines.set_break(line, value & 0x4000 != 0),
            5 => return Answer::Data(STATUS.to_vec()),
            9 => self.latency = value.to_le_bytes()[0],
            10 => return Answer::Data(vec![self.latency]),
            // An empty EEPROM.
            0x90 => return Answer::Data(vec![0xff; 2]),
            _ => return Answer::Stall,
        }
        Answer::Done
    }

    fn input(&mut self, _line: usize, wanted: usize, queue: &mut VecDeque<u8>) -> Option<Vec<u8>> {
        if queue.is_empty() {
            return None;
        }
        let packets = (wanted / self.packet).max(1);
        let mut out = Vec::with_capacity(wanted);
        for _ in 0..packets {
            out.extend(STATUS);
            let n = queue.len().min(self.packet - STATUS.len());
            out.extend(queue.drain(..n));
            if queue.is_empty() {
                break;
            }
        }
        out.truncate(wanted);
        Some(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divisors_decode_to_rates_on_both_clocks() {
        // As the driver computes them: 48 MHz chips, then the FT2232H's 120 MHz clock.
        assert_eq!(baud(0x4138, 0), 9600);
        assert_eq!(nearest_standard_baud(baud(0x001a, 0)), 115_200);
        assert_eq!(nearest_standard_baud(baud(0x8003, 0)), 921_600);
        assert_eq!(baud(0, 0), 3_000_000);
        assert_eq!(baud(1, 0), 2_000_000);
        assert_eq!(nearest_standard_baud(baud(0xc068, 2)), 115_200);
    }

    #[test]
    fn each_packet_of_a_transfer_starts_with_the_status() {
        let mut queue: VecDeque<u8> = (0..130).collect();
        let sent = Ftdi::new(64).input(0, 512, &mut queue).unwrap();
        assert_eq!(sent.len(), 64 + 64 + 2 + 6);
        assert_eq!(
            [&sent[0..3], &sent[64..67], &sent[128..131]].concat(),
            [1, 0x60, 0, 1, 0x60, 62, 1, 0x60, 124]
        );
        assert!(queue.is_empty());
    }

    #[test]
    fn channels_count_from_one_in_the_index() {
        let (mut chip, mut lines) = (Ftdi::new(512), Lines::new(2));
        let setup = Setup {
            request_type: 0x40,
            request: 1,
            value: 0x0303,
            index: 2,
            length: 0,
        };
        chip.request(setup, &[], &mut lines);
        assert!(!lines.get(0).unwrap().dtr && lines.get(1).unwrap().dtr);
        let nowhere = Setup {
            index: 0xffff,
            ..setup
        };
        assert_eq!(chip.request(nowhere, &[], &mut lines), Answer::Done);
    }
}
