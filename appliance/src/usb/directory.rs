//! A directory of sysfs that is read through one open descriptor: of one device, and without walking
//! its whole path for each of two dozen small files.

use std::{
    fs::File,
    io::Read,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    str::FromStr,
};

use rustix::{
    fs::{Mode, OFlags, open, openat, readlinkat},
    io::{read, retry_on_intr},
};

/// Longest file read: `descriptors` may hold 255 configurations, of which 64 KiB say enough.
const MAX_FILE: u64 = 64 * 1024;
/// An attribute fills one page at most, and is there whole at the first read
/// (Documentation/filesystems/sysfs.rst). This much is more than any of ours needs.
const ATTRIBUTE: usize = 1024;

/// The directory. What cannot be read in it is none: devices vanish at any time.
#[derive(Debug)]
pub(super) struct Directory(OwnedFd);

impl Directory {
    pub(super) fn open(path: &Path) -> Option<Self> {
        let flags = OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC;
        open(path, flags, Mode::empty()).ok().map(Self)
    }

    fn file(&self, name: &str) -> Option<OwnedFd> {
        openat(
            &self.0,
            name,
            OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .ok()
    }

    /// A binary file, or its beginning.
    pub(super) fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        let file = File::from(self.file(name)?);
        file.take(MAX_FILE).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }

    /// An attribute without its end of line.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        let file = self.file(name)?;
        let mut buffer = [0; ATTRIBUTE];
        let size = retry_on_intr(|| read(&file, &mut buffer)).ok()?;
        let bytes = buffer.get(..size)?;
        let text = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        Some(String::from_utf8_lossy(text).into_owned())
    }

    /// A string descriptor; empty is none.
    pub(super) fn string(&self, name: &str) -> Option<String> {
        self.text(name).filter(|text| !text.is_empty())
    }

    pub(super) fn number<N: FromStr>(&self, name: &str) -> Option<N> {
        self.text(name)?.trim().parse().ok()
    }

    /// The last part of what a link leads to.
    pub(super) fn link_name(&self, name: &str) -> Option<String> {
        let target = readlinkat(&self.0, name, Vec::new()).ok()?;
        let target = PathBuf::from(target.to_string_lossy().into_owned());
        Some(target.file_name()?.to_string_lossy().into_owned())
    }
}
