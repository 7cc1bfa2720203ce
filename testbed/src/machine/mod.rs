//! One guest: power, commands, files, kernel log, network link.
//!
//! - this module: [`Machine`] and what it can be asked
//! - `command`: QEMU's command line
//! - `error`: what can go wrong
//! - `process`: QEMU as a child process
//! - [`Tty`]: an open tty of the guest
//! - `power`: start, ready, kill, reboot
//! - [`qmp`]: QEMU's control socket
//! - [`run`]: the folder of one run
//! - [`accel`]: whether KVM works on this host

pub mod accel;
pub(crate) mod command;
mod error;
mod power;
mod process;
pub mod qmp;
pub mod run;
mod tty;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use base64ct::{Base64, Encoding};

use crate::agent::client::{self, Agent};
use crate::agent::{Reply, Request};
use crate::card::Card;
use crate::image::Images;
use crate::usb::Ports;
use qmp::Qmp;
pub use tty::Tty;

pub use error::Error;

/// How long a command in a guest may run unless told otherwise.
pub const COMMAND_LIMIT: Duration = Duration::from_mins(1);
/// How long [`Machine::wait_until`] waits.
pub const CEILING: Duration = Duration::from_mins(1);
/// Added to a limit that the agent keeps itself, so that its own answer arrives first.
const SLACK: Duration = Duration::from_secs(20);
/// Bytes of a file per request.
const PART: usize = 256 << 10;

/// The two machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// The Pi: has the devices.
    Pi,
    /// The VM: uses them.
    Vm,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::Pi => "pi",
            Self::Vm => "vm",
        }
    }

    fn peer(self) -> Self {
        match self {
            Self::Pi => Self::Vm,
            Self::Vm => Self::Pi,
        }
    }

    fn address_end(self) -> u8 {
        match self {
            Self::Pi => 1,
            Self::Vm => 2,
        }
    }

    /// Its address on the link between the two.
    #[must_use]
    pub fn address(self) -> String {
        format!("10.9.0.{}", self.address_end())
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How QEMU runs the guest's code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accel {
    /// Translated: works everywhere, about eleven times slower.
    Tcg,
    /// By the host's processor.
    Kvm,
}

/// What a machine is made of.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Which machine.
    pub role: Role,
    /// What it starts from.
    pub images: Images,
    /// How its code runs.
    pub accel: Accel,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Ports of this host's loopback that lead to ports of the guest.
    pub forwards: Vec<(u16, u16)>,
    /// Whether it has USB ports.
    pub usb: bool,
    /// A card that it starts from, instead of the images' root. Its only network then leads to the host.
    pub card: Option<Card>,
}

/// What a command in a guest left.
#[derive(Debug, Clone)]
pub struct Output {
    /// Exit code, none if it was killed.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// How long it ran, by the guest's clock.
    pub seconds: f64,
}

/// How a guest's kernel dates its log, in terms of this host's clock.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// The moment its clock was zero.
    pub zero: Instant,
    /// Half of the round trip of the best measurement.
    pub uncertainty: Duration,
}

/// A line of a guest's kernel log.
#[derive(Debug, Clone)]
pub struct LogLine {
    /// By this host's clock.
    pub at: Instant,
    /// By the guest's kernel, since its boot.
    pub kernel: Duration,
    /// The line.
    pub text: String,
}

/// A guest that can be used from several threads. It is killed when this is dropped.
#[derive(Debug)]
pub struct Machine {
    spec: Spec,
    run: Arc<run::Dir>,
    power: Mutex<Option<power::On>>,
    pub(crate) ports: Mutex<Ports>,
}

impl Machine {
    /// Which of the two it is.
    #[must_use]
    pub fn role(&self) -> Role {
        self.spec.role
    }

    /// The folder with its console and logs.
    #[must_use]
    pub fn run_dir(&self) -> &std::path::Path {
        self.run.path()
    }

    /// Runs a shell command and returns what came of it, whatever its exit code.
    pub fn sh(&self, command: &str) -> Result<Output, Error> {
        self.sh_within(command, COMMAND_LIMIT)
    }

    /// As [`Machine::sh`], killed after `limit`.
    pub fn sh_within(&self, command: &str, limit: Duration) -> Result<Output, Error> {
        let timeout_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        let request = Request::Shell {
            command: command.to_owned(),
            timeout_ms,
        };
        match self.ask(request, limit + SLACK)? {
            Reply::Shell {
                code,
                stdout,
                mut stderr,
                timed_out,
                seconds,
            } => {
                if timed_out {
                    stderr.push_str("(killed at its time limit)");
                }
                Ok(Output {
                    code,
                    stdout,
                    stderr,
                    seconds,
                })
            }
            _ => Err(self.confused(command)),
        }
    }

    /// Runs a shell command that must succeed and returns its standard output without the last newline.
    pub fn check(&self, command: &str) -> Result<String, Error> {
        self.check_within(command, COMMAND_LIMIT)
    }

    /// As [`Machine::check`], killed after `limit`.
    pub fn check_within(&self, command: &str, limit: Duration) -> Result<String, Error> {
        let output = self.sh_within(command, limit)?;
        if output.code == Some(0) {
            return Ok(output.stdout.trim_end().to_owned());
        }
        Err(Error::Command {
            role: self.role(),
            command: command.to_owned(),
            code: output.code,
            output: output.stdout + &output.stderr,
        })
    }

    /// Repeats a shell command until it succeeds, at most [`CEILING`], and returns its standard output.
    pub fn wait_until(&self, command: &str) -> Result<String, Error> {
        self.wait_until_within(command, CEILING)
    }

    /// As [`Machine::wait_until`] with another limit. A machine that is starting is waited for as well.
    pub fn wait_until_within(&self, command: &str, limit: Duration) -> Result<String, Error> {
        let end = Instant::now() + limit;
        loop {
            let last = match self.sh_within(command, limit) {
                Ok(output) if output.code == Some(0) => {
                    return Ok(output.stdout.trim_end().to_owned());
                }
                Ok(output) => output.stdout + &output.stderr,
                Err(err) => err.to_string(),
            };
            if Instant::now() > end {
                return Err(Error::Never {
                    role: self.role(),
                    command: command.to_owned(),
                    limit,
                    last,
                });
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Starts a shell command in the background and returns its process id. Its output goes to the guest's file
    /// `log`, if given.
    pub fn start(&self, command: &str, log: Option<&str>) -> Result<u32, Error> {
        let request = Request::Start {
            command: command.to_owned(),
            log: log.map(str::to_owned),
        };
        match self.ask(request, COMMAND_LIMIT)? {
            Reply::Started(pid) => Ok(pid),
            _ => Err(self.confused(command)),
        }
    }

    /// Writes a file of the guest.
    pub fn put(&self, path: &str, mode: u32, data: &[u8]) -> Result<(), Error> {
        let mut parts = data.chunks(PART).collect::<Vec<_>>();
        if parts.is_empty() {
            parts.push(&[]);
        }
        for (index, part) in parts.into_iter().enumerate() {
            let data = Base64::encode_string(part);
            let request = Request::Put {
                path: path.to_owned(),
                mode,
                append: index > 0,
                data,
            };
            self.ask(request, COMMAND_LIMIT)?;
        }
        Ok(())
    }

    /// Reads a file of the guest.
    pub fn get(&self, path: &str) -> Result<Vec<u8>, Error> {
        let mut data = Vec::new();
        loop {
            let request = Request::Get {
                path: path.to_owned(),
                offset: data.len() as u64,
                limit: PART as u64,
            };
            let Reply::Data(part) = self.ask(request, COMMAND_LIMIT)? else {
                return Err(self.confused(path));
            };
            let part = Base64::decode_vec(&part).map_err(|_| self.confused(path))?;
            if part.is_empty() {
                return Ok(data);
            }
            data.extend_from_slice(&part);
        }
    }

    /// Measures how the guest's kernel clock relates to this host's. Good for a few minutes.
    pub fn clock(&self) -> Result<Clock, Error> {
        let mut best: Option<Clock> = None;
        for round in 0..8 {
            let token = format!("{}-{round}", run::unique());
            let before = Instant::now();
            let Reply::Mark(us) = self.ask(Request::Sync { token }, COMMAND_LIMIT)? else {
                return Err(self.confused("a clock mark"));
            };
            let uncertainty = before.elapsed() / 2;
            // A guest cannot have been up longer than this host's clock can tell.
            let zero = (before + uncertainty).checked_sub(Duration::from_micros(us));
            if let Some(zero) = zero
                && best.is_none_or(|best| uncertainty < best.uncertainty)
            {
                best = Some(Clock { zero, uncertainty });
            }
        }
        best.ok_or_else(|| self.confused("a clock mark"))
    }

    /// The kernel's log from `since` on, dated by this host's clock.
    pub fn kernel_log(&self, clock: &Clock, since: Instant) -> Result<Vec<LogLine>, Error> {
        let since = since.saturating_duration_since(clock.zero);
        let since_us = u64::try_from(since.as_micros()).unwrap_or(u64::MAX);
        let Reply::KernelLog(lines) = self.ask(Request::KernelLog { since_us }, COMMAND_LIMIT)?
        else {
            return Err(self.confused("the kernel's log"));
        };
        Ok(lines
            .into_iter()
            .filter(|line| !line.text.starts_with(client::MARK))
            .map(|line| {
                let kernel = Duration::from_micros(line.us);
                LogLine {
                    at: clock.zero + kernel,
                    kernel,
                    text: line.text,
                }
            })
            .collect())
    }

    /// Waits until the kernel's log has `count` lines not older than `since` that contain `text`, and returns
    /// when the last of them was written. Nothing is polled meanwhile.
    pub fn await_log(
        &self,
        clock: &Clock,
        since: Instant,
        (text, count): (&str, usize),
        limit: Duration,
    ) -> Result<Instant, Error> {
        let since = since.saturating_duration_since(clock.zero);
        let request = Request::AwaitLog {
            since_us: u64::try_from(since.as_micros()).unwrap_or(u64::MAX),
            text: text.to_owned(),
            count,
            timeout_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX),
        };
        match self.ask(request, limit + SLACK)? {
            Reply::Mark(us) => Ok(clock.zero + Duration::from_micros(us)),
            _ => Err(self.confused("the kernel's log")),
        }
    }

    /// Pulls (`up` false) or plugs the network cable between the two machines on this machine's side: this one
    /// loses its carrier, the other notices nothing but silence.
    pub fn set_cable(&self, up: bool) -> Result<(), Error> {
        self.qmp("set_link", &serde_json::json!({ "name": "nic", "up": up }))
            .map(|_| ())
    }

    /// Runs a QMP command.
    pub fn qmp(
        &self,
        command: &str,
        arguments: &serde_json::Value,
    ) -> Result<serde_json::Value, Error> {
        self.with_qmp(|qmp| qmp.run(command, arguments))?
            .map_err(|source| Error::Qmp {
                role: self.role(),
                source,
            })
    }

    pub(crate) fn with_qmp<T>(&self, work: impl FnOnce(&mut Qmp) -> T) -> Result<T, Error> {
        let qmp = self.control()?;
        let mut qmp = qmp.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(work(&mut qmp))
    }

    fn ask(&self, request: Request, limit: Duration) -> Result<Reply, Error> {
        let agent = self.agent()?;
        agent.ask(request, limit).map_err(|source| Error::Agent {
            role: self.role(),
            source,
        })
    }

    fn agent(&self) -> Result<Arc<Agent>, Error> {
        self.power()
            .as_ref()
            .map(|on| Arc::clone(&on.agent))
            .ok_or(Error::Off(self.role()))
    }

    fn control(&self) -> Result<Arc<Mutex<Qmp>>, Error> {
        self.power()
            .as_ref()
            .map(|on| Arc::clone(&on.qmp))
            .ok_or(Error::Off(self.role()))
    }

    fn power(&self) -> MutexGuard<'_, Option<power::On>> {
        self.power.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn confused(&self, what: &str) -> Error {
        Error::Agent {
            role: self.role(),
            source: client::Error::Confused(what.to_owned()),
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.kill();
    }
}
