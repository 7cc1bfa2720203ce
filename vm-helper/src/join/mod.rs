//! `vm-helper join`: pairs with a Pi from this side, with the address that its portal shows.
//!
//! What is needed is looked at first, and what was changed is undone when the Pi does not take this
//! machine: there is a whole pairing in the end, or none.
//!
//! - [`mod@address`]: the address
//! - [`command`]: the command line
//! - `http`: asking the Pi
//! - `user`: who lets the Pi in
//! - `keys`: the user's authorized_keys
//! - [`error`]: what can go wrong

pub mod address;
pub mod command;
pub mod error;
mod http;
mod keys;
mod user;

use std::{
    fs,
    net::{IpAddr, SocketAddr, TcpStream},
    process::Command,
    time::Duration,
};

use protocol::join::{Invitation, Joined, Report};

pub use address::Address;
pub use error::JoinError;

use crate::{
    attach::Vm,
    config::{self, ConfigError, PI_CONF, PiConf},
    resolve,
    root::{Root, names_in, replace_file},
    run,
};
use keys::AuthorizedKeys;
use user::User;

/// How long the SSH server here may take to accept a connection.
const SSH: Duration = Duration::from_secs(5);
/// How long ssh-keygen may take to read a key.
const KEYGEN: Duration = Duration::from_secs(10);

/// What a person asks for.
#[derive(Debug, Clone)]
pub struct Order {
    /// Where the Pi's portal has it.
    pub address: Address,
    /// Who lets the Pi in; none: whom the portal names, who called sudo, or `dev`.
    pub user: Option<String>,
    /// Whether another Pi's pairing is to end.
    pub replace: bool,
    /// TCP port of the SSH server here.
    pub ssh_port: u16,
}

/// What came of it, for people to compare with the portal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pairing {
    /// Who lets the Pi in.
    pub user: String,
    /// What the Pi says that it did.
    pub joined: Joined,
    /// Fingerprint of the key that is let in, as this machine's ssh-keygen sees it.
    pub key: Option<String>,
}

/// Pair. As root.
pub fn join(root: &Root, order: &Order) -> Result<Pairing, JoinError> {
    ready(root)?;
    let replaced = other_pi(root, order)?;
    let (invitation, here) = http::ask::<Invitation>(&order.address, "/invitation", None)?;
    let named = order.user.as_deref().or(invitation.user.as_deref());
    let user = User::find(root, named)?;
    let report = Report {
        user: user.name.clone(),
        host_name: root.read("/proc/sys/kernel/hostname").unwrap_or_default(),
        version: env!("CARGO_PKG_VERSION").into(),
        host_keys: host_keys(root)?,
    };
    ssh_answers(here, order.ssh_port)?;
    let line = keys::limited(&invitation.key).ok_or(JoinError::BadKey)?;

    let changes = Changes::make(root, order, &user, &line)?;
    let posted = http::ask::<Joined>(&order.address, "", Some(&report));
    let joined = match posted {
        Ok((joined, _)) => joined,
        Err(error) => {
            changes.undo(root);
            return Err(error);
        }
    };
    if let Some(former) = replaced {
        // Its session ends by itself once pi.conf is another one. Best effort, as it may be gone.
        let vm = Vm::new(root, &former);
        for busid in vm.attached().unwrap_or_default() {
            let _ = vm.disconnect(&busid, None);
        }
    }
    Ok(Pairing {
        user: user.name,
        joined,
        key: fingerprint(root, &invitation.key),
    })
}

/// Whether this machine can be paired at all.
fn ready(root: &Root) -> Result<(), JoinError> {
    let there = |path: &str| root.path(path).exists();
    if !there("/run/systemd/system") {
        return Err(JoinError::NoSystemd);
    }
    // The handler calls it there, whatever the PATH.
    if !there("/usr/bin/sudo") {
        return Err(JoinError::NoSudo);
    }
    if !there("/etc/sudoers.d/usbip") || !there("/usr/bin/usb-event-handler") {
        return Err(JoinError::NotInstalled);
    }
    Ok(())
}

/// The pairing with another Pi than the one that is asked, which is to end.
fn other_pi(root: &Root, order: &Order) -> Result<Option<PiConf>, JoinError> {
    let conf = match PiConf::load(root) {
        Ok(conf) => conf,
        // Damaged: it says so at every start, and is none of a pairing.
        Err(ConfigError::NoHost | ConfigError::Read(_)) => return Ok(None),
        Err(error) => return Err(JoinError::Config(error)),
    };
    if conf.host.eq_ignore_ascii_case(&order.address.host) {
        return Ok(None);
    }
    // The same Pi by another name.
    let addresses = |host: &str| resolve::addresses(host).unwrap_or_default();
    let asked = addresses(&order.address.host);
    if addresses(&conf.host)
        .iter()
        .any(|address| asked.contains(address))
    {
        return Ok(None);
    }
    if order.replace {
        return Ok(Some(conf));
    }
    Err(JoinError::OtherPi {
        host: conf.host,
        address: order.address.to_string(),
    })
}

/// The public halves of this machine's host keys.
fn host_keys(root: &Root) -> Result<Vec<String>, JoinError> {
    let dir = root.path("/etc/ssh");
    let keys: Vec<String> = names_in(&dir)
        .iter()
        .filter(|name| name.starts_with("ssh_host_") && name.ends_with("_key.pub"))
        .filter_map(|name| fs::read_to_string(dir.join(name)).ok())
        .filter_map(|text| {
            let mut words = text.split_ascii_whitespace();
            Some(format!("{} {}", words.next()?, words.next()?))
        })
        .collect();
    if keys.is_empty() {
        return Err(JoinError::NoSshServer);
    }
    Ok(keys)
}

/// Whether an SSH server answers at the address by which the Pi knows this machine.
fn ssh_answers(here: IpAddr, port: u16) -> Result<(), JoinError> {
    TcpStream::connect_timeout(&SocketAddr::new(here, port), SSH)
        .map(drop)
        .map_err(|source| JoinError::SshSilent {
            address: here,
            port,
            source,
        })
}

/// What was changed, and what was there before.
struct Changes {
    keys: AuthorizedKeys,
    conf: Option<String>,
    member: Option<String>,
}

impl Changes {
    fn make(root: &Root, order: &Order, user: &User, key: &str) -> Result<Self, JoinError> {
        let keys = AuthorizedKeys::read(root, user)?;
        let conf = fs::read_to_string(root.path(PI_CONF)).ok();
        let mut changes = Self {
            keys,
            conf,
            member: None,
        };
        let made = changes.write(root, order, user, key);
        if made.is_err() {
            changes.undo(root);
        }
        made.map(|()| changes)
    }

    fn write(
        &mut self,
        root: &Root,
        order: &Order,
        user: &User,
        key: &str,
    ) -> Result<(), JoinError> {
        if !user.is_member(root) {
            user.enter_group()?;
            self.member = Some(user.name.clone());
        }
        self.keys.authorize(key)?;
        let before = self.conf.as_deref().unwrap_or_default();
        let text = config::with_host(before, &order.address.host);
        Ok(replace_file(&root.path(PI_CONF), &text)?)
    }

    /// Best effort: the error that is told is the one that led here.
    fn undo(&self, root: &Root) {
        let _ = match &self.conf {
            Some(text) => replace_file(&root.path(PI_CONF), text),
            None => {
                fs::remove_file(root.path(PI_CONF)).map_err(|source| crate::failure::Error::Write {
                    path: PI_CONF.into(),
                    source,
                })
            }
        };
        self.keys.restore();
        if let Some(name) = &self.member {
            user::leave_group(name);
        }
    }
}

/// A key's fingerprint, where ssh-keygen is installed.
fn fingerprint(root: &Root, key: &str) -> Option<String> {
    let file = keys::Scratch::new(&root.path("/run"), key).ok()?;
    let mut keygen = Command::new("ssh-keygen");
    keygen.arg("-lf").arg(file.path());
    let said = run::output(keygen, KEYGEN).ok()?.stdout;
    said.split(' ')
        .find(|word| word.starts_with("SHA256:"))
        .map(str::to_owned)
}
