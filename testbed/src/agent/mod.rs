//! The agent inside a guest: one JSON object per line over a virtio-serial port.
//!
//! - this module: the requests and replies
//! - [`client`]: the host's end
//! - [`serve`]: the guest's end
//! - [`floor`]: what the benchmark compares with
//! - `shell`, `kernel_log`, `tty`: what it can do

pub mod client;
pub mod floor;
pub mod serve;

mod kernel_log;
mod shell;
mod tty;

use serde::{Deserialize, Serialize};

/// Name of the virtio-serial port, the same on both ends.
pub const PORT: &str = "testbed";

/// A request with the number its reply will carry.
#[derive(Debug, Serialize, Deserialize)]
pub struct Numbered<T> {
    /// Chosen by the host, unique on a connection.
    pub id: u64,
    /// The request or the reply.
    pub body: T,
}

/// What a guest can be asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Request {
    /// Run a shell command and wait for its end.
    Shell {
        /// For `/bin/sh -c`.
        command: String,
        /// After this the command and its children are killed.
        timeout_ms: u64,
    },
    /// Start a shell command in the background.
    Start {
        /// For `/bin/sh -c`.
        command: String,
        /// File for its standard output and error; none: they are dropped.
        log: Option<String>,
    },
    /// Write a part of a file.
    Put {
        /// Where.
        path: String,
        /// Permission bits.
        mode: u32,
        /// Continue the file rather than start it.
        append: bool,
        /// Base64.
        data: String,
    },
    /// Read a part of a file.
    Get {
        /// Which.
        path: String,
        /// First byte wanted.
        offset: u64,
        /// Most bytes wanted.
        limit: u64,
    },
    /// Write a mark to the kernel's log and say when the log dates it.
    Sync {
        /// Any text that is unique in the log.
        token: String,
    },
    /// Read the kernel's log.
    KernelLog {
        /// Leave out what is older, microseconds since boot.
        since_us: u64,
    },
    /// Wait for lines in the kernel's log.
    AwaitLog {
        /// Leave out what is older, microseconds since boot.
        since_us: u64,
        /// What such a line contains.
        text: String,
        /// How many of them to wait for.
        count: usize,
        /// After this the wait fails.
        timeout_ms: u64,
    },
    /// Open a tty raw, 8N1, without flow control, and keep it open.
    OpenTty {
        /// The host's number for it, never used twice.
        tty: u64,
        /// Device node, or `tcp:HOST:PORT` for a connection in a tty's stead.
        path: String,
        /// Bits per second; means nothing to a connection.
        baud: u32,
    },
    /// Close a tty.
    CloseTty {
        /// Its number.
        tty: u64,
    },
    /// Send and receive bytes on an open tty.
    Transfer {
        /// Its number.
        tty: u64,
        /// What to pass.
        transfer: Transfer,
    },
    /// Send a few bytes and wait for as many, again and again.
    RoundTrips {
        /// The number of an open tty.
        tty: u64,
        /// Bytes per round.
        size: usize,
        /// Number of rounds.
        rounds: usize,
    },
    /// Set the control lines of an open tty, step by step.
    Lines {
        /// Its number.
        tty: u64,
        /// Each step in order.
        steps: Vec<LineStep>,
    },
}

/// One step on a tty's control lines.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct LineStep {
    /// New state of DTR, or leave it.
    pub dtr: Option<bool>,
    /// New state of RTS, or leave it.
    pub rts: Option<bool>,
    /// Wait this long after it.
    pub hold_ms: u64,
}

/// Bytes to pass over a tty, both ways at once.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Transfer {
    /// Seed of the bytes to send.
    pub seed: u64,
    /// How many bytes to send.
    pub send: usize,
    /// How many bytes to wait for.
    pub receive: usize,
    /// Give up when nothing has moved for this long.
    pub idle_ms: u64,
}

/// What became of a [`Transfer`]. A transfer that stalls or fails is reported here, not as an error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Transferred {
    /// Bytes the tty took.
    pub sent: usize,
    /// SHA-256 of them.
    pub sent_sha256: String,
    /// Bytes that arrived.
    pub received: usize,
    /// SHA-256 of them.
    pub received_sha256: String,
    /// From the start to the last byte.
    pub seconds: f64,
    /// Why it ended early, if it did.
    pub failure: Option<String>,
}

/// A line of the kernel's log as the guest dates it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KernelLine {
    /// Microseconds since boot.
    pub us: u64,
    /// The line.
    pub text: String,
}

/// What a guest answers.
#[derive(Debug, Serialize, Deserialize)]
pub enum Reply {
    /// To [`Request::Shell`].
    Shell {
        /// Exit code; none when it was killed, by the time limit or otherwise.
        code: Option<i32>,
        /// Standard output, lossily decoded.
        stdout: String,
        /// Standard error, lossily decoded.
        stderr: String,
        /// Whether the time limit ended it.
        timed_out: bool,
        /// How long it ran.
        seconds: f64,
    },
    /// To [`Request::Start`]: the process id.
    Started(u32),
    /// To requests that have nothing to report.
    Done,
    /// To [`Request::Get`]: base64; empty at the end of the file.
    Data(String),
    /// To [`Request::Sync`] and [`Request::AwaitLog`]: microseconds since boot.
    Mark(u64),
    /// To [`Request::KernelLog`].
    KernelLog(Vec<KernelLine>),
    /// To [`Request::Transfer`].
    Transferred(Transferred),
    /// To [`Request::RoundTrips`]: seconds of each round.
    RoundTrips(Vec<f64>),
    /// The request could not be done.
    Failed(String),
}
