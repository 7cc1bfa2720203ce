//! Starting and stopping a guest.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::qmp::Qmp;
use super::{Error, Machine, Role, Spec, command, process, run};
use crate::agent::client::Agent;
use crate::agent::{Reply, Request};
use crate::usb::Ports;

/// A guest under TCG on a busy host needs most of this.
const BOOT: Duration = Duration::from_mins(3);
/// QEMU's own start.
const QEMU: Duration = Duration::from_secs(20);
/// From the request for a reboot to the end of the old QEMU.
const DOWN: Duration = Duration::from_secs(90);
/// A kernel's oops fits.
const LAST_LINES: usize = 40;
/// The Pi's data partition.
const DATA_SIZE: u64 = 64 << 20;

/// A running QEMU.
#[derive(Debug)]
pub(super) struct On {
    child: Child,
    pub(super) qmp: Arc<Mutex<Qmp>>,
    pub(super) agent: Arc<Agent>,
}

impl Machine {
    /// Prepares a machine's disks in `run`; it is off. `payload` is laid over its root at every start.
    pub fn new(spec: Spec, run: Arc<run::Dir>, payload: &[u8]) -> Result<Self, Error> {
        let dir = run.path();
        let path = dir.join(format!("{}.payload", spec.role));
        fs::write(&path, payload).map_err(file("write", &path))?;
        match spec.role {
            Role::Pi if spec.card.is_some() => {}
            Role::Pi => {
                let path = dir.join("pi.data");
                let disk = File::create(&path).map_err(file("create", &path))?;
                disk.set_len(DATA_SIZE).map_err(file("create", &path))?;
                host(
                    "mkfs.ext4",
                    Command::new("mkfs.ext4")
                        .args(["-q", "-L", "data"])
                        .arg(&path),
                )?;
            }
            Role::Vm => {
                let mut create = Command::new("qemu-img");
                create.args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"]);
                host(
                    "qemu-img",
                    create.arg(&spec.images.vm).arg(dir.join("vm.qcow2")),
                )?;
            }
        }
        Ok(Self {
            spec,
            run,
            power: Mutex::new(None),
            ports: Mutex::new(Ports::default()),
        })
    }

    /// Switches the machine on, with the devices plugged in that were there before, and waits until it takes
    /// commands and its services run.
    pub fn boot(&self) -> Result<(), Error> {
        self.power_on()?;
        self.wait_ready()
    }

    /// Switches the machine on and returns at once.
    pub fn power_on(&self) -> Result<(), Error> {
        let mut power = self.power();
        if power.is_some() {
            return Ok(());
        }
        let role = self.role();
        let dir = self.run.path();
        for socket in ["qmp", "agent", "net"] {
            // Left by the QEMU before; a name that exists cannot be bound.
            let _ = fs::remove_file(dir.join(format!("{role}.{socket}")));
        }
        let path = dir.join(format!("{role}.qemu.log"));
        let append = |path: &Path| OpenOptions::new().create(true).append(true).open(path);
        let output = append(&path).map_err(file("open", &path))?;
        let errors = output.try_clone().map_err(file("open", &path))?;
        let mut qemu = process::command(command::PROGRAM);
        qemu.args(command::arguments(&self.spec))
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors);
        let mut child = process::spawn(qemu).map_err(|err| Error::Start {
            role,
            why: err.to_string(),
        })?;

        let connect = |child: &mut Child, name: &str| -> Result<UnixStream, Error> {
            let socket = dir.join(format!("{role}.{name}"));
            let end = Instant::now() + QEMU;
            loop {
                match UnixStream::connect(&socket) {
                    Ok(stream) => return Ok(stream),
                    Err(err) => {
                        let ended = child.try_wait().ok().flatten();
                        if ended.is_some() || Instant::now() > end {
                            let said = fs::read_to_string(&path).unwrap_or_default();
                            let why = format!("{err}; QEMU says: {}", said.trim_end());
                            return Err(Error::Start { role, why });
                        }
                    }
                }
                thread::sleep(Duration::from_millis(10));
            }
        };
        let started = connect(&mut child, "qmp").and_then(|control| {
            let agent = connect(&mut child, "agent")?;
            let qmp = Qmp::new(control).map_err(|source| Error::Qmp { role, source })?;
            let log = dir.join(format!("{role}.agent.log"));
            let agent = append(&log)
                .and_then(|log| Agent::new(agent, log))
                .map_err(file("open", &log))?;
            Ok((Arc::new(Mutex::new(qmp)), Arc::new(agent)))
        });
        let (qmp, agent) = match started {
            Ok(ends) => ends,
            Err(err) => {
                end(&mut child);
                return Err(err);
            }
        };
        {
            let mut ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
            let mut qmp = qmp.lock().unwrap_or_else(PoisonError::into_inner);
            ports.restore(&mut qmp, dir)?;
        }
        *power = Some(On { child, qmp, agent });
        Ok(())
    }

    /// Waits until the machine takes commands and its services run.
    pub fn wait_ready(&self) -> Result<(), Error> {
        // The agent is the last that the Pi starts; the VM's SSH server (port 22, state 0A is listening) comes later.
        let command = match self.role() {
            Role::Pi => "true",
            Role::Vm => "until grep -q ':0016 00000000:0000 0A' /proc/net/tcp; do sleep 0.1; done",
        };
        let timeout_ms = u64::try_from(BOOT.as_millis()).unwrap_or(u64::MAX);
        let request = Request::Shell {
            command: command.to_owned(),
            timeout_ms,
        };
        match self.ask(request, BOOT) {
            Ok(Reply::Shell { code: Some(0), .. }) => Ok(()),
            _ => Err(Error::NotReady {
                role: self.role(),
                limit: BOOT,
                console: self.run.path().join(format!("{}.console", self.role())),
            }),
        }
    }

    /// Cuts the machine's power: nothing is told to anyone.
    pub fn kill(&self) {
        if let Some(mut on) = self.power().take() {
            end(&mut on.child);
        }
    }

    /// Whether its QEMU runs.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.power()
            .as_mut()
            .is_some_and(|on| matches!(on.child.try_wait(), Ok(None)))
    }

    /// How it stands, and the ends of what its kernel wrote to the console and of what QEMU said: these are there when
    /// it takes no commands any more.
    #[must_use]
    pub fn last_words(&self) -> String {
        let ended = self.power().as_mut().map(|on| on.child.try_wait());
        let mut text = match ended {
            None => "is off".to_owned(),
            Some(Ok(None)) => "is on".to_owned(),
            Some(Ok(Some(status))) => format!("is off: QEMU ended by itself, {status}"),
            Some(Err(error)) => format!("may be on: {error}"),
        };
        for file in ["console", "qemu.log"] {
            let name = format!("{}.{file}", self.role());
            let said = fs::read(self.run.path().join(&name)).unwrap_or_default();
            let said = String::from_utf8_lossy(&said);
            let lines: Vec<_> = said.trim_end().lines().collect();
            let tail = &lines[lines.len().saturating_sub(LAST_LINES)..];
            text = format!("{text}\n-- {name}\n{}", tail.join("\n"));
        }
        text
    }

    /// Asks the machine to go down and waits until it has.
    pub fn shut_down(&self) -> Result<(), Error> {
        self.start("reboot", None)?;
        let limit = Instant::now() + DOWN;
        while self.is_on() {
            if Instant::now() > limit {
                return Err(Error::NotDown {
                    role: self.role(),
                    limit: DOWN,
                });
            }
            thread::sleep(Duration::from_millis(50));
        }
        self.kill();
        Ok(())
    }

    /// Reboots the machine in good order and waits until it is back.
    pub fn reboot(&self) -> Result<(), Error> {
        self.shut_down()?;
        self.boot()
    }
}

fn end(child: &mut Child) {
    // It may have ended by itself; either way it is collected.
    let _ = child.kill();
    let _ = child.wait();
}

fn host(program: &'static str, command: &mut Command) -> Result<(), Error> {
    let status = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .map_err(file("run", Path::new(program)))?;
    if status.success() {
        Ok(())
    } else {
        Err(Error::Program { program, status })
    }
}

pub(super) fn file(act: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_path_buf();
    move |source| Error::File { act, path, source }
}
