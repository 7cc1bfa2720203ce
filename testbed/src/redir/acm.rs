//! CDC-ACM serial functions (USB class definitions for communication devices, PSTN 1.2).

use std::time::Duration;

use super::chip::{Answer, Chip};
use super::kind::Persona;
use super::lines::{Change, Event, Lines};
use super::stk500::Bootloader;
use super::wire::Setup;

/// What a board does besides passing bytes.
enum Behaviour {
    Plain,
    /// A rising DTR resets the board into a serial bootloader, as on an Arduino Uno.
    ResetByDtr(Bootloader),
    /// Opening at 1200 Bd and closing asks for the bootloader, as on an Arduino Leonardo.
    Touch,
}

/// One serial function on one line.
pub(super) struct Acm {
    line: usize,
    coding: [u8; 7],
    behaviour: Behaviour,
}

/// Time from the touch to the device's leaving the bus: the watchdog's period in the Arduino core.
const TOUCH_DELAY: Duration = Duration::from_millis(120);

impl Acm {
    fn with(line: usize, behaviour: Behaviour) -> Self {
        // 9600 Bd, 8N1
        Self {
            line,
            coding: [0x80, 0x25, 0, 0, 0, 0, 8],
            behaviour,
        }
    }

    pub(super) fn new(line: usize) -> Self {
        Self::with(line, Behaviour::Plain)
    }

    pub(super) fn uno() -> Self {
        Self::with(0, Behaviour::ResetByDtr(Bootloader::new()))
    }

    pub(super) fn leonardo() -> Self {
        Self::with(0, Behaviour::Touch)
    }

    fn control_lines(&mut self, value: u16, lines: &mut Lines) {
        let before = lines.get(self.line).is_some_and(|line| line.dtr);
        let rose = lines.set_control(self.line, Some(value & 1 != 0), Some(value & 2 != 0));
        let fell = before && value & 1 == 0;
        match &mut self.behaviour {
            Behaviour::ResetByDtr(bootloader) if rose => {
                bootloader.reset();
                lines.record(Event::Bootloader(true));
            }
            Behaviour::Touch
                if fell && lines.get(self.line).is_some_and(|line| line.baud == 1200) =>
            {
                lines.change = Some(Change {
                    to: Persona::Bootloader,
                    after: TOUCH_DELAY,
                });
            }
            _ => {}
        }
    }
}

impl Chip for Acm {
    fn request(&mut self, setup: Setup, data: &[u8], lines: &mut Lines) -> Answer {
        match (setup.request_type, setup.request) {
            // SET_LINE_CODING
            (0x21, 0x20) => {
                let Some(coding) = data.first_chunk::<7>() else {
                    return Answer::Stall;
                };
                self.coding = *coding;
                let [a, b, c, d, ..] = self.coding;
                lines.set_baud(self.line, u32::from_le_bytes([a, b, c, d]));
            }
            // GET_LINE_CODING
            (0xa1, 0x21) => return Answer::Data(self.coding.to_vec()),
            // SET_CONTROL_LINE_STATE
            (0x21, 0x22) => self.control_lines(setup.value, lines),
            // SEND_BREAK: a duration, of which 0 ends the break.
            (0x21, 0x23) => lines.set_break(self.line, setup.value != 0),
            _ => return Answer::Stall,
        }
        Answer::Done
    }

    fn output(&mut self, line: usize, data: &[u8], lines: &mut Lines) {
        let Behaviour::ResetByDtr(bootloader) = &mut self.behaviour else {
            lines.receive(line, data);
            return;
        };
        let was_running = bootloader.is_running();
        let outcome = bootloader.take(data);
        if was_running && !bootloader.is_running() {
            lines.record(Event::Bootloader(false));
        }
        lines.send(line, &outcome.reply);
        lines.receive(line, &outcome.for_sketch);
    }

    fn flash(&self) -> Option<&[u8]> {
        match &self.behaviour {
            Behaviour::ResetByDtr(bootloader) => Some(bootloader.flash()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn out(request: u8, value: u16) -> Setup {
        Setup {
            request_type: 0x21,
            request,
            value,
            index: 0,
            length: 0,
        }
    }

    #[test]
    fn a_touch_is_a_close_at_1200_baud_and_nothing_else() {
        let (mut chip, mut lines) = (Acm::leonardo(), Lines::new(1));
        for (baud, expected) in [(115_200_u32, false), (1200, true)] {
            let mut coding = baud.to_le_bytes().to_vec();
            coding.extend([0, 0, 8]);
            chip.request(out(0x22, 3), &[], &mut lines);
            assert_eq!(
                chip.request(out(0x20, 0), &coding, &mut lines),
                Answer::Done
            );
            assert_eq!(lines.change, None);
            chip.request(out(0x22, 0), &[], &mut lines);
            assert_eq!(lines.change.is_some(), expected);
        }
    }

    #[test]
    fn a_short_line_coding_is_refused() {
        let (mut chip, mut lines) = (Acm::new(0), Lines::new(1));
        assert_eq!(
            chip.request(out(0x20, 0), &[1, 2, 3], &mut lines),
            Answer::Stall
        );
    }
}
