//! The Arduino Uno's serial bootloader: STK500 version 1 (Atmel application note AVR061) as
//! Optiboot speaks it, with the flash memory of an `ATmega328P`.

/// Bytes of flash memory.
const FLASH_SIZE: usize = 32 * 1024;
/// Signature bytes of the `ATmega328P`.
const SIGNATURE: [u8; 3] = [0x1e, 0x95, 0x0f];
/// Optiboot's version, major and minor.
const VERSION: [u8; 2] = [4, 4];
/// Longest block of one command, bytes; a page has 128.
const MAX_BLOCK: usize = 512;

/// End of every command.
const END_OF_COMMAND: u8 = 0x20;
const GET_SYNC: u8 = 0x30;
const IN_SYNC: u8 = 0x14;
const OK: u8 = 0x10;
const NO_SYNC: u8 = 0x15;

/// What came of some bytes from the guest.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    /// Bytes for the guest.
    pub(super) reply: Vec<u8>,
    /// Bytes that are not the bootloader's business.
    pub(super) for_sketch: Vec<u8>,
}

/// The bootloader and the memory it writes.
///
/// The real one waits about a second for a command. This one has no clock: it hands over to the
/// sketch at the first byte that cannot start a synchronisation.
pub(super) struct Bootloader {
    flash: Vec<u8>,
    running: bool,
    in_sync: bool,
    /// Byte address.
    address: usize,
    pending: Vec<u8>,
}

impl Bootloader {
    pub(super) fn new() -> Self {
        Self {
            flash: vec![0xff; FLASH_SIZE],
            running: false,
            in_sync: false,
            address: 0,
            pending: Vec::new(),
        }
    }

    /// The board's reset line was pulled.
    pub(super) fn reset(&mut self) {
        self.running = true;
        self.in_sync = false;
        self.pending.clear();
    }

    pub(super) fn is_running(&self) -> bool {
        self.running
    }

    pub(super) fn flash(&self) -> &[u8] {
        &self.flash
    }

    /// Takes bytes from the guest.
    pub(super) fn take(&mut self, data: &[u8]) -> Outcome {
        let mut outcome = Outcome::default();
        self.pending.extend(data);
        while self.running && !self.pending.is_empty() {
            if !self.in_sync {
                let sync = [GET_SYNC, END_OF_COMMAND];
                if !sync.starts_with(&self.pending[..self.pending.len().min(2)]) {
                    self.running = false;
                    break;
                }
            }
            let Some(length) = self.command_length() else {
                return outcome;
            };
            if self.pending.len() < length {
                return outcome;
            }
            let command: Vec<u8> = self.pending.drain(..length).collect();
            self.execute(&command, &mut outcome.reply);
        }
        if !self.running {
            outcome.for_sketch = std::mem::take(&mut self.pending);
        }
        outcome
    }

    /// Bytes of the command that starts the pending ones, its end mark included; `None` while
    /// too few have come to tell.
    fn command_length(&self) -> Option<usize> {
        let pending = &self.pending;
        Some(match pending.first()? {
            // Get parameter
            0x41 => 3,
            // Set device
            0x42 => 22,
            // Set extended device parameters: a count that includes itself, then the parameters.
            0x45 => 2 + usize::from(*pending.get(1)?),
            // Load address
            0x55 => 4,
            // Universal: four bytes for the programming interface
            0x56 => 6,
            // Program page: length, memory type, data
            0x64 => 5 + block_length(pending)?.min(MAX_BLOCK),
            // Read page
            0x74 => 5,
            _ => 2,
        })
    }

    fn execute(&mut self, command: &[u8], reply: &mut Vec<u8>) {
        if command.last() != Some(&END_OF_COMMAND) {
            self.pending.clear();
            reply.push(NO_SYNC);
            return;
        }
        self.in_sync = true;
        reply.push(IN_SYNC);
        match command {
            [0x41, 0x81, _] => reply.push(VERSION[0]),
            [0x41, 0x82, _] => reply.push(VERSION[1]),
            // Parameters that the board has none of.
            [0x41, ..] => reply.push(0x03),
            [0x51, _] => self.running = false,
            // An address counts words of two bytes.
            [0x55, low, high, _] => {
                self.address = 2 * usize::from(u16::from_le_bytes([*low, *high]));
            }
            [0x56, ..] => reply.push(0x00),
            [0x64, _, _, memory, data @ .., _] => self.program(*memory, data),
            [0x74, _, _, memory, _] => {
                let length = block_length(command).unwrap_or(0).min(MAX_BLOCK);
                reply.extend(self.read(*memory, length));
            }
            [0x75, _] => reply.extend(SIGNATURE),
            // Synchronise, set parameters, enter programming, erase, and what Optiboot ignores too.
            _ => {}
        }
        reply.push(OK);
    }

    /// Writes a page of flash; the EEPROM is left out, as in the Uno's own Optiboot.
    fn program(&mut self, memory: u8, data: &[u8]) {
        if memory == b'F'
            && let Some(page) = self.flash.get_mut(self.address..self.address + data.len())
        {
            page.copy_from_slice(data);
        }
    }

    fn read(&self, memory: u8, length: usize) -> Vec<u8> {
        let page = self.flash.get(self.address..self.address + length);
        page.filter(|_| memory == b'F')
            .map_or_else(|| vec![0xff; length], <[u8]>::to_vec)
    }
}

/// Big-endian length that follows a page command's code.
fn block_length(command: &[u8]) -> Option<usize> {
    Some(usize::from(u16::from_be_bytes([
        *command.get(1)?,
        *command.get(2)?,
    ])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn started() -> Bootloader {
        let mut bootloader = Bootloader::new();
        bootloader.reset();
        bootloader
    }

    #[test]
    fn an_upload_is_written_read_back_and_left() {
        let mut b = started();
        // A command may arrive in pieces.
        assert!(b.take(&[0x30]).reply.is_empty());
        assert_eq!(b.take(&[0x20, 0x30, 0x20]).reply, [0x14, 0x10, 0x14, 0x10]);
        assert_eq!(b.take(&[0x41, 0x81, 0x20]).reply, [0x14, 4, 0x10]);
        let mut device = [0x42; 22];
        device[21] = 0x20;
        assert_eq!(b.take(&device).reply, [0x14, 0x10]);
        assert_eq!(
            b.take(&[0x45, 5, 4, 0xd7, 0xc2, 0, 0x20]).reply,
            [0x14, 0x10]
        );
        assert_eq!(b.take(&[0x50, 0x20]).reply, [0x14, 0x10]);
        assert_eq!(b.take(&[0x75, 0x20]).reply, [0x14, 0x1e, 0x95, 0x0f, 0x10]);
        assert_eq!(
            b.take(&[0x56, 0xac, 0x80, 0, 0, 0x20]).reply,
            [0x14, 0, 0x10]
        );
        b.take(&[0x55, 0x40, 0x00, 0x20]);
        assert_eq!(
            b.take(&[0x64, 0, 4, b'F', 1, 0x20, 3, 4, 0x20]).reply,
            [0x14, 0x10]
        );
        assert_eq!(
            b.take(&[0x74, 0, 4, b'F', 0x20]).reply,
            [0x14, 1, 0x20, 3, 4, 0x10]
        );
        assert_eq!(b.flash()[0x80..0x85], [1, 0x20, 3, 4, 0xff]);
        let last = b.take(&[0x51, 0x20, b'h', b'i']);
        assert_eq!(
            (last.reply, last.for_sketch),
            (vec![0x14, 0x10], b"hi".to_vec())
        );
    }

    #[test]
    fn other_bytes_go_to_the_sketch() {
        let mut b = started();
        assert_eq!(b.take(b"hello").for_sketch, b"hello");
        assert_eq!(b.take(&[0x30, 0x20]).for_sketch, [0x30, 0x20]);
    }

    #[test]
    fn a_page_beyond_the_memory_is_ignored() {
        let mut b = started();
        b.take(&[0x30, 0x20, 0x55, 0xff, 0xff, 0x20]);
        assert_eq!(b.take(&[0x64, 0, 1, b'F', 9, 0x20]).reply, [0x14, 0x10]);
        assert!(b.flash().iter().all(|&byte| byte == 0xff));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(data in prop::collection::vec(any::<u8>(), 0..2000)) {
            let mut b = started();
            b.take(&[0x30, 0x20]);
            b.take(&data);
        }
    }
}
