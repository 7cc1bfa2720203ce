//! `WinChipHead` CH340, as the `ch341` driver uses it.

use std::collections::HashMap;

use super::chip::{Answer, Chip};
use super::lines::{Lines, nearest_standard_baud};
use super::wire::Setup;

/// The chip's clock, Hz, from which the driver derives divisors.
const CLOCK: u32 = 48_000_000;

/// Registers, two of which every access names.
pub(super) struct Ch340 {
    registers: HashMap<u8, u8>,
}

impl Ch340 {
    pub(super) fn new() -> Self {
        // 0x06: modem inputs, active low; nothing is connected to them.
        Self {
            registers: HashMap::from([(0x06, 0x9f), (0x07, 0xee)]),
        }
    }

    /// Speed from prescaler (0x12) and divisor (0x13): the inverse of the driver's calculation.
    fn baud(&self) -> Option<u32> {
        let prescaler = *self.registers.get(&0x12)?;
        let divisor = 0x100 - u32::from(*self.registers.get(&0x13)?);
        let (ps, fact) = (prescaler & 3, prescaler >> 2 & 1);
        let clock_divider = 1_u32 << (12 - 3 * u32::from(ps) - u32::from(fact));
        Some(CLOCK / (clock_divider * divisor))
    }
}

impl Chip for Ch340 {
    fn request(&mut self, setup: Setup, _data: &[u8], lines: &mut Lines) -> Answer {
        let [low, high] = setup.value.to_le_bytes();
        match setup.request {
            // Version: a chip from 0x30 on has a line control register.
            0x5f => return Answer::Data(vec![0x31, 0x00]),
            // Read two registers.
            0x95 => {
                let read = |register| self.registers.get(&register).copied().unwrap_or(0);
                return Answer::Data(vec![read(low), read(high)]);
            }
            // Write two registers.
            0x9a => {
                let [first, second] = setup.index.to_le_bytes();
                self.registers.insert(low, first);
                self.registers.insert(high, second);
                if (low, high) == (0x12, 0x13)
                    && let Some(baud) = self.baud()
                {
                    lines.set_baud(0, nearest_standard_baud(baud));
                }
                // Register 0x05 bit 0 is clear during a break.
                if low == 0x05 {
                    lines.set_break(0, first & 1 == 0);
                }
            }
            // Serial initialisation.
            0xa1 => {}
            // Modem outputs, active low: DTR is bit 5, RTS bit 6.
            0xa4 => {
                lines.set_control(
                    0,
                    Some(setup.value & 0x20 == 0),
                    Some(setup.value & 0x40 == 0),
                );
            }
            _ => return Answer::Stall,
        }
        Answer::Done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_drivers_divisors_decode_to_the_rates_they_stand_for() {
        // Pairs of rate and register values as the driver computes them.
        for (baud, divisor, prescaler) in [
            (9600, 0xb2, 0x82),
            (115_200, 0xcc, 0x83),
            (921_600, 0xf3, 0x87),
            (1200, 0xb2, 0x81),
        ] {
            let (mut chip, mut lines) = (Ch340::new(), Lines::new(1));
            let index = u16::from_le_bytes([prescaler, divisor]);
            let setup = Setup {
                request_type: 0x40,
                request: 0x9a,
                value: 0x1312,
                index,
                length: 0,
            };
            assert_eq!(chip.request(setup, &[], &mut lines), Answer::Done);
            assert_eq!(
                lines.get(0).unwrap().baud,
                baud,
                "{prescaler:02x} {divisor:02x}"
            );
        }
    }
}
