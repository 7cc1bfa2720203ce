//! What can go wrong, and the remedy for each.

use std::{error::Error as StdError, io, path::PathBuf, time::Duration};

use protocol::{
    BusId, DevId,
    line::{Failure, FailureKind, RequestError},
    wire::{Status, WireError},
};

use crate::config::ConfigError;

/// Why a request failed: one variant per act.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The line was no request.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// A line beyond the language's limit.
    #[error("line longer than {0} bytes")]
    LineTooLong(usize),
    /// More requests under way than a session carries.
    #[error("more than {0} requests at once")]
    TooManyRequests(usize),
    /// pi.conf.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// sudo said no.
    #[error("sudo does not let {user} run usb-event-handler as root: {said}")]
    NotPermitted {
        /// Who was refused.
        user: String,
        /// What sudo said.
        said: String,
    },
    /// The kernel module is not there.
    #[error("kernel module vhci_hcd is not loaded: {said}")]
    VhciMissing {
        /// What modprobe said.
        said: String,
        /// The command that brings it.
        remedy: String,
    },
    /// No port.
    #[error("all {total} vhci ports are in use")]
    NoFreePort {
        /// Ports of the device's speed.
        total: usize,
    },
    /// A name without an address.
    #[error("failed to find the address of {host}: {said}")]
    Resolve {
        /// The name.
        host: String,
        /// What was tried.
        said: String,
    },
    /// No TCP connection.
    #[error("failed to reach the Pi at {host} port {port}")]
    Connect {
        /// The Pi.
        host: String,
        /// The TCP port.
        port: u16,
        /// Why.
        source: io::Error,
    },
    /// The connection broke during the handshake.
    #[error("failed to {act} the Pi at {host}")]
    Handshake {
        /// What was under way, such as "import 1-1 from".
        act: String,
        /// The Pi.
        host: String,
        /// Why.
        source: io::Error,
    },
    /// The Pi spoke something else.
    #[error("failed to understand the Pi at {host}")]
    Wire {
        /// The Pi.
        host: String,
        /// What is wrong.
        source: WireError,
    },
    /// The Pi refused.
    #[error("the Pi refused {busid}: {}", status_text(*.status))]
    Refused {
        /// The device.
        busid: BusId,
        /// Its answer.
        status: Status,
    },
    /// The device has been plugged again meanwhile.
    #[error("{busid} is {found} by now, not {asked}")]
    Superseded {
        /// The device.
        busid: BusId,
        /// The generation asked for.
        asked: DevId,
        /// The generation on the Pi.
        found: DevId,
    },
    /// The device did not show up behind vhci.
    #[error("{busid} did not enumerate on vhci port {port} within {} s", .limit.as_secs())]
    NotEnumerated {
        /// The device.
        busid: BusId,
        /// The vhci port.
        port: u32,
        /// How long was waited.
        limit: Duration,
    },
    /// The device went away.
    #[error("{busid} vanished from vhci port {port} while it enumerated")]
    Vanished {
        /// The device.
        busid: BusId,
        /// The vhci port.
        port: u32,
    },
    /// No driver made a tty.
    #[error("{busid} is attached as {local} but no serial driver made a tty of it")]
    NoTty {
        /// The device.
        busid: BusId,
        /// Its name here.
        local: BusId,
    },
    /// The port stays in use.
    #[error("vhci port {port} did not become free within {} s", .limit.as_secs())]
    NotDetached {
        /// The vhci port.
        port: u32,
        /// How long was waited.
        limit: Duration,
    },
    /// Another process is at it.
    #[error("another process held {path:?} for {} s", .limit.as_secs())]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// How long was waited.
        limit: Duration,
    },
    /// A file could not be read.
    #[error("failed to read {path:?}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file could not be written.
    #[error("failed to write {path:?}")]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// vhci's `status` is of another form.
    #[error("failed to understand the line {0:?} of vhci's status")]
    VhciStatus(String),
    /// A program could not be run.
    #[error("failed to run {program}")]
    Run {
        /// Which.
        program: String,
        /// Why.
        source: io::Error,
    },
}

fn status_text(status: Status) -> &'static str {
    match status {
        Status::Ok => "no error",
        Status::NotAvailable => "not available",
        Status::DeviceBusy => "the device is in use by another importer",
        Status::DeviceError => "the device is in an error state",
        Status::NoDevice => "no such device is exported",
        Status::Error => "internal error",
    }
}

impl Error {
    /// The kind, for programs.
    #[must_use]
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Request(_) | Self::LineTooLong(_) | Self::TooManyRequests(_) => {
                FailureKind::BadRequest
            }
            Self::Config(_) => FailureKind::Config,
            Self::NotPermitted { .. } => FailureKind::NotPermitted,
            Self::VhciMissing { .. } => FailureKind::VhciMissing,
            Self::NoFreePort { .. } => FailureKind::NoFreePort,
            Self::Resolve { .. } | Self::Connect { .. } | Self::Handshake { .. } => {
                FailureKind::PiUnreachable
            }
            Self::Refused { .. } => FailureKind::Refused,
            Self::Superseded { .. } => FailureKind::Superseded,
            Self::NotEnumerated { .. }
            | Self::NoTty { .. }
            | Self::Vanished { .. }
            | Self::NotDetached { .. }
            | Self::Locked { .. } => FailureKind::Timeout,
            Self::Wire { .. }
            | Self::Read { .. }
            | Self::Write { .. }
            | Self::VhciStatus(_)
            | Self::Run { .. } => FailureKind::System,
        }
    }

    /// The command or act that mends it, where one is known.
    #[must_use]
    pub fn remedy(&self) -> Option<String> {
        Some(match self {
            Self::Config(error) => error.remedy(),
            Self::VhciMissing { remedy, .. } => remedy.clone(),
            Self::NotPermitted { user, .. } => format!(
                "check that /etc/sudoers.d/usbip is installed, then run: usermod -aG usbip {user}"
            ),
            Self::NoFreePort { .. } => {
                "unplug a device, or detach one with: usb-event-handler disconnect BUSID".into()
            }
            Self::Resolve { .. } => {
                "write the Pi's IP address as DEFAULT_PI_HOST in /etc/usbip/pi.conf".into()
            }
            Self::Connect { host, port, .. } => format!(
                "check that the Pi is on, that {host} is its address, and that no firewall blocks TCP port {port}"
            ),
            Self::Handshake { .. } => {
                "check in the Pi's portal that it is paired with this machine and this address"
                    .into()
            }
            Self::Refused { status, .. } => match status {
                Status::DeviceBusy => "detach it on the other machine, or wait until the Pi notices that one is gone".into(),
                Status::NoDevice => "check with vm-helper list what the Pi exports; its portal says why a device is skipped".into(),
                _ => "unplug the device and plug it in again".into(),
            },
            Self::NotEnumerated { .. } => "see the kernel's log: journalctl -k -g usb".into(),
            Self::NoTty { .. } => {
                "run vm-helper check: it names the package that has the serial drivers".into()
            }
            Self::NotDetached { .. } => {
                "see the kernel's log: journalctl -k -g vhci; a restart of this machine frees the port".into()
            }
            Self::Locked { .. } => "wait, or see who holds it: fuser -v on that file".into(),
            _ => return None,
        })
    }

    /// The whole story in one sentence: the act and its causes.
    #[must_use]
    pub fn sentence(&self) -> String {
        let mut text = self.to_string();
        let mut source = match self {
            // Transparent: its text is ours already.
            Self::Config(error) => error.source(),
            other => other.source(),
        };
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        text
    }

    /// As it goes to the Pi.
    #[must_use]
    pub fn failure(&self) -> Failure {
        Failure {
            kind: self.kind(),
            message: self.sentence(),
            remedy: self.remedy(),
        }
    }
}
