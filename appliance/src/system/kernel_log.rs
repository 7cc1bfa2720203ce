//! The box's log is the kernel's ring: bounded, in memory, and still there when the appliance has
//! crashed and come back. init leads the appliance's output to `/dev/kmsg`, so the kernel's and the
//! appliance's lines are in one order.
//!
//! - [`Writer`]: puts each line there with its level
//! - [`KernelLog`]: reads them

use std::{
    fs::OpenOptions,
    io::{self, Read as _, Write},
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::fs::OFlags;
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// The device.
pub const PATH: &str = "/dev/kmsg";
/// Its number: character device 1:11 (Documentation/admin-guide/devices.txt).
const NUMBER: (u32, u32) = (1, 11);
/// The longest line that the kernel takes is 1024 bytes with its prefix (PRINTKRB_RECORD_MAX); it
/// refuses a longer one, so those are cut.
const LONGEST: usize = 1000;
/// The longest record that a read returns, in bytes (PRINTK_MESSAGE_MAX is 2048 before 6.13).
const RECORD: usize = 8192;
/// The lowest facility of user space; 0 is the kernel's own.
const USER: u32 = 1;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Counts up; a gap is lines that were overwritten.
    pub sequence: u64,
    /// Since the kernel started.
    pub at: Duration,
    /// 0 (emergency) to 7 (debug), as syslog has them.
    pub level: u8,
    /// From the kernel itself, not from a program.
    pub kernel: bool,
    /// The text; unprintable bytes as `\xNN`.
    pub text: String,
}

/// The ring.
#[derive(Debug, Clone)]
pub struct KernelLog {
    path: PathBuf,
}

impl Default for KernelLog {
    fn default() -> Self {
        Self::new(Path::new(PATH))
    }
}

impl KernelLog {
    /// The ring behind this device.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
        }
    }

    /// All that is in it, oldest first. Blocks for some milliseconds.
    pub fn lines(&self) -> io::Result<Vec<Line>> {
        let mut device = OpenOptions::new()
            .read(true)
            .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
            .open(&self.path)?;
        let mut lines = Vec::new();
        let mut record = vec![0; RECORD];
        loop {
            match device.read(&mut record) {
                Ok(0) => break,
                Ok(length) => {
                    let text = String::from_utf8_lossy(&record[..length]);
                    lines.extend(text.lines().filter_map(parse));
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => break,
                    // Overwritten while it was read: goes on with the oldest that is left.
                    io::ErrorKind::BrokenPipe | io::ErrorKind::Interrupted => {}
                    _ => return Err(error),
                },
            }
        }
        Ok(lines)
    }
}

/// `PRIORITY,SEQUENCE,MICROSECONDS,FLAGS[,...];TEXT` (Documentation/ABI/testing/dev-kmsg). None for
/// the lines of properties that may follow, which begin with a space.
fn parse(line: &str) -> Option<Line> {
    let (head, text) = line.split_once(';')?;
    let mut fields = head.split(',');
    let priority: u32 = fields.next()?.parse().ok()?;
    let sequence = fields.next()?.parse().ok()?;
    let micros = fields.next()?.parse().ok()?;
    Some(Line {
        sequence,
        at: Duration::from_micros(micros),
        level: u8::try_from(priority & 7).ok()?,
        kernel: priority >> 3 < USER,
        text: text.to_owned(),
    })
}

/// Writes log lines to standard output; with the kernel's level in front where that is its ring.
#[derive(Debug, Clone, Copy)]
pub struct Writer {
    levels: bool,
}

impl Writer {
    /// Looks at what standard output is.
    #[must_use]
    pub fn new() -> Self {
        let kmsg = std::fs::metadata("/dev/stdout").is_ok_and(|meta| {
            let device = meta.rdev();
            let number = (rustix::fs::major(device), rustix::fs::minor(device));
            meta.file_type().is_char_device() && number == NUMBER
        });
        Self { levels: kmsg }
    }
}

impl Default for Writer {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a> MakeWriter<'a> for Writer {
    type Writer = LineWriter;

    fn make_writer(&'a self) -> LineWriter {
        LineWriter { level: None }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> LineWriter {
        LineWriter {
            level: self.levels.then(|| syslog(*meta.level())),
        }
    }
}

fn syslog(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

/// Writes what it is given as one line, in one write: the kernel makes a record of each.
#[derive(Debug)]
pub struct LineWriter {
    level: Option<u8>,
}

impl Write for LineWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut out = io::stdout().lock();
        match self.level {
            Some(level) => out.write_all(&record(level, line))?,
            None => out.write_all(line)?,
        }
        out.flush()?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn record(level: u8, line: &[u8]) -> Vec<u8> {
    let mut end = line.len().min(LONGEST);
    // Not in the middle of a character.
    while end < line.len() && end > 0 && line[end] & 0b1100_0000 == 0b1000_0000 {
        end -= 1;
    }
    let mut record = format!("<{level}>").into_bytes();
    record.extend_from_slice(&line[..end]);
    if end < line.len() {
        record.extend_from_slice("…\n".as_bytes());
    }
    record
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_the_kernel_and_of_programs_are_read_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kmsg");
        let text = "6,339,5140900,-;usb 1-1: Product: Board\\x1b[2J\n SUBSYSTEM=usb\n DEVICE=+usb:1-1\n\
                    11,340,5150900,-,caller=T1;ERROR appliance: failed; twice\nrubbish\n";
        std::fs::write(&path, text).unwrap();
        let lines = KernelLog::new(&path).lines().unwrap();
        assert_eq!(
            lines,
            [
                Line {
                    sequence: 339,
                    at: Duration::from_micros(5_140_900),
                    level: 6,
                    kernel: true,
                    text: "usb 1-1: Product: Board\\x1b[2J".into(),
                },
                Line {
                    sequence: 340,
                    at: Duration::from_micros(5_150_900),
                    level: 3,
                    kernel: false,
                    text: "ERROR appliance: failed; twice".into(),
                },
            ]
        );
    }

    #[test]
    fn a_line_that_the_kernel_would_refuse_is_cut_between_characters() {
        let long = "é".repeat(700) + "\n";
        let record = record(3, long.as_bytes());
        assert!(record.len() < 1024);
        let text = String::from_utf8(record).unwrap();
        assert!(text.starts_with("<3>é") && text.ends_with("é…\n"), "{text}");
        assert_eq!(super::record(6, b"short\n"), b"<6>short\n");
    }
}
