//! The VM's SSH host keys: pinned at pairing, under a name of their own, so that the VM may change
//! its address but not its identity.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::process::Command;

use super::public_key::PublicKey;
use crate::system::durable;

/// The name under which the keys are pinned; ssh looks them up by HostKeyAlias.
pub const ALIAS: &str = "usbip-vm";
/// The file's name in the SSH directory.
pub const FILE_NAME: &str = "known_hosts";
/// How long ssh-keyscan waits for each answer, in seconds; slow guests under emulation need several.
const SCAN_WAIT: u64 = 15;
/// How long a scan may take in all.
const SCAN_DEADLINE: Duration = Duration::from_secs(35);
/// The kinds of keys that are asked for, one after the other until there is an answer. Each costs a
/// connection that does not log in, for which OpenSSH since 9.8 shuts out whoever has too many.
const KINDS: [&str; 2] = ["ed25519", "ecdsa,rsa"];
/// More keys than any server has.
const MAX_KEYS: usize = 16;

/// Why host keys cannot be read, pinned or asked for.
#[derive(Debug, thiserror::Error)]
pub enum HostKeyError {
    /// The file cannot be read.
    #[error("failed to read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file cannot be written.
    #[error("failed to write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is nothing to pin.
    #[error("no host keys were given")]
    NoKeys,
    /// ssh-keyscan does not run.
    #[error("failed to run ssh-keyscan")]
    Run(#[source] io::Error),
    /// The host showed no key.
    #[error("{host} showed no SSH host key: {}", said.trim())]
    NotShown {
        /// The host.
        host: String,
        /// What ssh-keyscan said.
        said: String,
    },
}

/// The pinned keys, in their file.
#[derive(Debug, Clone)]
pub struct Pins {
    path: PathBuf,
}

impl Pins {
    /// The pins in an SSH directory.
    #[must_use]
    pub fn new(ssh_dir: &Path) -> Self {
        Self {
            path: ssh_dir.join(FILE_NAME),
        }
    }

    /// The file, in the format of OpenSSH's known_hosts.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The pinned keys; none before a pairing. Lines that are no keys are logged and left out.
    pub fn keys(&self) -> Result<Vec<PublicKey>, HostKeyError> {
        let text = match fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => {
                return Err(HostKeyError::Read {
                    path: self.path.clone(),
                    source,
                });
            }
        };
        let pinned = text.lines().filter_map(|line| line.strip_prefix(ALIAS));
        Ok(keys_of(pinned.filter(|rest| rest.starts_with(' '))))
    }

    /// The fingerprints of the pinned keys.
    pub fn fingerprints(&self) -> Result<Vec<String>, HostKeyError> {
        Ok(self.keys()?.iter().map(PublicKey::fingerprint).collect())
    }

    /// Pins these keys in place of those before. Blocks for as long as the disk takes.
    pub fn pin(&self, keys: &[PublicKey]) -> Result<(), HostKeyError> {
        if keys.is_empty() {
            return Err(HostKeyError::NoKeys);
        }
        let lines: Vec<_> = keys.iter().map(|key| format!("{ALIAS} {key}\n")).collect();
        durable::replace(&self.path, lines.concat().as_bytes(), 0o600).map_err(|source| {
            HostKeyError::Write {
                path: self.path.clone(),
                source,
            }
        })
    }

    /// Forgets the keys. Blocks for as long as the disk takes.
    pub fn forget(&self) -> Result<(), HostKeyError> {
        durable::remove(&self.path).map_err(|source| HostKeyError::Write {
            path: self.path.clone(),
            source,
        })
    }
}

/// Asks a host for its keys, without trusting them. The host must have passed
/// [`check_host`](super::conf::check_host).
pub async fn scan(host: &str, port: u16) -> Result<Vec<PublicKey>, HostKeyError> {
    let not_shown = |said: &str| HostKeyError::NotShown {
        host: host.to_owned(),
        said: said.to_owned(),
    };
    let scan = async {
        let mut failure = not_shown("no answer");
        for kind in KINDS {
            match ask(host, port, kind).await {
                Err(error @ HostKeyError::NotShown { .. }) => failure = error,
                other => return other,
            }
        }
        Err(failure)
    };
    let deadline = SCAN_DEADLINE.as_secs();
    tokio::time::timeout(SCAN_DEADLINE, scan)
        .await
        .unwrap_or_else(|_| Err(not_shown(&format!("no answer within {deadline} s"))))
}

async fn ask(host: &str, port: u16, kinds: &str) -> Result<Vec<PublicKey>, HostKeyError> {
    let mut command = Command::new("ssh-keyscan");
    command
        .args(["-T", &SCAN_WAIT.to_string(), "-p", &port.to_string()])
        .args(["-t", kinds, "--", host])
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true);
    let output = command.output().await.map_err(HostKeyError::Run)?;
    let text = String::from_utf8_lossy(&output.stdout);
    // HOST TYPE BASE64
    let shown = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once(' '));
    let keys = keys_of(shown.map(|(_, rest)| rest));
    if keys.is_empty() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said: Vec<_> = said.lines().filter(|line| !line.starts_with('#')).collect();
        let said = (*said.last().unwrap_or(&"no answer")).to_owned();
        let host = host.to_owned();
        return Err(HostKeyError::NotShown { host, said });
    }
    Ok(keys)
}

fn keys_of<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<PublicKey> {
    let keys = lines.filter_map(|line| {
        PublicKey::parse(line)
            .inspect_err(|error| tracing::warn!(%error, "host key left out"))
            .ok()
    });
    keys.take(MAX_KEYS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";

    #[test]
    fn pins_are_kept_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let pins = Pins::new(dir.path());
        assert!(pins.keys().unwrap().is_empty());
        let key = PublicKey::parse(&format!("{KEY} root@vm\n")).unwrap();
        pins.pin(std::slice::from_ref(&key)).unwrap();
        assert_eq!(
            fs::read_to_string(pins.path()).unwrap(),
            format!("usbip-vm {KEY}\n")
        );
        assert_eq!(pins.keys().unwrap(), std::slice::from_ref(&key));
        assert_eq!(pins.fingerprints().unwrap(), [key.fingerprint()]);
        pins.forget().unwrap();
        pins.forget().unwrap();
        assert!(pins.keys().unwrap().is_empty());
    }

    #[test]
    fn nonsense_is_no_pin() {
        let dir = tempfile::tempdir().unwrap();
        let pins = Pins::new(dir.path());
        assert!(matches!(pins.pin(&[]), Err(HostKeyError::NoKeys)));
        fs::write(
            pins.path(),
            format!("usbip-vm junk\nother {KEY}\nusbip-vm2 {KEY}\n"),
        )
        .unwrap();
        assert!(pins.keys().unwrap().is_empty());
    }
}
