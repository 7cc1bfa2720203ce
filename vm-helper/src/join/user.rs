//! The user that the Pi logs in as.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use super::JoinError;
use crate::{root::Root, run};

/// How long the programs that know users may take; a directory service may be far away.
const LIMIT: Duration = Duration::from_secs(20);
/// Whom the Pi logs in as when nobody is named (as the seeds' scripts have it).
const DEFAULT: &str = "dev";
/// Who may run the handler by sudo.
const GROUP: &str = "usbip";

/// A user of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) home: PathBuf,
}

impl User {
    /// The named one, else the one who called sudo, else the usual one.
    pub(super) fn find(root: &Root, named: Option<&str>) -> Result<Self, JoinError> {
        if let Some(name) = named {
            return Self::read(root, name)?.ok_or_else(|| JoinError::NoUser(name.to_owned()));
        }
        let caller = std::env::var("SUDO_USER").ok();
        let candidates = caller.as_deref().filter(|name| *name != "root");
        for name in candidates.into_iter().chain([DEFAULT]) {
            if let Some(user) = Self::read(root, name)? {
                return Ok(user);
            }
        }
        Err(JoinError::WhichUser)
    }

    /// From the machine's own list, else from wherever else it knows users.
    fn read(root: &Root, name: &str) -> Result<Option<Self>, JoinError> {
        let plain = |name: &str| {
            name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
                && name
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
        };
        if !plain(name) {
            return Ok(None);
        }
        let list = root.read("/etc/passwd").unwrap_or_default();
        let of = |list: &str| {
            list.lines()
                .find(|line| line.split(':').next() == Some(name))
                .map(str::to_owned)
        };
        let mut line = of(&list);
        if line.is_none() {
            let mut getent = Command::new("getent");
            getent.args(["passwd", name]);
            line = of(&run::output(getent, LIMIT)?.stdout);
        }
        let Some((user, shell)) = line.as_deref().and_then(parse) else {
            return Ok(None);
        };
        if ["nologin", "false"]
            .iter()
            .any(|no| Path::new(&shell).ends_with(no))
        {
            return Err(JoinError::NoShell {
                name: user.name,
                shell,
            });
        }
        Ok(Some(user))
    }

    /// Whether the group's own list has the user.
    pub(super) fn is_member(&self, root: &Root) -> bool {
        let groups = root.read("/etc/group").unwrap_or_default();
        groups
            .lines()
            .filter_map(|line| line.strip_prefix(GROUP)?.strip_prefix(':'))
            .filter_map(|rest| rest.rsplit(':').next())
            .any(|members| members.split(',').any(|member| member == self.name))
    }

    pub(super) fn enter_group(&self) -> Result<(), JoinError> {
        let mut usermod = Command::new("usermod");
        usermod.args(["-aG", GROUP, &self.name]);
        let output = run::output(usermod, LIMIT)?;
        if output.success {
            return Ok(());
        }
        Err(JoinError::Group {
            name: self.name.clone(),
            said: output.stderr.trim().replace('\n', "; "),
        })
    }
}

/// Takes a user out of the group again.
pub(super) fn leave_group(name: &str) {
    let mut gpasswd = Command::new("gpasswd");
    gpasswd.args(["-d", name, GROUP]);
    // The error that is told is the one that led here.
    let _ = run::output(gpasswd, LIMIT);
}

/// User and shell of a line of passwd(5).
fn parse(line: &str) -> Option<(User, String)> {
    let mut fields = line.split(':');
    let name = fields.next()?.to_owned();
    let uid = fields.nth(1)?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    let home = PathBuf::from(fields.nth(1)?);
    let shell = fields.next().unwrap_or_default().to_owned();
    home.is_absolute().then_some((
        User {
            name,
            uid,
            gid,
            home,
        },
        shell,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn users_are_found_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::at(dir.path());
        fs::create_dir(root.path("/etc")).unwrap();
        let passwd = "root:x:0:0::/root:/bin/sh\ndev:x:1000:1001:Dev,,,:/home/dev:/bin/bash\n\
                      svc:x:5:5::/:/usr/sbin/nologin\n";
        fs::write(root.path("/etc/passwd"), passwd).unwrap();
        fs::write(root.path("/etc/group"), "x:x:1:dev\nusbip:x:999:ann,dev\n").unwrap();
        let dev = User::find(&root, Some("dev")).unwrap();
        assert_eq!((dev.uid, dev.gid), (1000, 1001));
        assert_eq!(dev.home, Path::new("/home/dev"));
        assert!(dev.is_member(&root));
        let found = User::find(&root, Some("root")).unwrap();
        assert!(!found.is_member(&root));
        assert!(matches!(
            User::find(&root, Some("svc")),
            Err(JoinError::NoShell { .. })
        ));
        for nobody in ["-x", "a;b", "", "no-such-user-here"] {
            assert!(matches!(
                User::find(&root, Some(nobody)),
                Err(JoinError::NoUser(_))
            ));
        }
    }
}
