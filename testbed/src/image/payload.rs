//! The files of one run, as a cpio archive that a guest's initramfs unpacks over the root.
//!
//! The format is "newc" (Documentation/driver-api/early-userspace/buffer-format.rst): a header of
//! hexadecimal numbers, the name, the data, each padded to four bytes. All files belong to root.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

const FILE: u32 = 0o100_000;
const DIRECTORY: u32 = 0o040_000;
const LINK: u32 = 0o120_000;
/// A disk's size is a multiple of this.
const SECTOR: usize = 512;

/// An archive in the making.
#[derive(Debug, Default)]
pub struct Payload {
    bytes: Vec<u8>,
    count: u32,
}

impl Payload {
    /// An archive without files.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a file. `path` is relative to the guest's root; its folder must exist there or have been added.
    pub fn file(&mut self, path: &str, mode: u32, data: &[u8]) {
        self.entry(path, FILE | mode, data);
    }

    /// Adds a folder.
    pub fn directory(&mut self, path: &str) {
        self.entry(path, DIRECTORY | 0o755, &[]);
    }

    /// Adds a copy of a file of the host.
    pub fn copy(&mut self, path: &str, mode: u32, from: &Path) -> io::Result<()> {
        self.file(path, mode, &fs::read(from)?);
        Ok(())
    }

    /// Adds everything below `dir`: folders, files with their permissions, symbolic links.
    pub fn tree(&mut self, dir: &Path) -> io::Result<()> {
        self.below(dir, "")
    }

    fn below(&mut self, dir: &Path, prefix: &str) -> io::Result<()> {
        let mut entries = fs::read_dir(dir)?.collect::<Result<Vec<_>, _>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            let meta = entry.path().symlink_metadata()?;
            if meta.is_dir() {
                self.directory(&name);
                self.below(&entry.path(), &format!("{name}/"))?;
            } else if meta.is_symlink() {
                let target = fs::read_link(entry.path())?;
                self.entry(&name, LINK | 0o777, target.as_os_str().as_bytes());
            } else {
                // Whoever checked the sources out may have a strange umask; only the right to run is ours.
                let mode = if meta.permissions().mode() & 0o100 == 0 {
                    0o644
                } else {
                    0o755
                };
                self.copy(&name, mode, &entry.path())?;
            }
        }
        Ok(())
    }

    /// The finished archive, padded to whole sectors.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
            .resize(self.bytes.len().next_multiple_of(SECTOR), 0);
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, data: &[u8]) {
        self.count += 1;
        let links = if mode & DIRECTORY == DIRECTORY { 2 } else { 1 };
        // Inode, mode, user, group, links, time, size, device (4), length of the name with its zero, checksum.
        let fields = [
            self.count as usize,
            mode as usize,
            0,
            0,
            links,
            0,
            data.len(),
            0,
            0,
            0,
            0,
            name.len() + 1,
            0,
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes
                .extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(data);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn cpio_unpacks_what_was_packed() {
        let from = tempfile::tempdir().unwrap();
        fs::create_dir(from.path().join("etc")).unwrap();
        fs::write(from.path().join("etc/script"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(
            from.path().join("etc/script"),
            fs::Permissions::from_mode(0o700),
        )
        .unwrap();
        std::os::unix::fs::symlink("/data/usbip", from.path().join("etc/usbip")).unwrap();
        let mut payload = Payload::new();
        payload.tree(from.path()).unwrap();
        payload.file("odd", 0o600, b"12345");
        let archive = payload.finish();
        assert_eq!(archive.len() % SECTOR, 0);

        let to = tempfile::tempdir().unwrap();
        let mut cpio = Command::new("cpio")
            .args(["-idm", "--quiet", "--no-preserve-owner"])
            .current_dir(to.path())
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        cpio.stdin.take().unwrap().write_all(&archive).unwrap();
        assert!(cpio.wait().unwrap().success());
        assert_eq!(
            fs::read(to.path().join("etc/script")).unwrap(),
            b"#!/bin/sh\n"
        );
        let mode = fs::metadata(to.path().join("etc/script"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o755);
        assert_eq!(
            fs::read_link(to.path().join("etc/usbip")).unwrap(),
            Path::new("/data/usbip")
        );
        assert_eq!(fs::read(to.path().join("odd")).unwrap(), b"12345");
    }
}
