//! What can go wrong with a guest.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use super::{Role, qmp};
use crate::agent::client;

/// Why something could not be done to a guest.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the run.
    #[error("failed to {act} {path}")]
    File {
        /// Read, write and so on.
        act: &'static str,
        /// Which.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A program of the host failed.
    #[error("failed to run {program}: {status}")]
    Program {
        /// Its name.
        program: &'static str,
        /// How it ended.
        status: ExitStatus,
    },
    /// QEMU did not start.
    #[error("failed to start the machine {role}: {why}")]
    Start {
        /// Which machine.
        role: Role,
        /// What QEMU said.
        why: String,
    },
    /// The guest does not come up.
    #[error("failed to see {role} come up within {limit:?}; its console is in {console}")]
    NotReady {
        /// Which machine.
        role: Role,
        /// How long was waited.
        limit: Duration,
        /// Where to look.
        console: PathBuf,
    },
    /// The guest does not go down.
    #[error("failed to see {role} go down within {limit:?}")]
    NotDown {
        /// Which machine.
        role: Role,
        /// How long was waited.
        limit: Duration,
    },
    /// The machine is off.
    #[error("failed to reach {0}: it is off")]
    Off(Role),
    /// The agent in the guest.
    #[error("on {role}")]
    Agent {
        /// Which machine.
        role: Role,
        /// The cause.
        source: client::Error,
    },
    /// QEMU's control socket.
    #[error("on {role}")]
    Qmp {
        /// Which machine.
        role: Role,
        /// The cause.
        source: qmp::Error,
    },
    /// A command in the guest ended with an error.
    #[error("failed to run '{command}' on {role} (exit code {code:?}): {output}")]
    Command {
        /// Which machine.
        role: Role,
        /// The command.
        command: String,
        /// Its exit code, none if it was killed.
        code: Option<i32>,
        /// Both of its outputs.
        output: String,
    },
    /// A state that was waited for did not come.
    #[error("failed to see '{command}' succeed on {role} within {limit:?}; last: {last}")]
    Never {
        /// Which machine.
        role: Role,
        /// The command.
        command: String,
        /// How long was waited.
        limit: Duration,
        /// Output of the last try.
        last: String,
    },
    /// A device could not be plugged or found.
    #[error(transparent)]
    Usb(#[from] crate::usb::Error),
}
