//! `/etc/usbip/vm.conf`: the record of the pairing.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::sync::watch;

use super::event::Pairing;
use crate::system::{
    conf_file::{self, ConfError, Problem},
    durable,
};

/// Where the record is.
pub const PATH: &str = "/etc/usbip/vm.conf";
/// The user on the VM when the file names none (as the seeds' scripts have it).
pub const DEFAULT_USER: &str = "dev";
/// The longest DNS name, in characters (RFC 1035, 2.3.4); addresses are shorter.
const MAX_HOST: usize = 253;
/// The longest user name (LOGIN_NAME_MAX on Linux is 256; useradd allows 32).
const MAX_USER: usize = 32;

/// What the file says: none when there is no file.
pub type Record = Result<Option<Pairing>, Arc<ConfError>>;

/// Reads the record; none when there is no file.
pub fn read(path: &Path) -> Result<Option<Pairing>, ConfError> {
    let Some(text) = conf_file::read(path)? else {
        return Ok(None);
    };
    let (mut host, mut user) = (None, None);
    for assignment in conf_file::parse(path, &text)? {
        let value = assignment.value.as_str();
        let checked = match assignment.key.as_str() {
            "VM_HOST" => check_host(value).map(|()| host = Some(value.to_owned())),
            "VM_USER" => check_user(value).map(|()| user = Some(value.to_owned())),
            key => {
                tracing::warn!(file = %path.display(), line = assignment.line, key, "unknown setting ignored");
                Ok(())
            }
        };
        checked.map_err(|problem| problem.at(path, assignment.line))?;
    }
    Ok(Some(Pairing {
        host: host.ok_or_else(|| ConfError::Missing {
            path: path.to_owned(),
            key: "VM_HOST",
        })?,
        user: user.unwrap_or_else(|| DEFAULT_USER.to_owned()),
    }))
}

/// Writes the record; lines that are not its own stay. Blocks for as long as the disk takes.
pub fn write(path: &Path, pairing: &Pairing) -> Result<(), ConfError> {
    check(pairing)?;
    let before = conf_file::read(path)?.unwrap_or_default();
    let values = [
        ("VM_HOST", pairing.host.as_str()),
        ("VM_USER", pairing.user.as_str()),
    ];
    let text = conf_file::with(&before, &values);
    durable::replace(path, text.as_bytes(), 0o644).map_err(|source| write_failed(path, source))
}

/// Ends the pairing: removes the record. Blocks for as long as the disk takes.
pub fn remove(path: &Path) -> Result<(), ConfError> {
    durable::remove(path).map_err(|source| write_failed(path, source))
}

fn write_failed(path: &Path, source: std::io::Error) -> ConfError {
    ConfError::Write {
        path: path.to_owned(),
        source,
    }
}

/// Whether a pairing can be written.
pub fn check(pairing: &Pairing) -> Result<(), ConfError> {
    check_host(&pairing.host).map_err(ConfError::Value)?;
    check_user(&pairing.user).map_err(ConfError::Value)
}

/// Whether a text can be a VM_HOST: a name or an address that no program takes for an option.
pub fn check_host(host: &str) -> Result<(), Problem> {
    let fits = (1..=MAX_HOST).contains(&host.len())
        && !host.starts_with(['-', '.', '%'])
        && host
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-._:%".contains(&b));
    if fits {
        return Ok(());
    }
    Err(Problem::new(
        format!("{:?} is no host", conf_file::shorten(host)),
        "VM_HOST=NAME or VM_HOST=ADDRESS, such as VM_HOST=dev-vm.local or VM_HOST=192.168.1.20",
    ))
}

/// Whether a text can be a VM_USER: a login name of the portable characters.
pub fn check_user(user: &str) -> Result<(), Problem> {
    let fits = (1..=MAX_USER).contains(&user.len())
        && !user.starts_with(['-', '.'])
        && user
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    if fits {
        return Ok(());
    }
    Err(Problem::new(
        format!("{:?} is no user name", conf_file::shorten(user)),
        "VM_USER=NAME, a login name of letters, digits, dots, dashes and underscores",
    ))
}

/// Follows the record: the channel holds what the file says now. `look` makes it look at once.
/// Ends when the receiver is gone.
pub(super) fn follow(path: PathBuf, look: Arc<tokio::sync::Notify>) -> watch::Receiver<Record> {
    conf_file::follow(path, read, look)
}

#[cfg(test)]
mod tests {
    use std::{fs, time::Duration};

    use super::*;

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vm.conf");
        fs::write(&path, text).unwrap();
        (dir, path)
    }

    fn pairing(host: &str, user: &str) -> Pairing {
        Pairing {
            host: host.into(),
            user: user.into(),
        }
    }

    #[test]
    fn the_seeds_file_is_read() {
        let (_dir, path) = file("VM_HOST=192.168.1.50\nVM_USER=\"dev\"\nCOLOUR=blue\n");
        assert_eq!(read(&path).unwrap(), Some(pairing("192.168.1.50", "dev")));
        let (_dir, path) = file("VM_HOST=fe80::1%eth0\r\n");
        assert_eq!(read(&path).unwrap(), Some(pairing("fe80::1%eth0", "dev")));
        assert_eq!(read(&path.with_file_name("none")).unwrap(), None);
    }

    #[test]
    fn wrong_hosts_and_users_are_named_with_their_line() {
        for host in [
            "-oProxyCommand=x",
            "a b",
            "$(x)",
            "a;b",
            "",
            "a@b",
            &"x".repeat(254),
        ] {
            let (_dir, path) = file(&format!("# x\nVM_HOST='{host}'\n"));
            let error = read(&path).unwrap_err();
            assert!(error.to_string().contains("vm.conf, line 2: "), "{error}");
            assert!(error.remedy().contains("such as VM_HOST=dev-vm.local"));
        }
        for user in ["-l", "a b", "r$", "", "a/b"] {
            let (_dir, path) = file(&format!("VM_HOST=a\nVM_USER='{user}'\n"));
            let error = read(&path).unwrap_err().to_string();
            assert!(error.contains("vm.conf, line 2: "), "{error}");
        }
        let (_dir, path) = file("VM_USER=dev\n");
        assert!(
            read(&path)
                .unwrap_err()
                .to_string()
                .ends_with("does not set VM_HOST")
        );
    }

    #[test]
    fn writing_keeps_what_is_not_ours() {
        let (_dir, path) = file("# my VM\nVM_HOST=old\nCOLOUR=blue\n");
        write(&path, &pairing("new.local", "me")).unwrap();
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            "# my VM\nVM_HOST=new.local\nCOLOUR=blue\nVM_USER=me\n"
        );
        assert!(write(&path, &pairing("-x", "me")).is_err());
        remove(&path).unwrap();
        assert_eq!(read(&path).unwrap(), None);
    }

    #[tokio::test]
    async fn changes_are_followed() {
        let (_dir, path) = file("VM_HOST=one\n");
        let look = Arc::new(tokio::sync::Notify::new());
        let mut record = follow(path.clone(), Arc::clone(&look));
        assert_eq!(
            *record.borrow_and_update().as_ref().unwrap(),
            Some(pairing("one", "dev"))
        );
        for text in ["VM_HOST=two2\n", "nonsense\n", "VM_HOST=three\n"] {
            fs::write(&path, text).unwrap();
            look.notify_one();
            tokio::time::timeout(Duration::from_mins(1), record.changed())
                .await
                .unwrap()
                .unwrap();
            let now = record.borrow_and_update().clone();
            match text {
                "nonsense\n" => assert!(now.is_err()),
                other => assert_eq!(format!("VM_HOST={}\n", now.unwrap().unwrap().host), other),
            }
        }
        fs::remove_file(&path).unwrap();
        tokio::time::timeout(Duration::from_mins(1), record.changed())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(*record.borrow().as_ref().unwrap(), None);
    }
}
