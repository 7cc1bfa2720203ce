//! What the link to the VM reports.

use std::net::IpAddr;

use protocol::line::{Answer, Attachment, Request, VmHello};
use serde::{Deserialize, Serialize};

/// Something happened on the link.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// vm.conf was read: the pairing now is this, none when there is no vm.conf.
    Paired(Option<Pairing>),
    /// The host name of the pairing stands for these addresses.
    Resolved(Vec<IpAddr>),
    /// A session is up: the greetings are exchanged.
    Up {
        /// The VM's greeting.
        hello: VmHello,
        /// The address the SSH session goes to.
        address: IpAddr,
    },
    /// A session ended, or an attempt at one failed. Sent for every attempt.
    Down(Failure),
    /// The helper answered a request, or its deadline passed (an `Answer::Error` of kind `timeout`).
    Reply {
        /// The request as it was sent.
        request: Request,
        /// The answer.
        answer: Answer,
    },
    /// udev is done with a device's ttys.
    Settled(Attachment),
}

/// The record of the pairing, `/etc/usbip/vm.conf`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pairing {
    /// VM_HOST: name or address.
    pub host: String,
    /// VM_USER
    pub user: String,
}

/// Why there is no session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// For programs.
    pub kind: FailureKind,
    /// What happened, one sentence for people.
    pub message: String,
    /// The command or act that mends it.
    pub remedy: Option<String>,
}

/// Kinds of [`Failure`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// vm.conf is unreadable or wrong.
    Config,
    /// The Pi's own key is missing, unreadable or could not be made.
    Key,
    /// The host name has no address.
    Name,
    /// Nothing answers on port 22.
    Unreachable,
    /// No host key is pinned for the VM yet.
    HostKeyUnknown,
    /// The VM's host key is not the pinned one.
    HostKeyChanged,
    /// The VM does not accept the Pi's key.
    Login,
    /// `usb-event-handler` is not on the VM, or did not greet.
    Helper,
    /// sudo on the VM does not let the handler be root.
    Sudo,
    /// An established session fell silent or broke.
    Lost,
}
