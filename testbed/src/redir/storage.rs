//! A small writable disk: USB mass storage, bulk-only transport (class document 1.0), with the
//! few SCSI commands that Linux needs to use it.

use std::collections::VecDeque;

use super::chip::{Answer, Chip};
use super::lines::Lines;
use super::wire::Setup;

const SECTOR: usize = 512;
/// Sectors: 2 MiB, enough for a file system.
const SECTORS: u32 = 4096;
/// Bytes of a command block wrapper.
const COMMAND: usize = 31;

/// Sense: key and additional code.
type Sense = [u8; 2];
const NO_SENSE: Sense = [0, 0];
/// Illegal request, invalid command.
const INVALID_COMMAND: Sense = [5, 0x20];
/// Illegal request, address out of range.
const OUT_OF_RANGE: Sense = [5, 0x21];
/// Illegal request, invalid field.
const INVALID_FIELD: Sense = [5, 0x24];

/// Data of a WRITE that is still to come.
struct Write {
    tag: [u8; 4],
    at: usize,
    left: usize,
}

/// The disk.
pub(super) struct Storage {
    content: Vec<u8>,
    sense: Sense,
    write: Option<Write>,
    /// Transfers for the guest, each no longer than what it asked for.
    outbox: VecDeque<Vec<u8>>,
}

impl Storage {
    pub(super) fn new() -> Self {
        Self {
            content: vec![0; SECTORS as usize * SECTOR],
            sense: NO_SENSE,
            write: None,
            outbox: VecDeque::new(),
        }
    }

    /// Queues the command status wrapper; `residue` counts the bytes not moved.
    fn finish(&mut self, tag: [u8; 4], residue: usize, passed: bool) {
        let mut status = b"USBS".to_vec();
        status.extend(tag);
        status.extend(u32::try_from(residue).unwrap_or(u32::MAX).to_le_bytes());
        status.push(u8::from(!passed));
        self.outbox.push_back(status);
    }

    /// Byte range of a READ(10) or WRITE(10).
    fn range(&self, block: &[u8]) -> Result<(usize, usize), Sense> {
        let at = u32::from_be_bytes([block[2], block[3], block[4], block[5]]) as usize;
        let length = usize::from(u16::from_be_bytes([block[7], block[8]])) * SECTOR;
        let at = at.checked_mul(SECTOR).ok_or(OUT_OF_RANGE)?;
        if at + length > self.content.len() {
            Err(OUT_OF_RANGE)
        } else {
            Ok((at, length))
        }
    }

    /// Data for the guest of one command, empty where it has none.
    fn execute(&mut self, block: &[u8]) -> Result<Vec<u8>, Sense> {
        Ok(match block[0] {
            // TEST UNIT READY, START STOP UNIT, PREVENT REMOVAL, SYNCHRONIZE CACHE
            0x00 | 0x1b | 0x1e | 0x35 => Vec::new(),
            // REQUEST SENSE
            0x03 => {
                let [key, code] = std::mem::take(&mut self.sense);
                vec![
                    0x70, 0, key, 0, 0, 0, 0, 10, 0, 0, 0, 0, code, 0, 0, 0, 0, 0,
                ]
            }
            // INQUIRY: a removable disk; no vital product data.
            0x12 if block[1] & 1 == 0 => {
                let mut out = vec![0, 0x80, 4, 2, 31, 0, 0, 0];
                out.extend(b"Testbed Small disk      1.0 ");
                out
            }
            0x12 => return Err(INVALID_FIELD),
            // MODE SENSE: no pages, not write-protected.
            0x1a => vec![3, 0, 0, 0],
            0x5a => vec![0, 6, 0, 0, 0, 0, 0, 0],
            // READ CAPACITY: last sector, bytes of a sector.
            0x25 => [(SECTORS - 1).to_be_bytes(), [0, 0, 2, 0]].concat(),
            0x28 => {
                let (at, length) = self.range(block)?;
                self.content[at..at + length].to_vec()
            }
            _ => return Err(INVALID_COMMAND),
        })
    }

    fn command(&mut self, wrapper: &[u8; COMMAND]) {
        let tag = [wrapper[4], wrapper[5], wrapper[6], wrapper[7]];
        let wanted =
            u32::from_le_bytes([wrapper[8], wrapper[9], wrapper[10], wrapper[11]]) as usize;
        let to_guest = wrapper[12] & 0x80 != 0;
        let block = &wrapper[15..];
        let outcome = if block[0] == 0x2a {
            self.range(block).map(|(at, left)| {
                self.write = (left > 0).then_some(Write { tag, at, left });
                Vec::new()
            })
        } else {
            self.execute(block)
        };
        match outcome {
            Ok(_) if self.write.is_some() => {}
            Ok(mut data) => {
                data.truncate(wanted);
                let residue = wanted - data.len();
                if to_guest && wanted > 0 {
                    self.outbox.push_back(data);
                }
                self.finish(tag, residue, true);
            }
            Err(sense) => {
                self.sense = sense;
                if to_guest && wanted > 0 {
                    self.outbox.push_back(Vec::new());
                }
                self.finish(tag, wanted, false);
            }
        }
    }
}

impl Chip for Storage {
    fn request(&mut self, setup: Setup, _data: &[u8], _lines: &mut Lines) -> Answer {
        match (setup.request_type, setup.request) {
            // GET_MAX_LUN
            (0xa1, 0xfe) => Answer::Data(vec![0]),
            // Bulk-only reset
            (0x21, 0xff) => {
                self.write = None;
                self.outbox.clear();
                Answer::Done
            }
            _ => Answer::Stall,
        }
    }

    fn input(&mut self, _line: usize, wanted: usize, _queue: &mut VecDeque<u8>) -> Option<Vec<u8>> {
        let mut next = self.outbox.pop_front()?;
        if next.len() > wanted {
            self.outbox.push_front(next.split_off(wanted));
        }
        Some(next)
    }

    fn output(&mut self, _line: usize, data: &[u8], _lines: &mut Lines) {
        if let Some(write) = &mut self.write {
            let n = write.left.min(data.len());
            self.content[write.at..write.at + n].copy_from_slice(&data[..n]);
            write.at += n;
            write.left -= n;
            if write.left == 0 {
                let tag = write.tag;
                self.write = None;
                self.finish(tag, 0, true);
            }
        } else if let Some(wrapper) = data
            .first_chunk::<COMMAND>()
            .filter(|w| w.starts_with(b"USBC"))
        {
            self.command(wrapper);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn wrapper(wanted: u32, to_guest: bool, block: &[u8]) -> Vec<u8> {
        let mut out = b"USBCtag0".to_vec();
        out.extend(wanted.to_le_bytes());
        out.extend([if to_guest { 0x80 } else { 0 }, 0, 10]);
        out.extend(block);
        out.resize(COMMAND, 0);
        out
    }

    fn drain(disk: &mut Storage) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| disk.input(0, 1 << 20, &mut VecDeque::new())).collect()
    }

    #[test]
    fn what_is_written_is_read_back() {
        let (mut disk, mut lines) = (Storage::new(), Lines::new(1));
        disk.output(
            0,
            &wrapper(512, false, &[0x2a, 0, 0, 0, 0, 7, 0, 0, 1]),
            &mut lines,
        );
        disk.output(0, &[0x5a; 256], &mut lines);
        assert_eq!(drain(&mut disk), Vec::<Vec<u8>>::new());
        disk.output(0, &[0xa5; 256], &mut lines);
        assert_eq!(drain(&mut disk), [b"USBStag0\0\0\0\0\0".to_vec()]);
        disk.output(
            0,
            &wrapper(512, true, &[0x28, 0, 0, 0, 0, 7, 0, 0, 1]),
            &mut lines,
        );
        assert_eq!(drain(&mut disk)[0], [[0x5a; 256], [0xa5; 256]].concat());
    }

    #[test]
    fn a_refused_command_says_so_and_why() {
        let (mut disk, mut lines) = (Storage::new(), Lines::new(1));
        disk.output(
            0,
            &wrapper(512, true, &[0x28, 0, 0, 1, 0, 0, 0, 0, 1]),
            &mut lines,
        );
        let sent = drain(&mut disk);
        assert_eq!((sent[0].len(), sent[1][12]), (0, 1));
        disk.output(0, &wrapper(18, true, &[0x03]), &mut lines);
        let sense = &drain(&mut disk)[0];
        assert_eq!((sense[2], sense[12]), (5, 0x21));
    }

    proptest! {
        #[test]
        fn no_command_makes_it_panic(block in any::<[u8; 16]>(), wanted in any::<u32>(), data in any::<[u8; 32]>()) {
            let (mut disk, mut lines) = (Storage::new(), Lines::new(1));
            disk.output(0, &wrapper(wanted, data[0] & 1 == 0, &block), &mut lines);
            disk.output(0, &data, &mut lines);
            drain(&mut disk);
        }
    }
}
