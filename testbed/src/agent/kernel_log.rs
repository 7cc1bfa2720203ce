//! The kernel's log in the guest, read record by record from `/dev/kmsg`.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::io::retry_on_intr;

use super::KernelLine;

/// One read returns one record, cut to the buffer; the kernel's own limit is below this.
const RECORD: usize = 8192;

/// Everything in the log that is not older than `since_us`.
pub(super) fn read(since_us: u64) -> io::Result<Vec<KernelLine>> {
    let mut log = open()?;
    let mut lines = Vec::new();
    while let Some(line) = next(&mut log)? {
        if line.us >= since_us {
            lines.push(line);
        }
    }
    Ok(lines)
}

/// Writes a mark and returns its time in microseconds since boot.
pub(super) fn mark(token: &str) -> io::Result<u64> {
    let mut log = open()?;
    log.seek(SeekFrom::End(0))?;
    OpenOptions::new()
        .write(true)
        .open("/dev/kmsg")?
        .write_all(format!("<7>{}{token}\n", super::client::MARK).as_bytes())?;
    let end = Instant::now() + Duration::from_secs(10);
    while Instant::now() < end {
        if let Some(line) = next(&mut log)?
            && line.text.ends_with(token)
        {
            return Ok(line.us);
        }
    }
    Err(io::Error::new(
        ErrorKind::TimedOut,
        "the mark did not appear in the kernel's log",
    ))
}

/// Waits for the `count`th line not older than `since_us` that contains `text`, and returns its time in
/// microseconds since boot. Sleeps in between, so that a measurement under way is not disturbed.
pub(super) fn wait(since_us: u64, text: &str, count: usize, limit: Duration) -> io::Result<u64> {
    let mut log = open()?;
    let end = Instant::now() + limit;
    let mut seen = 0;
    loop {
        while let Some(line) = next(&mut log)? {
            if line.us >= since_us && line.text.contains(text) {
                seen += 1;
                if seen >= count {
                    return Ok(line.us);
                }
            }
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::new(
                ErrorKind::TimedOut,
                format!("{seen} of {count} lines came within {limit:?}"),
            ));
        }
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        retry_on_intr(|| poll(&mut [PollFd::new(&log, PollFlags::IN)], Some(&timeout)))?;
    }
}

fn open() -> io::Result<File> {
    let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).map_err(io::Error::other)?;
    OpenOptions::new()
        .read(true)
        .custom_flags(nonblocking)
        .open("/dev/kmsg")
}

/// The next record, none at the end of the log.
fn next(log: &mut File) -> io::Result<Option<KernelLine>> {
    let mut record = [0; RECORD];
    loop {
        match log.read(&mut record) {
            Ok(0) => return Ok(None),
            Ok(n) => {
                if let Some(line) = parse(&String::from_utf8_lossy(&record[..n])) {
                    return Ok(Some(line));
                }
            }
            Err(err) if err.kind() == ErrorKind::WouldBlock => return Ok(None),
            // The oldest records have been overwritten meanwhile; the next read goes on behind them.
            Err(err) if err.kind() == ErrorKind::BrokenPipe => {}
            Err(err) if err.kind() == ErrorKind::Interrupted => {}
            Err(err) => return Err(err),
        }
    }
}

/// `prefix,sequence,microseconds,flags;text`, then lines with properties
/// (Documentation/ABI/testing/dev-kmsg).
fn parse(record: &str) -> Option<KernelLine> {
    let (head, text) = record.split_once(';')?;
    let us = head.split(',').nth(2)?.parse().ok()?;
    let text = text.lines().next().unwrap_or_default().to_owned();
    Some(KernelLine { us, text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_gives_its_time_and_first_line() {
        let line =
            parse("6,339,5140900,-;usb 1-1: new full-speed USB device\n SUBSYSTEM=usb\n").unwrap();
        assert_eq!(
            (line.us, line.text.as_str()),
            (5_140_900, "usb 1-1: new full-speed USB device")
        );
        assert!(parse("garbage").is_none());
    }
}
