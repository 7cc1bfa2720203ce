//! The far side of an emulated device: its serial lines, and the log of what the guest asked.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::kind::Persona;
use super::wire::Setup;

/// Bytes one direction of a line holds at most. Towards the guest, more is refused; from the
/// guest, the device stops accepting until the bytes are taken, as a full UART would.
pub const LINE_CAPACITY: usize = 16 << 20;

/// Log entries kept; the oldest go first.
const LOG_CAPACITY: usize = 20_000;

/// Something that the guest did to the device, or that happened to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The device was announced to the guest under this vendor and product id.
    Connected {
        /// idVendor.
        vendor: u16,
        /// idProduct.
        product: u16,
    },
    /// The device was taken from the guest.
    Disconnected,
    /// The connection to QEMU ended.
    ConnectionLost,
    /// The guest reset the port.
    Reset,
    /// The guest chose a configuration; 0 is none.
    Configured(u8),
    /// The guest chose an alternate setting.
    AltSetting {
        /// Interface number.
        interface: u8,
        /// Setting.
        alt: u8,
    },
    /// The guest set a line's speed.
    Baud {
        /// Line, from 0.
        line: usize,
        /// Bits per second.
        baud: u32,
    },
    /// DTR or RTS of a line changed.
    Control {
        /// Line, from 0.
        line: usize,
        /// Data Terminal Ready.
        dtr: bool,
        /// Request To Send.
        rts: bool,
    },
    /// A break on a line began or ended.
    Break {
        /// Line, from 0.
        line: usize,
        /// Whether it began.
        on: bool,
    },
    /// A board was reset into its serial bootloader (true) or left it for the sketch (false).
    Bootloader(bool),
    /// A class or vendor request as it came, whether decoded above or not.
    Request {
        /// The setup packet.
        setup: Setup,
        /// The data of an OUT request.
        data: Vec<u8>,
        /// Whether the device refused.
        stalled: bool,
    },
}

/// An event and when it happened.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Time since the device was first plugged in.
    pub at: Duration,
    /// What happened.
    pub event: Event,
}

/// One serial line (or, on other devices, one pair of bulk endpoints).
#[derive(Debug, Clone)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one wire or one switch of its own"
)]
pub(super) struct Line {
    pub(super) to_guest: VecDeque<u8>,
    pub(super) received: Vec<u8>,
    pub(super) echo: bool,
    pub(super) baud: u32,
    pub(super) dtr: bool,
    pub(super) rts: bool,
    pub(super) on_break: bool,
}

/// A re-enumeration that a device asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) to: Persona,
    pub(super) after: Duration,
}

/// All lines of a device, its log, and what else a chip may do to the world.
#[derive(Debug)]
pub(super) struct Lines {
    all: Vec<Line>,
    log: VecDeque<Entry>,
    start: Instant,
    pub(super) change: Option<Change>,
}

impl Lines {
    pub(super) fn new(count: usize) -> Self {
        let idle = Line {
            to_guest: VecDeque::new(),
            received: Vec::new(),
            echo: false,
            baud: 9600,
            dtr: false,
            rts: false,
            on_break: false,
        };
        Self {
            all: vec![idle; count],
            log: VecDeque::new(),
            start: Instant::now(),
            change: None,
        }
    }

    pub(super) fn get(&self, line: usize) -> Option<&Line> {
        self.all.get(line)
    }

    pub(super) fn get_mut(&mut self, line: usize) -> Option<&mut Line> {
        self.all.get_mut(line)
    }

    /// Power was cut: control lines drop and bytes under way are lost, what was received stays.
    pub(super) fn power_off(&mut self) {
        for line in &mut self.all {
            line.to_guest.clear();
            line.baud = 9600;
            line.dtr = false;
            line.rts = false;
            line.on_break = false;
        }
    }

    pub(super) fn record(&mut self, event: Event) {
        if self.log.len() == LOG_CAPACITY {
            self.log.pop_front();
        }
        self.log.push_back(Entry {
            at: self.start.elapsed(),
            event,
        });
    }

    pub(super) fn log(&self) -> impl Iterator<Item = &Entry> {
        self.log.iter()
    }

    /// The guest set the speed; a line that does not exist is ignored.
    pub(super) fn set_baud(&mut self, line: usize, baud: u32) {
        if let Some(found) = self.all.get_mut(line) {
            found.baud = baud;
            self.record(Event::Baud { line, baud });
        }
    }

    /// The guest set DTR or RTS; `None` leaves one as it is. Returns whether DTR rose.
    pub(super) fn set_control(
        &mut self,
        line: usize,
        dtr: Option<bool>,
        rts: Option<bool>,
    ) -> bool {
        let Some(found) = self.all.get_mut(line) else {
            return false;
        };
        let before = (found.dtr, found.rts);
        found.dtr = dtr.unwrap_or(found.dtr);
        found.rts = rts.unwrap_or(found.rts);
        let (dtr, rts) = (found.dtr, found.rts);
        if before != (dtr, rts) {
            self.record(Event::Control { line, dtr, rts });
        }
        dtr && !before.0
    }

    /// The guest began or ended a break.
    pub(super) fn set_break(&mut self, line: usize, on: bool) {
        if let Some(found) = self.all.get_mut(line)
            && found.on_break != on
        {
            found.on_break = on;
            self.record(Event::Break { line, on });
        }
    }

    /// Bytes from the guest reach the far end.
    pub(super) fn receive(&mut self, line: usize, data: &[u8]) {
        if let Some(found) = self.all.get_mut(line) {
            found.received.extend(data);
            if found.echo {
                found.to_guest.extend(data);
            }
        }
    }

    /// The far end answers.
    pub(super) fn send(&mut self, line: usize, data: &[u8]) {
        if let Some(found) = self.all.get_mut(line) {
            found.to_guest.extend(data);
        }
    }

    /// Whether a line takes more bytes from the guest.
    pub(super) fn has_room(&self, line: usize) -> bool {
        self.all.get(line).is_none_or(|found| {
            found.received.len() < LINE_CAPACITY && found.to_guest.len() < LINE_CAPACITY
        })
    }
}

/// The standard rate that a divided clock must have been meant for: within 2 % of one, that one.
pub(super) fn nearest_standard_baud(actual: u32) -> u32 {
    const STANDARD: [u32; 24] = [
        300, 600, 1200, 1800, 2400, 4800, 9600, 19200, 38400, 57600, 74880, 115_200, 230_400,
        250_000, 460_800, 500_000, 576_000, 921_600, 1_000_000, 1_152_000, 1_500_000, 2_000_000,
        2_500_000, 3_000_000,
    ];
    STANDARD
        .into_iter()
        .find(|rate| actual.abs_diff(*rate) * 50 <= *rate)
        .unwrap_or(actual)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divided_rates_are_named_by_the_standard_rate() {
        assert_eq!(nearest_standard_baud(115_384), 115_200);
        assert_eq!(nearest_standard_baud(923_076), 921_600);
        assert_eq!(nearest_standard_baud(31_250), 31_250);
    }

    #[test]
    fn only_changes_of_the_control_lines_are_logged() {
        let mut lines = Lines::new(1);
        assert!(lines.set_control(0, Some(true), None));
        assert!(!lines.set_control(0, Some(true), None));
        lines.set_control(0, None, Some(true));
        lines.set_control(7, Some(true), Some(true));
        let log: Vec<_> = lines.log().map(|entry| entry.event.clone()).collect();
        let control = |dtr, rts| Event::Control { line: 0, dtr, rts };
        assert_eq!(log, [control(true, false), control(true, true)]);
    }
}
