//! The user's `~/.ssh/authorized_keys`.
//!
//! Root writes in a folder that belongs to the user, who must not be able to turn that against another
//! file: no symbolic link is followed below the home directory.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::fd::{AsFd, OwnedFd},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use rustix::{
    fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid},
    io::Errno,
};

use super::{JoinError, user::User};
use crate::{forced::HANDLER, root::Root, run};

/// The largest file that is read, in bytes.
const MOST: u64 = 1024 * 1024;
const FILE: &str = "authorized_keys";
const DRAFT: &str = "authorized_keys.usbip-new";
/// How long setting SELinux' labels may take.
const LABELS: Duration = Duration::from_secs(20);

/// The file as it was, and where it is.
pub(super) struct AuthorizedKeys {
    dir: OwnedFd,
    path: PathBuf,
    owner: (Uid, Gid),
    before: Option<String>,
    made_dir: bool,
}

impl AuthorizedKeys {
    /// Read the file; its folder is made if there is none.
    pub(super) fn read(root: &Root, user: &User) -> Result<Self, JoinError> {
        let home = root.path(&user.home.to_string_lossy());
        let ssh = home.join(".ssh");
        let failed = |act, path: &Path| {
            let path = path.to_owned();
            move |errno: Errno| JoinError::Keys {
                act,
                path,
                source: errno.into(),
            }
        };
        let folder = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let home_fd =
            rustix::fs::open(&home, folder, Mode::empty()).map_err(failed("open", &home))?;
        let owner = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
        let made = rustix::fs::mkdirat(&home_fd, ".ssh", Mode::RWXU);
        let made_dir = match made {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(errno) => return Err(failed("make", &ssh)(errno)),
        };
        let dir = rustix::fs::openat(&home_fd, ".ssh", folder | OFlags::NOFOLLOW, Mode::empty())
            .map_err(failed("open", &ssh))?;
        if made_dir {
            rustix::fs::fchown(&dir, Some(owner.0), Some(owner.1))
                .map_err(failed("give to the user", &ssh))?;
        }
        let path = ssh.join(FILE);
        let before = read(&dir).map_err(|source| JoinError::Keys {
            act: "read",
            path: path.clone(),
            source,
        })?;
        Ok(Self {
            dir,
            path,
            owner,
            before,
            made_dir,
        })
    }

    /// Let this key in, and no other Pi's.
    pub(super) fn authorize(&self, line: &str) -> Result<(), JoinError> {
        let before = self.before.as_deref().unwrap_or_default();
        let text = with(before, line);
        if text != before {
            self.write(&text).map_err(|source| JoinError::Keys {
                act: "write",
                path: self.path.clone(),
                source,
            })?;
        }
        label(&self.path);
        Ok(())
    }

    /// As it was. Best effort: the error that is told is the one that led here.
    pub(super) fn restore(&self) {
        let _ = match &self.before {
            Some(text) => self.write(text),
            None => rustix::fs::unlinkat(&self.dir, FILE, AtFlags::empty()).map_err(Into::into),
        };
        if self.made_dir
            && let Some(dir) = self.path.parent()
        {
            let _ = fs::remove_dir(dir);
        }
    }

    fn write(&self, text: &str) -> io::Result<()> {
        match rustix::fs::unlinkat(&self.dir, DRAFT, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let mut file = File::from(rustix::fs::openat(&self.dir, DRAFT, flags, mode)?);
        rustix::fs::fchown(file.as_fd(), Some(self.owner.0), Some(self.owner.1))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        Ok(rustix::fs::renameat(&self.dir, DRAFT, &self.dir, FILE)?)
    }
}

fn read(dir: &OwnedFd) -> io::Result<Option<String>> {
    // Not blocking, in case it is a pipe.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(dir, FILE, flags, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    };
    let stat = rustix::fs::fstat(&file)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(io::Error::other("it is no plain file"));
    }
    let mut text = String::new();
    File::from(file).take(MOST + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MOST {
        return Err(io::Error::other("it is too large"));
    }
    Ok(Some(text))
}

/// The line that lets a key run the handler and nothing else; none where it is no key.
pub(super) fn limited(key: &str) -> Option<String> {
    let mut words = key.split_ascii_whitespace();
    let (algorithm, blob) = (words.next()?, words.next()?);
    let plain = |text: &str, also: &[u8]| {
        text.bytes()
            .all(|b| b.is_ascii_alphanumeric() || also.contains(&b))
    };
    let is_key = algorithm.starts_with("ssh-") && plain(algorithm, b"-") && plain(blob, b"+/=");
    is_key.then(|| format!("restrict,command=\"{HANDLER}\" {algorithm} {blob} usbip-pi"))
}

/// The file with this line in the place of any other Pi's.
fn with(before: &str, line: &str) -> String {
    let other = format!("command=\"{HANDLER}\"");
    let mut text = String::new();
    for kept in before.lines().filter(|kept| !kept.contains(&other)) {
        text.push_str(kept);
        text.push('\n');
    }
    text.push_str(line);
    text.push('\n');
    text
}

/// A file that root makes has a label of its own under SELinux, and sshd would not read it.
fn label(path: &Path) {
    let mut restorecon = Command::new("restorecon");
    restorecon.arg("-F").arg("-R").args(path.parent());
    // Where there is none, there are no labels.
    let _ = run::output(restorecon, LABELS);
}

/// A file that is gone when this is dropped.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    pub(super) fn new(dir: &Path, content: &str) -> io::Result<Self> {
        let path = dir.join(format!("vm-helper-{}.pub", std::process::id()));
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        let scratch = Self(path);
        writeln!(file, "{content}")?;
        Ok(scratch)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "restrict,command=\"/usr/bin/usb-event-handler\" ssh-ed25519 AAAA usbip-pi";

    #[test]
    fn the_line_is_there_once_and_the_others_stay() {
        assert_eq!(with("", LINE), format!("{LINE}\n"));
        let before = "# mine\nssh-ed25519 BBBB ann";
        let after = with(before, LINE);
        assert_eq!(after, format!("{before}\n{LINE}\n"));
        assert_eq!(with(&after, LINE), after);
        let other = LINE.replace("AAAA", "CCCC");
        assert_eq!(with(&after, &other), format!("{before}\n{other}\n"));
    }

    #[test]
    fn a_key_is_limited_to_the_handler_whatever_is_sent() {
        assert_eq!(limited("ssh-ed25519 AAAA x").as_deref(), Some(LINE));
        for bad in [
            "",
            "ssh-ed25519",
            "pty,ssh-ed25519 AAAA",
            "command=\"sh\" ssh-ed25519 AAAA",
            "ssh-ed25519 AA\"AA",
        ] {
            assert_eq!(limited(bad), None, "{bad}");
        }
        // Nothing behind the key gets in.
        assert_eq!(
            limited("ssh-ed25519 AAAA x\nssh-rsa BBBB").as_deref(),
            Some(LINE)
        );
    }
}
