//! What can go wrong while pairing, and the remedy for each.

use std::{error::Error as _, io, net::IpAddr, path::PathBuf};

use protocol::join::Refusal;

use crate::{config::ConfigError, failure::Error};

/// Why this machine is not paired: one variant per act.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// Without it nothing attaches at boot.
    #[error("systemd does not run here")]
    NoSystemd,
    /// The Pi's user needs it.
    #[error("sudo is not installed")]
    NoSudo,
    /// Only the binary is there.
    #[error(
        "vm-helper is not installed as a package: its sudo rule or usb-event-handler is missing"
    )]
    NotInstalled,
    /// pi.conf.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Paired elsewhere.
    #[error("this machine is paired with another Pi, {host}")]
    OtherPi {
        /// Which.
        host: String,
        /// Where the one that is asked has its offer.
        address: String,
    },
    /// No host keys.
    #[error("no SSH server is installed: there is no host key in /etc/ssh")]
    NoSshServer,
    /// Nothing listens.
    #[error("no SSH server answers at {address} port {port}, where the Pi would log in")]
    SshSilent {
        /// This machine, as the Pi sees it.
        address: IpAddr,
        /// The TCP port.
        port: u16,
        /// Why.
        source: io::Error,
    },
    /// Nobody to log in as.
    #[error("it is not clear which user the Pi is to log in as")]
    WhichUser,
    /// No such user.
    #[error("there is no user {0} here")]
    NoUser(String),
    /// The user cannot log in.
    #[error("the user {name} may not log in: the shell is {shell}")]
    NoShell {
        /// Who.
        name: String,
        /// The shell.
        shell: String,
    },
    /// The group could not be entered.
    #[error("failed to put {name} into the group usbip: {said}")]
    Group {
        /// Who.
        name: String,
        /// What usermod said.
        said: String,
    },
    /// What would be let in is no key.
    #[error("the Pi has no key that could be let in")]
    BadKey,
    /// The user's authorized_keys.
    #[error("failed to {act} {}", path.display())]
    Keys {
        /// What was tried.
        act: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The way to the Pi, or a file.
    #[error(transparent)]
    Other(#[from] Error),
    /// The Pi said no.
    #[error("{}", .0.error)]
    Refused(Refusal),
    /// The Pi said something else.
    #[error("failed to understand the answer of {authority}")]
    Answer {
        /// Who was asked.
        authority: String,
        /// What is wrong.
        source: io::Error,
    },
}

impl JoinError {
    /// The command or act that mends it, where one is known.
    #[must_use]
    pub fn remedy(&self) -> Option<String> {
        Some(match self {
            Self::NoSystemd => {
                "pair a machine with systemd; in a container, run this on the machine that hosts it"
                    .into()
            }
            Self::NoSudo => "install it, for example with: apt-get install sudo".into(),
            Self::NotInstalled => {
                "install the package usbip-vm-helper, or run install.sh of the tarball".into()
            }
            Self::Config(error) => error.remedy(),
            Self::OtherPi { address, .. } => {
                format!("to end that pairing: sudo vm-helper join --replace {address}")
            }
            Self::NoSshServer => {
                "install one, for example with: apt-get install openssh-server".into()
            }
            Self::SshSilent { .. } => {
                "start it: systemctl enable --now ssh (on some distributions: sshd)".into()
            }
            Self::WhichUser => "name one in the portal, or add --user NAME".into(),
            Self::NoUser(name) => {
                format!("create it: useradd --create-home {name}; or name another one")
            }
            Self::NoShell { .. } => "name another user".into(),
            Self::Keys { path, .. } => format!(
                "see that {} is a plain file in a folder of the user's own",
                path.display()
            ),
            Self::Other(error) => match error {
                // About port 3240 in what follows.
                Error::Connect { .. } => {
                    "check that the Pi is on and that no firewall is in the way".into()
                }
                error => return error.remedy(),
            },
            Self::Refused(refusal) if !refusal.remedy.is_empty() => refusal.remedy.clone(),
            Self::BadKey | Self::Answer { .. } => {
                "see that the address is the one that the portal shows".into()
            }
            Self::Group { name, .. } => {
                format!("run this and try again: sudo usermod -aG usbip {name}")
            }
            Self::Refused(_) => return None,
        })
    }

    /// The whole story in one sentence: the act and its causes.
    #[must_use]
    pub fn sentence(&self) -> String {
        if let Self::Other(error) = self {
            return error.sentence();
        }
        let mut text = self.to_string();
        let mut source = self.source();
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        text
    }
}
