//! The Pi's own SSH key: made at the first start, used for the VM and nothing else.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{process::Command, sync::Mutex};

use super::public_key::{PublicKey, PublicKeyError};
use crate::system::durable;

/// The private key's file name in the SSH directory.
pub const FILE_NAME: &str = "id_ed25519";
/// The comment in the public key, by which a person knows it in authorized_keys.
const COMMENT: &str = "usbip-pi";
/// What the key may do on the VM; the seeds' handler, and nothing else.
const LIMITS: &str = r#"restrict,command="/usr/bin/usb-event-handler""#;
/// One at a time in this process: two that find no key would make it in each other's way.
static MAKING: Mutex<()> = Mutex::const_new(());
/// How long ssh-keygen may take. It needs milliseconds, but waits for the kernel's random number
/// generator on a first boot.
const KEYGEN_DEADLINE: Duration = Duration::from_mins(1);

/// Why there is no usable key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The directory or a file in it cannot be read, written or given its permissions.
    #[error("failed to {act} {}", path.display())]
    File {
        /// What was tried.
        act: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// ssh-keygen does not run.
    #[error("failed to run ssh-keygen")]
    Run(#[source] io::Error),
    /// ssh-keygen did not end in time.
    #[error("ssh-keygen did not end within {} s", KEYGEN_DEADLINE.as_secs())]
    Deadline,
    /// ssh-keygen refused.
    #[error("failed to {act} {}: {}", path.display(), said.trim())]
    Keygen {
        /// What was tried.
        act: &'static str,
        /// On what.
        path: PathBuf,
        /// What ssh-keygen said.
        said: String,
    },
    /// The public key's file holds none.
    #[error("{} holds no public key", path.display())]
    Public {
        /// The file.
        path: PathBuf,
        /// Why.
        source: PublicKeyError,
    },
}

/// The Pi's key, known to be there.
#[derive(Debug, Clone)]
pub struct Key {
    /// The private key.
    pub path: PathBuf,
    public: PublicKey,
}

impl Key {
    /// Makes the key if there is none, mends permissions and a lost public half, and reads it. A key
    /// that is there is never replaced, readable or not: the VM knows it.
    pub async fn ensure(dir: &Path) -> Result<Self, KeyError> {
        let _making = MAKING.lock().await;
        let path = dir.join(FILE_NAME);
        let public_path = path.with_extension("pub");
        let there = blocking({
            let (dir, path) = (dir.to_owned(), path.clone());
            move || prepare(&dir, &path)
        })
        .await?;
        if !there {
            make(&path).await?;
        }
        let there = public_path.exists();
        if !there {
            derive(&path, &public_path).await?;
        }
        let text = fs::read_to_string(&public_path)
            .map_err(|source| file_error("read", &public_path, source))?;
        let public = PublicKey::parse(&text).map_err(|source| KeyError::Public {
            path: public_path,
            source,
        })?;
        Ok(Self { path, public })
    }

    /// The public half, as one line for authorized_keys without limits.
    #[must_use]
    pub fn public_key(&self) -> String {
        format!("{} {COMMENT}", self.public)
    }

    /// The line that a person adds to `~/.ssh/authorized_keys` on the VM.
    #[must_use]
    pub fn authorized_keys_line(&self) -> String {
        format!("{LIMITS} {}", self.public_key())
    }

    /// The command that adds the line, for a shell on the VM. The line has double quotes, and no
    /// single ones.
    #[must_use]
    pub fn install_command(&self) -> String {
        format!(
            "mkdir -p -m 700 ~/.ssh && echo '{}' >> ~/.ssh/authorized_keys && chmod 600 ~/.ssh/authorized_keys",
            self.authorized_keys_line()
        )
    }

    /// The fingerprint as ssh-keygen shows it, `SHA256:` and base64.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        self.public.fingerprint()
    }
}

/// Makes the directory and mends permissions; whether there is a private key.
fn prepare(dir: &Path, path: &Path) -> Result<bool, KeyError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|source| file_error("make", dir, source))?;
    restrict(dir, 0o700)?;
    match fs::metadata(path) {
        Ok(_) => restrict(path, 0o600).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(file_error("read", path, source)),
    }
}

/// ssh refuses a private key that others may read.
fn restrict(path: &Path, mode: u32) -> Result<(), KeyError> {
    let held = fs::metadata(path).map_err(|source| file_error("read", path, source))?;
    if held.permissions().mode() & 0o777 == mode {
        return Ok(());
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(|source| file_error("set the permissions of", path, source))
}

async fn make(path: &Path) -> Result<(), KeyError> {
    // Made under another name: a power cut leaves either no key or a whole one.
    let draft = path.with_file_name("id_ed25519.draft");
    for leftover in [draft.clone(), draft.with_added_extension("pub")] {
        durable::remove(&leftover).map_err(|source| file_error("remove", &leftover, source))?;
    }
    let mut command = Command::new("ssh-keygen");
    command
        .args(["-q", "-t", "ed25519", "-N", "", "-C", COMMENT, "-f"])
        .arg(&draft);
    run(command, "make the key", path).await?;
    let path = path.to_owned();
    blocking(move || {
        for (from, to) in [
            (
                draft.with_added_extension("pub"),
                path.with_extension("pub"),
            ),
            // The private half last: where it is, both are.
            (draft.clone(), path.clone()),
        ] {
            fs::File::open(&from)
                .and_then(|file| file.sync_all())
                .and_then(|()| fs::rename(&from, &to))
                .and_then(|()| durable::sync_directory_of(&to))
                .map_err(|source| file_error("put in place", &to, source))?;
        }
        tracing::info!(key = %path.display(), "made the SSH key");
        Ok(())
    })
    .await
}

async fn derive(path: &Path, public_path: &Path) -> Result<(), KeyError> {
    let mut command = Command::new("ssh-keygen");
    // -P: a key with a passphrase is an error, not a question.
    command.args(["-y", "-P", "", "-f"]).arg(path);
    let mut line = run(command, "read the key", path).await?.trim().to_owned();
    if line.split(' ').count() == 2 {
        line = format!("{line} {COMMENT}");
    }
    let public_path = public_path.to_owned();
    blocking(move || {
        durable::replace(&public_path, format!("{line}\n").as_bytes(), 0o644)
            .map_err(|source| file_error("write", &public_path, source))
    })
    .await
}

async fn run(mut command: Command, act: &'static str, path: &Path) -> Result<String, KeyError> {
    let running = command
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(KEYGEN_DEADLINE, running)
        .await
        .map_err(|_| KeyError::Deadline)?
        .map_err(KeyError::Run)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(KeyError::Keygen {
        act,
        path: path.to_owned(),
        said: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, KeyError> + Send + 'static,
) -> Result<T, KeyError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(KeyError::Run(io::Error::other(error))),
    }
}

fn file_error(act: &'static str, path: &Path, source: io::Error) -> KeyError {
    KeyError::File {
        act,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn a_key_is_made_once_and_mended_afterwards() {
        let dir = tempfile::tempdir().unwrap();
        let ssh = dir.path().join("data/ssh");
        let key = Key::ensure(&ssh).await.unwrap();
        assert_eq!((mode(&ssh), mode(&key.path)), (0o700, 0o600));
        assert!(key.public_key().starts_with("ssh-ed25519 AAAA"));
        assert!(key.public_key().ends_with(" usbip-pi"));
        assert!(key.fingerprint().starts_with("SHA256:"));
        assert!(
            key.authorized_keys_line()
                .starts_with("restrict,command=\"/usr/bin/")
        );
        let private = fs::read(&key.path).unwrap();

        fs::remove_file(key.path.with_extension("pub")).unwrap();
        fs::set_permissions(&key.path, fs::Permissions::from_mode(0o644)).unwrap();
        fs::set_permissions(&ssh, fs::Permissions::from_mode(0o755)).unwrap();
        // As after a power cut while the key was made.
        fs::write(ssh.join("id_ed25519.draft"), "half").unwrap();
        let again = Key::ensure(&ssh).await.unwrap();
        assert_eq!(again.public_key(), key.public_key());
        assert_eq!(fs::read(&key.path).unwrap(), private);
        assert_eq!((mode(&ssh), mode(&key.path)), (0o700, 0o600));
    }

    #[tokio::test]
    async fn those_who_come_together_get_the_same_key() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = tokio::join!(Key::ensure(dir.path()), Key::ensure(dir.path()));
        assert_eq!(one.unwrap().public_key(), other.unwrap().public_key());
    }

    #[tokio::test]
    async fn a_half_made_key_is_made_anew_and_a_broken_one_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("id_ed25519.draft"), "half").unwrap();
        fs::write(dir.path().join("id_ed25519.draft.pub"), "half").unwrap();
        let key = Key::ensure(dir.path()).await.unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);

        fs::write(&key.path, "broken").unwrap();
        fs::remove_file(key.path.with_extension("pub")).unwrap();
        let error = Key::ensure(dir.path()).await.unwrap_err().to_string();
        assert!(error.contains("failed to read the key"), "{error}");
        assert_eq!(fs::read_to_string(&key.path).unwrap(), "broken");
    }
}
