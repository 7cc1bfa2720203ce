//! Silicon Labs CP2102, as the `cp210x` driver uses it (application note AN571).

use super::chip::{Answer, Chip};
use super::lines::Lines;
use super::wire::Setup;

/// The registers a driver reads back.
pub(super) struct Cp2102 {
    line_control: [u8; 2],
    flow: Vec<u8>,
}

impl Cp2102 {
    pub(super) fn new() -> Self {
        // Eight data bits, no parity, one stop bit.
        Self {
            line_control: [0x00, 0x08],
            flow: vec![0; 16],
        }
    }

    fn read(&self, setup: Setup, lines: &Lines) -> Answer {
        let line = lines.get(0);
        Answer::Data(match setup.request {
            // GET_LINE_CTL
            0x04 => self.line_control.to_vec(),
            // GET_MDMSTS: CTS, DSR and carrier are up; DTR and RTS as set.
            0x08 => {
                let (dtr, rts) = line.map_or((false, false), |line| (line.dtr, line.rts));
                vec![0xb0 | u8::from(dtr) | u8::from(rts) << 1]
            }
            // GET_COMM_STATUS: no errors, nothing queued.
            0x10 => vec![0; 19],
            // GET_FLOW
            0x14 => self.flow.clone(),
            // GET_BAUDRATE
            0x1d => line.map_or(0, |line| line.baud).to_le_bytes().to_vec(),
            // Vendor: part number 2 is the CP2102; it has no pins for general use to ask about.
            0xff if setup.value == 0x370b => vec![0x02],
            _ => return Answer::Stall,
        })
    }
}

impl Chip for Cp2102 {
    fn request(&mut self, setup: Setup, data: &[u8], lines: &mut Lines) -> Answer {
        if setup.is_input() {
            return self.read(setup, lines);
        }
        let value = setup.value;
        match (setup.request, data) {
            // IFC_ENABLE, PURGE, SET_CHARS
            (0x00 | 0x12 | 0x19, _) => {}
            // SET_LINE_CTL
            (0x03, _) => self.line_control = value.to_le_bytes(),
            // SET_BREAK
            (0x05, _) => lines.set_break(0, value != 0),
            // SET_MHS: the high byte says which of the two lines to touch.
            (0x07, _) => {
                let touched = |bit: u16| (value & (bit << 8) != 0).then_some(value & bit != 0);
                lines.set_control(0, touched(1), touched(2));
            }
            // SET_FLOW: DTR's mode in ulControlHandshake bits 1..0, RTS's in ulFlowReplace bits 7..6.
            (0x13, [dtr, _, _, _, rts, ..]) => {
                self.flow = data.to_vec();
                self.flow.resize(16, 0);
                lines.set_control(0, Some(dtr & 3 != 0), Some(rts >> 6 != 0));
            }
            // SET_BAUDRATE
            (0x1e, &[a, b, c, d, ..]) => lines.set_baud(0, u32::from_le_bytes([a, b, c, d])),
            _ => return Answer::Stall,
        }
        Answer::Done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speed_and_control_lines_reach_the_line() {
        let (mut chip, mut lines) = (Cp2102::new(), Lines::new(1));
        let out = |request, value| Setup {
            request_type: 0x41,
            request,
            value,
            index: 0,
            length: 0,
        };
        assert_eq!(
            chip.request(out(0x1e, 0), &921_600_u32.to_le_bytes(), &mut lines),
            Answer::Done
        );
        chip.request(out(0x07, 0x0101), &[], &mut lines);
        chip.request(out(0x07, 0x0202), &[], &mut lines);
        let line = lines.get(0).unwrap();
        assert_eq!((line.baud, line.dtr, line.rts), (921_600, true, true));
        assert_eq!(chip.request(out(0x1e, 0), &[1], &mut lines), Answer::Stall);
    }
}
